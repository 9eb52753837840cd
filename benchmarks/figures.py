"""Measured figures and targets."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """The times of equal requests in milliseconds, and the seconds that all of them took together."""

    milliseconds: Sequence[float]
    elapsed_seconds: float

    @property
    def p50(self) -> float:
        """The median in milliseconds."""
        return statistics.median(self.milliseconds)

    @property
    def p99(self) -> float:
        """The 99th percentile in milliseconds (nearest rank: a time that did occur)."""
        return sorted(self.milliseconds)[math.ceil(0.99 * len(self.milliseconds)) - 1]

    @property
    def per_second(self) -> float:
        """The requests per second of all clients together."""
        return len(self.milliseconds) / self.elapsed_seconds


def pooled(samples: Sequence[Sample]) -> Sample:
    """Return the requests of several rounds as one sample."""
    return Sample([each for one in samples for each in one.milliseconds], sum(one.elapsed_seconds for one in samples))


@dataclass(frozen=True)
class Target:
    """A figure and its upper limit, or its lower limit if ``at_least``."""

    name: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is within the target."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every column but the first holds figures, so it is right-aligned."""
    rule = ["---", *("---:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))


def target_table(targets: Sequence[Target]) -> str:
    """Return the table of all targets and whether they were met."""
    rows = [
        (
            item.name,
            f"{item.measured:.2f} {item.unit}",
            f"{'≥' if item.at_least else '≤'} {item.limit:g} {item.unit}",
            "pass" if item.met else "FAIL",
        )
        for item in targets
    ]
    return markdown_table(("claim", "measured", "target", ""), rows)
