"""The report of the kills, beneath that of the tests."""

import json
from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for every way to be killed, and one for all of them."""
    found = [
        json.loads(str(value))
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "kills" and report.when == "call"
    ]
    if not found:
        return
    terminalreporter.section("kills")
    total: Counter[str] = Counter()
    for way, counts in sorted(found):
        slowest = counts.pop("slowest")
        total.update(counts)
        terminalreporter.write_line(f"{way}: {_listed(counts)}, recovered in {slowest:.1f} s at the most")
    terminalreporter.write_line(f"in all: {_listed(total)}")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
