"""The report of kills and figures, beneath that of the tests."""

import json
from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Every figure; a line for every way to be killed, and one for all of them."""
    figures = _properties(terminalreporter, "figures")
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.write_line(line)
    found = [json.loads(value) for value in _properties(terminalreporter, "kills")]
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


def _properties(terminalreporter: pytest.TerminalReporter, wanted: str) -> list[str]:
    """What the tests recorded under this name."""
    return [
        str(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == wanted and report.when == "call"
    ]
