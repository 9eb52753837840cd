"""The shared installation of the tests, and the report of kills and measurements below pytest's summary."""

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.faults.shared_installation import UPSTREAMS
from tests.support.installation import Installation, open_installation
from tests.support.mariadb import MySqlDatabases


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory, mysql_server: MySqlDatabases) -> Iterator[Installation]:
    """Yield two machines of two processes each, shared by all tests that stop none of them."""
    with open_installation(tmp_path_factory.mktemp("installation"), mysql_server, UPSTREAMS) as opened:
        yield opened


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write every measurement, a line for every kind of kill, and a total."""
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
        terminalreporter.write_line(f"{way}: {_listed(counts)}, recovered in at most {slowest:.1f} s")
    terminalreporter.write_line(f"in all: {_listed(total)}")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _properties(terminalreporter: pytest.TerminalReporter, wanted: str) -> list[str]:
    """Return the values that the tests recorded under this name."""
    return [
        str(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == wanted and report.when == "call"
    ]
