"""Start and idle memory: how soon PixyProxy serves, and its memory without requests."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Target, markdown_table
from benchmarks.processes import Installation

RUNS = 4
SETTLE_SECONDS = 1.0
MOST_SECONDS = 2.0
MOST_MEGABYTES = 130.0
CONFIGURATIONS: Mapping[str, Mapping[str, str]] = {
    "offline": {},
    # Never called; with a key the SDK is loaded.
    "with OPENAI_API_KEY": {"OPENAI_API_KEY": "sk-unused", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},
}


@dataclass(frozen=True)
class Starts:
    """Several starts of one configuration, all with a fresh data folder or all with a migrated one."""

    name: str
    seconds: list[float]
    idle_megabytes: list[float]

    @property
    def row(self) -> tuple[str, ...]:
        """Return the row of the report."""
        return (
            self.name,
            f"{statistics.median(self.seconds):.2f}",
            f"{max(self.seconds):.2f}",
            f"{max(self.idle_megabytes):.0f}",
        )


def measure_starts(folder: Path) -> list[Starts]:
    """Start each configuration several times."""
    return [starts for name in CONFIGURATIONS for starts in _measure(name, CONFIGURATIONS[name], folder)]


def start_table(measured: list[Starts]) -> str:
    """Return the report."""
    columns = ("start", "median s", "worst s", "idle memory MB")
    return markdown_table(columns, [starts.row for starts in measured])


def start_targets(measured: list[Starts]) -> list[Target]:
    """Return the targets for the slowest start and the largest idle memory."""
    return [
        Target("start, worst", max(max(starts.seconds) for starts in measured), MOST_SECONDS, "s"),
        Target("idle memory, largest", max(max(starts.idle_megabytes) for starts in measured), MOST_MEGABYTES, "MB"),
    ]


def _measure(name: str, settings: Mapping[str, str], folder: Path) -> tuple[Starts, Starts]:
    fresh = Starts(f"{name}, fresh data folder", [], [])
    migrated = Starts(f"{name}, migrated data folder", [], [])
    for number in range(RUNS):
        home = folder / f"{name}-{number}"
        home.mkdir()
        for starts in (fresh, migrated):
            _start(Installation(home, settings), starts, with_memory=number == 0)
    return fresh, migrated


def _start(installation: Installation, starts: Starts, *, with_memory: bool) -> None:
    """Start once; memory differs little between runs, so only some wait for it to settle."""
    with installation.serve() as server:
        starts.seconds.append(server.start_seconds)
        if with_memory:
            time.sleep(SETTLE_SECONDS)
            starts.idle_megabytes.append(server.resident_megabytes())
