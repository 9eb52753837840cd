"""What is measured, and what it has to reach."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """The times of like requests, in milliseconds, and how many seconds all of them took together."""

    milliseconds: Sequence[float]
    elapsed_seconds: float

    @property
    def p50(self) -> float:
        """Half of the requests took no longer than this."""
        return statistics.median(self.milliseconds)

    @property
    def p99(self) -> float:
        """99 of 100 requests took no longer than this (nearest rank: a time that did occur)."""
        return sorted(self.milliseconds)[math.ceil(0.99 * len(self.milliseconds)) - 1]

    @property
    def per_second(self) -> float:
        """Requests a second, of all clients together."""
        return len(self.milliseconds) / self.elapsed_seconds


@dataclass(frozen=True)
class Target:
    """A figure and the most that it may be."""

    name: str
    measured: float
    most: float
    unit: str

    @property
    def met(self) -> bool:
        """Whether the figure is within the target."""
        return self.measured <= self.most


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is a figure, so it is set to the right."""
    rule = ["---", *("---:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))


def target_table(targets: Sequence[Target]) -> str:
    """Every target, and whether it was met."""
    rows = [
        (item.name, f"{item.measured:.2f} {item.unit}", f"{item.most:g} {item.unit}", "pass" if item.met else "FAIL")
        for item in targets
    ]
    return markdown_table(("target", "measured", "at the most", ""), rows)
