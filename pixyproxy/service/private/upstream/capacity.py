"""The capacity of one upstream: its slots, its calls per minute, and its pauses after failures.

Pure arithmetic on values from the database. Times are seconds since 1970.
"""

import logging
import math
from dataclasses import dataclass

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
from pixyproxy.core.models.upstream import UpstreamState

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 62.0
"""The sliding window of ``requests_per_minute``: 2 s longer, for the time between a start and its call."""
BUSY_SECONDS = 5
"""The pause after a rejection for the upstream's own limits that does not say how long to wait."""
LONGEST_BUSY_SECONDS = 300
LONGEST_PAUSE_SECONDS = 60
"""Pauses after failures start at one second and double up to this."""
RECENT = 0.2
"""The weight of the latest duration in the mean (an exponentially weighted moving average)."""
SHORTEST_MEAN_SECONDS = 0.001
MOST_BEHIND = 2.0
"""How many orders, by weight, an upstream may catch up after others were chosen; the usual spread is up to 1."""

FAILURES = (
    UpstreamUnreachableException,
    UpstreamErrorException,
    UpstreamCredentialException,
    UpstreamFundsException,
    UpstreamAddressException,
    UpstreamSilentException,
)
"""The errors that pause an upstream, besides being busy."""
UNUSABLE_IN_A_ROW = 3
"""How many consecutive unusable pictures, which are paid for, pause an upstream."""


@dataclass(eq=False)
class UpstreamCapacity:
    """The state of an upstream in one transaction that has locked it.

    ``in_flight`` is the number of its orders; ``starts`` counts the calls started within the window, and ``oldest`` is
    the start of the first. A pause only makes other upstreams preferable; ``least_loaded`` decides whether to use it.
    """

    state: UpstreamState
    in_flight: int = 0
    starts: int = 0
    oldest: float | None = None
    changed: bool = False

    @property
    def load(self) -> float:
        """The orders in flight by weight."""
        return self.in_flight / self.state.weight

    def is_free(self, now: float) -> bool:
        """Return whether it may get one more order."""
        return self.in_flight < self.state.concurrency and self.opens_at(now) <= now

    def pauses(self, now: float) -> bool:
        """Return whether other upstreams are preferable now."""
        return self.state.paused_until > now

    def opens_at(self, now: float) -> float:
        """Return when its calls per minute allow the next call."""
        most = self.state.requests_per_minute
        if most is None or self.starts < most or self.oldest is None:
            return now
        return self.oldest + WINDOW_SECONDS

    def enter(self, now: float) -> None:
        """Count one more order in flight."""
        self.in_flight += 1
        self.starts += 1
        self.oldest = now if self.oldest is None else self.oldest

    def leave(self, error: BaseException | None, *, entered_at: float, now: float) -> None:
        """Record the outcome of an order that started at ``entered_at``; None: it succeeded."""
        if error is None:
            self._note_success(entered_at, now)
        elif isinstance(error, UpstreamBusyException):
            # The class attribute is the value for clients; the instance attribute is what the upstream sent.
            said = vars(error).get("retry_after_seconds", BUSY_SECONDS)
            self._pause(error, min(said, LONGEST_BUSY_SECONDS), now)
        elif isinstance(error, PictureUnusableException):
            self._change(unusable=self.state.unusable + 1)
            if self.state.unusable >= UNUSABLE_IN_A_ROW:
                self._note_failure(error, entered_at, now)
        # Ignore a timeout: a client may have set it too short and must not affect the upstream for others.
        elif isinstance(error, FAILURES) and not isinstance(error, UpstreamTimeoutException):
            self._note_failure(error, entered_at, now)

    def draw(self, share: float) -> None:
        """Record that it was chosen; ``share`` is its share before."""
        self._change(share=share + 1 / self.state.weight)

    def places_per_second(self, typical_seconds: float) -> float:
        """Return the slots freed per second; ``typical_seconds`` is used if its mean duration is unknown."""
        mean = max(self.state.mean_seconds or typical_seconds, SHORTEST_MEAN_SECONDS)
        per_minute = self.state.requests_per_minute
        most = math.inf if per_minute is None else per_minute / WINDOW_SECONDS
        return min(self.state.concurrency / mean, most)

    def seconds_to_next(self, typical_seconds: float, now: float) -> float:
        """Return the estimated seconds until it is free."""
        mean = self.state.mean_seconds or typical_seconds
        for_place = 0.0 if self.in_flight < self.state.concurrency else mean / self.state.concurrency
        return max(for_place, self.opens_at(now) - now)

    def _change(self, **values: float) -> None:
        self.state = self.state.model_copy(update=values)
        self.changed = True

    def _note_success(self, entered_at: float, now: float) -> None:
        seconds, mean = now - entered_at, self.state.mean_seconds
        self._change(unusable=0, mean_seconds=seconds if mean is None else mean + RECENT * (seconds - mean))
        # A call that started before the last failure does not show the present state.
        if entered_at >= self.state.failed_at:
            self._change(failures=0, paused_until=0.0)

    def _note_failure(self, error: ImageGenerationException, entered_at: float, now: float) -> None:
        # Count calls in flight at the last failure as part of it: a hundred at once are one outage.
        if entered_at >= self.state.failed_at:
            self._change(failures=self.state.failures + 1)
            doubled: int = 2 ** min(self.state.failures - 1, LONGEST_PAUSE_SECONDS.bit_length())
            self._pause(error, min(doubled, LONGEST_PAUSE_SECONDS), now)

    def _pause(self, error: ImageGenerationException, seconds: int, now: float) -> None:
        if not self.pauses(now):
            logger.warning("upstream %s is paused for %d s: %s", self.state.name, seconds, error.code)
        self._change(failed_at=now, paused_until=max(self.state.paused_until, now + seconds))


def least_loaded(capacities: list[UpstreamCapacity], now: float) -> list[UpstreamCapacity]:
    """Return the upstreams to choose from for an order; none if it has to wait.

    Prefer the free upstreams with the least load that are not paused. If all are paused, return the free one whose
    pause ends first: a remembered failure never rejects an order by itself.
    """
    free = [capacity for capacity in capacities if capacity.is_free(now)]
    rested = [capacity for capacity in free if not capacity.pauses(now)]
    if rested:
        least = min(capacity.load for capacity in rested)
        return [capacity for capacity in rested if capacity.load == least]
    if free and all(capacity.pauses(now) for capacity in capacities):
        return [min(free, key=lambda capacity: capacity.state.paused_until)]
    return []


def draw_by_weight(capacities: list[UpstreamCapacity]) -> UpstreamCapacity:
    """Choose an upstream; over time each gets its share of the orders by weight."""
    # An upstream that was unavailable for long must not get every order until it has caught up.
    least = max(capacity.state.share for capacity in capacities) - MOST_BEHIND
    chosen = min(capacities, key=lambda capacity: max(capacity.state.share, least))
    chosen.draw(max(chosen.state.share, least))
    return chosen


def estimate_seconds(capacities: list[UpstreamCapacity], position: int, now: float) -> float | None:
    """Return the estimated seconds until the order at this position gets a slot; None while no duration is known."""
    working = [capacity for capacity in capacities if not capacity.pauses(now)] or capacities
    known = [capacity.state.mean_seconds for capacity in working if capacity.state.mean_seconds is not None]
    if not known:
        return None
    typical = sum(known) / len(known)
    first = min(capacity.seconds_to_next(typical, now) for capacity in working)
    return first + (position - 1) / sum(capacity.places_per_second(typical) for capacity in working)
