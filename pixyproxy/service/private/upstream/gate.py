"""How much one upstream takes: its places, its orders in a minute, and the pauses after its failures."""

import logging
import math
from collections import deque
from dataclasses import dataclass, field

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    PictureUnusableException,
    UpstreamAddressException,
    UpstreamBusyException,
    UpstreamCredentialException,
    UpstreamErrorException,
    UpstreamFundsException,
    UpstreamSilentException,
    UpstreamTimeoutException,
    UpstreamUnreachableException,
)

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 60.0
"""What ``requests_per_minute`` counts in, and slides along."""
BUSY_SECONDS = 5
"""The pause after a refusal for the upstream's own limits that does not say how long it lasts."""
LONGEST_BUSY_SECONDS = 300
LONGEST_PAUSE_SECONDS = 60
"""Pauses after failures begin with a second and double up to this."""
RECENT = 0.2
"""What the latest duration counts for in the mean (an exponentially weighted moving average)."""
SHORTEST_MEAN_SECONDS = 0.001
MOST_BEHIND = 2.0
"""Orders, for its weight, that an upstream may still get for when others were drawn; the usual spread is up to 1."""

FAILURES = (
    UpstreamUnreachableException,
    UpstreamErrorException,
    UpstreamCredentialException,
    UpstreamFundsException,
    UpstreamAddressException,
    UpstreamSilentException,
)
"""What an upstream pauses for, beside being busy."""
UNUSABLE_IN_A_ROW = 3
"""Pictures that cannot be stored, and are paid for, until an upstream pauses for them too."""


@dataclass(eq=False)
class Gate:
    """The one way to an upstream. All times are seconds of one clock that never goes back.

    A pause only makes others the better choice: whether an upstream that pauses is tried is not decided here.
    ``share`` is how many orders it was drawn for, for its weight; ``unusable`` counts the pictures since the last
    usable one.
    """

    name: str
    bit: int
    weight: int
    concurrency: int
    requests_per_minute: int | None
    in_flight: int = 0
    share: float = 0.0
    starts: deque[float] = field(default_factory=deque)
    pauses_until: float = -math.inf
    failed_at: float = -math.inf
    failures: int = 0
    unusable: int = 0
    mean_seconds: float | None = None

    @property
    def load(self) -> float:
        """What it has to do, for its weight."""
        return self.in_flight / self.weight

    def is_free(self, now: float) -> bool:
        """Whether it may be given one more order."""
        return self.in_flight < self.concurrency and self.opens_at(now) <= now

    def pauses(self, now: float) -> bool:
        """Whether others are better for now."""
        return self.pauses_until > now

    def opens_at(self, now: float) -> float:
        """When its orders per minute let the next one through."""
        if self.requests_per_minute is None:
            return now
        while self.starts and self.starts[0] + WINDOW_SECONDS <= now:
            self.starts.popleft()
        return now if len(self.starts) < self.requests_per_minute else self.starts[0] + WINDOW_SECONDS

    def next_change(self, now: float) -> float:
        """When it may become free, or the better choice, by time alone; infinity if never."""
        if self.in_flight >= self.concurrency:
            return math.inf
        return min((moment for moment in (self.opens_at(now), self.pauses_until) if moment > now), default=math.inf)

    def enter(self, now: float) -> None:
        """One more order is at work."""
        self.in_flight += 1
        if self.requests_per_minute is not None:
            self.starts.append(now)

    def leave_unused(self, entered_at: float) -> None:
        """The order that entered then never went to the upstream."""
        self.in_flight -= 1
        if entered_at in self.starts:
            self.starts.remove(entered_at)

    def leave(self, error: BaseException | None, *, entered_at: float, now: float) -> None:
        """The order that entered then is over; None: it succeeded."""
        self.in_flight -= 1
        if error is None:
            self._note_success(entered_at, now)
        elif isinstance(error, UpstreamBusyException):
            # The class has a figure of its own, for clients. What the upstream said stands in the instance.
            said = vars(error).get("retry_after_seconds", BUSY_SECONDS)
            self._pause(error, min(said, LONGEST_BUSY_SECONDS), now)
        elif isinstance(error, PictureUnusableException):
            self.unusable += 1
            if self.unusable >= UNUSABLE_IN_A_ROW:
                self._note_failure(error, entered_at, now)
        # A client may have set the time that was too short, and must not turn others away from an upstream.
        elif isinstance(error, FAILURES) and not isinstance(error, UpstreamTimeoutException):
            self._note_failure(error, entered_at, now)

    def places_per_second(self, typical_seconds: float) -> float:
        """How many places become free in a second; ``typical_seconds`` is for one of which nothing is known."""
        mean = max(self.mean_seconds or typical_seconds, SHORTEST_MEAN_SECONDS)
        most = math.inf if self.requests_per_minute is None else self.requests_per_minute / WINDOW_SECONDS
        return min(self.concurrency / mean, most)

    def seconds_to_next(self, typical_seconds: float, now: float) -> float:
        """About how long until it is free."""
        mean = self.mean_seconds or typical_seconds
        for_place = 0.0 if self.in_flight < self.concurrency else mean / self.concurrency
        return max(for_place, self.opens_at(now) - now)

    def _note_success(self, entered_at: float, now: float) -> None:
        self.unusable = 0
        seconds = now - entered_at
        self.mean_seconds = seconds if self.mean_seconds is None else _blend(self.mean_seconds, seconds)
        # One that began before the last failure says nothing of what is now.
        if entered_at >= self.failed_at:
            self.failures = 0
            self.pauses_until = -math.inf

    def _note_failure(self, error: ImageGenerationException, entered_at: float, now: float) -> None:
        # What was on its way when the last failure came belongs to that one: a hundred at once are one outage.
        if entered_at >= self.failed_at:
            self.failures += 1
            doubled: int = 2 ** min(self.failures - 1, LONGEST_PAUSE_SECONDS.bit_length())
            self._pause(error, min(doubled, LONGEST_PAUSE_SECONDS), now)

    def _pause(self, error: ImageGenerationException, seconds: int, now: float) -> None:
        if not self.pauses(now):
            logger.warning("upstream %s pauses for %d s: %s", self.name, seconds, error.code)
        self.failed_at = now
        self.pauses_until = max(self.pauses_until, now + seconds)


