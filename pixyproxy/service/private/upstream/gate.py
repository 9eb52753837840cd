"""How much one upstream takes: its places, its calls in a minute, and the pauses after its failures.

Arithmetic alone, on what stands in the database. Times are seconds since 1970.
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
"""What ``requests_per_minute`` counts in, and slides along: 2 s more, for what lies between a start and its call."""
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
    """The one way to an upstream, in one transaction that has locked it.

    ``in_flight`` is how many orders it has; ``starts`` how many calls were started within the window, and ``oldest``
    when the first of them was. A pause only makes others the better choice: whether an upstream that pauses is tried
    is not decided here.
    """

    state: UpstreamState
    in_flight: int = 0
    starts: int = 0
    oldest: float | None = None
    changed: bool = False

    @property
    def load(self) -> float:
        """What it has to do, for its weight."""
        return self.in_flight / self.state.weight

    def is_free(self, now: float) -> bool:
        """Whether it may be given one more order."""
        return self.in_flight < self.state.concurrency and self.opens_at(now) <= now

    def pauses(self, now: float) -> bool:
        """Whether others are better for now."""
        return self.state.paused_until > now

    def opens_at(self, now: float) -> float:
        """When its calls per minute let the next one through."""
        most = self.state.requests_per_minute
        if most is None or self.starts < most or self.oldest is None:
            return now
        return self.oldest + WINDOW_SECONDS

    def enter(self, now: float) -> None:
        """One more order is at work."""
        self.in_flight += 1
        self.starts += 1
        self.oldest = now if self.oldest is None else self.oldest

    def leave(self, error: BaseException | None, *, entered_at: float, now: float) -> None:
        """Note how the order that entered then went; None: it succeeded."""
        if error is None:
            self._note_success(entered_at, now)
        elif isinstance(error, UpstreamBusyException):
            # The class has a figure of its own, for clients. What the upstream said stands in the instance.
            said = vars(error).get("retry_after_seconds", BUSY_SECONDS)
            self._pause(error, min(said, LONGEST_BUSY_SECONDS), now)
        elif isinstance(error, PictureUnusableException):
            self._change(unusable=self.state.unusable + 1)
            if self.state.unusable >= UNUSABLE_IN_A_ROW:
                self._note_failure(error, entered_at, now)
        # A client may have set the time that was too short, and must not turn others away from an upstream.
        elif isinstance(error, FAILURES) and not isinstance(error, UpstreamTimeoutException):
            self._note_failure(error, entered_at, now)

    def draw(self, share: float) -> None:
        """Note that it was chosen, with this share before."""
        self._change(share=share + 1 / self.state.weight)

    def places_per_second(self, typical_seconds: float) -> float:
        """How many places become free in a second; ``typical_seconds`` is for one of which nothing is known."""
        mean = max(self.state.mean_seconds or typical_seconds, SHORTEST_MEAN_SECONDS)
        per_minute = self.state.requests_per_minute
        most = math.inf if per_minute is None else per_minute / WINDOW_SECONDS
        return min(self.state.concurrency / mean, most)

    def seconds_to_next(self, typical_seconds: float, now: float) -> float:
        """About how long until it is free."""
        mean = self.state.mean_seconds or typical_seconds
        for_place = 0.0 if self.in_flight < self.state.concurrency else mean / self.state.concurrency
        return max(for_place, self.opens_at(now) - now)

    def _change(self, **values: float) -> None:
        self.state = self.state.model_copy(update=values)
        self.changed = True

    def _note_success(self, entered_at: float, now: float) -> None:
        seconds, mean = now - entered_at, self.state.mean_seconds
        self._change(unusable=0, mean_seconds=seconds if mean is None else mean + RECENT * (seconds - mean))
        # One that began before the last failure says nothing of what is now.
        if entered_at >= self.state.failed_at:
            self._change(failures=0, paused_until=0.0)

    def _note_failure(self, error: ImageGenerationException, entered_at: float, now: float) -> None:
        # What was on its way when the last failure came belongs to that one: a hundred at once are one outage.
        if entered_at >= self.state.failed_at:
            self._change(failures=self.state.failures + 1)
            doubled: int = 2 ** min(self.state.failures - 1, LONGEST_PAUSE_SECONDS.bit_length())
            self._pause(error, min(doubled, LONGEST_PAUSE_SECONDS), now)

    def _pause(self, error: ImageGenerationException, seconds: int, now: float) -> None:
        if not self.pauses(now):
            logger.warning("upstream %s pauses for %d s: %s", self.state.name, seconds, error.code)
        self._change(failed_at=now, paused_until=max(self.state.paused_until, now + seconds))


def least_loaded(gates: list[Gate], now: float) -> list[Gate]:
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
        return [min(free, key=lambda gate: gate.state.paused_until)]
    return []


def draw_by_weight(gates: list[Gate]) -> Gate:
    """Return one of them; over time each gets its weight's share of the orders."""
    # One that could not be chosen for long must not be sent everything until it has caught up.
    least = max(gate.state.share for gate in gates) - MOST_BEHIND
    chosen = min(gates, key=lambda gate: max(gate.state.share, least))
    chosen.draw(max(chosen.state.share, least))
    return chosen


def estimate_seconds(gates: list[Gate], position: int, now: float) -> float | None:
    """About how long until the order at this position gets a place; None while no duration is known."""
    working = [gate for gate in gates if not gate.pauses(now)] or gates
    known = [gate.state.mean_seconds for gate in working if gate.state.mean_seconds is not None]
    if not known:
        return None
    typical = sum(known) / len(known)
    first = min(gate.seconds_to_next(typical, now) for gate in working)
    return first + (position - 1) / sum(gate.places_per_second(typical) for gate in working)