def _blend(mean: float, latest: float) -> float:
    return mean + RECENT * (latest - mean)


def least_loaded(gates: tuple[Gate, ...], now: float) -> list[Gate]:
    """Those to choose from for an order that these may take; none if it has to wait.

    Of the free ones those with the least to do, passing over what pauses. Where all pause, the free one that does so
    for the shortest time: a refusal that is remembered never refuses an order by itself.
    """
    free = [gate for gate in gates if gate.is_free(now)]
    rested = [gate for gate in free if not gate.pauses(now)]
    if rested:
        least = min(gate.load for gate in rested)
        return [gate for gate in rested if gate.load == least]
    if free and all(gate.pauses(now) for gate in gates):
        return [min(free, key=lambda gate: gate.pauses_until)]
    return []


def draw_by_weight(gates: list[Gate]) -> Gate:
    """One of them; over time each gets its weight's share of the orders."""
    # One that could not be chosen for long must not be sent everything until it has caught up.
    least = max(gate.share for gate in gates) - MOST_BEHIND
    for gate in gates:
        gate.share = max(gate.share, least)
    chosen = min(gates, key=lambda gate: gate.share)
    chosen.share += 1 / chosen.weight
    return chosen


def estimate_seconds(gates: tuple[Gate, ...], position: int, now: float) -> float | None:
    """About how long until the order at this position gets a place; None while no duration is known."""
    working = [gate for gate in gates if not gate.pauses(now)] or list(gates)
    known = [gate.mean_seconds for gate in working if gate.mean_seconds is not None]
    if not known:
        return None
    typical = sum(known) / len(known)
    first = min(gate.seconds_to_next(typical, now) for gate in working)
    return first + (position - 1) / sum(gate.places_per_second(typical) for gate in working)
