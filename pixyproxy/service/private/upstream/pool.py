"""All upstreams together: an order takes a turn, waits for it, and gets a place at one of them.

Belongs to one event loop; nothing here may be called from another thread.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    ModelUnknownException,
    QueueFullException,
    QueueTimeoutException,
    UpstreamTimeoutException,
)
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.upstream import serves
from pixyproxy.service.private.upstream.gate import Gate, draw_by_weight, estimate_seconds, least_loaded
from pixyproxy.service.private.upstream.queue import FairQueue, Place
from pixyproxy.service.private.upstream.upstream import Upstream

logger = logging.getLogger(__name__)

LONGEST_RETRY_SECONDS = 300
"""The most that a refusal tells a client to wait: an estimate for later than that is none."""
TIMED_OUT = "The image service took too long to list its models. Try again later."


class Timing(Protocol):
    """What the pool needs of an event loop."""

    def time(self) -> float:
        """Seconds, which never go back."""

    def call_at(self, when: float, callback: Callable[[], None], /) -> asyncio.Handle:
        """Call this at that time, unless the handle is cancelled."""


@dataclass(frozen=True)
class PooledUpstream:
    """An upstream, and how much of the work it gets; ``UpstreamSettings`` says what the figures mean."""

    name: str
    upstream: Upstream
    models: tuple[str, ...] | None
    weight: int
    concurrency: int
    requests_per_minute: int | None


@dataclass(eq=False)
class Turn:
    """One place in the queue, then one place at an upstream; whoever took it calls ``release``, whatever happens.

    ``upstream`` is whose place it holds, or held; None while it waits.
    """

    pool: "UpstreamPool"
    reach: int
    place: Place | None = None
    gate: Gate | None = None
    upstream: PooledUpstream | None = None
    entered_at: float = 0.0
    released: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ready(self) -> bool:
        """Whether it holds a place at an upstream."""
        return self.gate is not None and not self.released

    @property
    def position(self) -> int:
        """1 if it is next, 0 if it does not wait any more."""
        return 0 if self.place is None else self.pool.queue.position(self.place)

    @property
    def estimate_seconds(self) -> float | None:
        """About how long until it is ready, from how long orders took lately; None while that is unknown."""
        return 0.0 if self.place is None else self.pool.estimate(self.reach, self.position)

    async def wait_changed(self) -> bool:
        """Return once the position has noticeably changed; False if it does not wait any more.

        Far behind, changes of a quarter are noticeable; near the front each one is. Any number may wait for this.
        """
        if self.place is None:
            return False
        await self.pool.queue.watch(self.place).wait()
        return self.place is not None

    async def wait(self, *, seconds: float) -> PooledUpstream:
        """The upstream to ask, once a place there is held. If it raises, whatever it is, nothing is held.

        Raises ``QueueTimeoutException`` when this many seconds pass, or when it is released meanwhile.
        """
        if self.place is not None:
            await self._wait_for_place(seconds)
        if not self.ready or self.upstream is None:
            raise QueueTimeoutException(retry_after_seconds=self.pool.retry_after(self.reach))
        return self.upstream

    def release(self, error: BaseException | None = None) -> None:
        """Leave the queue, or give the place back; again is the same as once.

        ``error`` is what came of asking the upstream; None: it succeeded. One that is the upstream's own fault makes
        the pool pass it over for a while.
        """
        if self.ready or self.place is not None:
            self.pool.end(self, error)

    async def _wait_for_place(self, seconds: float) -> None:
        timing = self.pool.timing
        timer = timing.call_at(timing.time() + seconds, self._expire)
        try:
            await self.over.wait()
        except BaseException:
            # A place that came in the same moment was never used.
            self.pool.withdraw(self)
            raise
        finally:
            timer.cancel()

    def _expire(self) -> None:
        if self.place is not None:
            self.pool.withdraw(self)


class UpstreamPool:
    """Gives every order a fair turn at an upstream that serves its model.

    There is one at least, and each has a name of its own. At most ``queue_size`` orders of a tenant wait.
    """

    def __init__(self, upstreams: Sequence[PooledUpstream], *, queue_size: int, timing: Timing | None = None) -> None:
        self.queue = FairQueue()
        self._upstreams = tuple(upstreams)
        self._queue_size = queue_size
        self._timing = timing
        self.gates = tuple(
            Gate(each.name, 1 << index, each.weight, each.concurrency, each.requests_per_minute)
            for index, each in enumerate(upstreams)
        )
        self._waiting: dict[Place, Turn] = {}
        self._alarm: asyncio.Handle | None = None
        self._alarm_at = math.inf

    @property
    def name(self) -> str:
        """What to call them all in the log."""
        return ", ".join(each.upstream.name for each in self._upstreams)

    @property
    def timing(self) -> Timing:
        """What tells the time, and calls back: the running event loop."""
        return self._timing or asyncio.get_running_loop()

    def join(self, tenant_id: TenantId, model: str, *, excluding: frozenset[str] = frozenset()) -> Turn:
        """A turn of this tenant at an upstream that serves the model, but at none of those named; never waits.

        It is ready at once if an upstream is free that nobody in front waits for. Raises ``ModelUnknownException``
        if no upstream is left, ``QueueFullException`` if as many of the tenant wait as may.
        """
        reach = self._reach(model, excluding)
        if not reach:
            raise ModelUnknownException
        now = self.timing.time()
        # What opened by time a moment ago belongs to those that wait already.
        self._serve(now)
        turn = Turn(self, reach)
        if gates := least_loaded(self._gates_of(reach), now):
            self._seat(turn, draw_by_weight(gates), now)
        elif self.queue.count_waiting(tenant_id) >= self._queue_size:
            raise QueueFullException(retry_after_seconds=self.retry_after(reach))
        else:
            turn.place = self.queue.join(tenant_id, reach)
            self._waiting[turn.place] = turn
            self._set_alarm(now)
        return turn

    def serves_other(self, model: str, excluding: frozenset[str]) -> bool:
        """Whether an upstream serves the model that is none of those named."""
        return bool(self._reach(model, excluding))

    async def list_models(self, *, seconds: float | None = None) -> list[str]:
        """What the upstreams offer, as far as they are asked for it, sorted.

        Of one that cannot tell, within this many seconds if any are given, these are the models that its settings
        name in full. Raises ``ImageGenerationException`` if none can tell.
        """
        models, errors = await self._ask_all(seconds)
        if len(errors) == len(self._upstreams):
            raise errors[0]
        return sorted(models)

    async def close(self) -> None:
        """Close the connections of all. Raises what one of them raised, when all are closed."""
        if self._alarm is not None:
            self._alarm.cancel()
        outcomes = await asyncio.gather(*(each.upstream.close() for each in self._upstreams), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def estimate(self, reach: int, position: int) -> float | None:
        """About how long a turn at this position waits; None while that is unknown."""
        return estimate_seconds(self._gates_of(reach), position, self.timing.time())

    def retry_after(self, reach: int) -> int | None:
        """When a tenant's queue has moved by one, in seconds; None while that is unknown."""
        seconds = self.estimate(reach, max(1, self.queue.count_tenants(reach)))
        return None if seconds is None else min(max(1, math.ceil(seconds)), LONGEST_RETRY_SECONDS)

    def end(self, turn: Turn, error: BaseException | None) -> None:
        """What a turn holds is free again: ``Turn.release``."""
        if turn.gate is None:
            self.withdraw(turn)
        else:
            now = self.timing.time()
            turn.released = True
            turn.gate.leave(error, entered_at=turn.entered_at, now=now)
            self._serve(now)

    def withdraw(self, turn: Turn) -> None:
        """A turn is given up before its upstream was asked for anything; again is the same as once."""
        if turn.place is not None:
            self.queue.leave(turn.place)
            del self._waiting[turn.place]
            turn.place = None
            turn.over.set()
        elif turn.gate is not None and not turn.released:
            turn.gate.leave_unused(turn.entered_at)
        turn.released = True
        self._serve(self.timing.time())

    async def _ask_all(self, seconds: float | None) -> tuple[set[str], list[ImageGenerationException]]:
        models: set[str] = set()
        errors: list[ImageGenerationException] = []

        def fail(each: PooledUpstream, error: ImageGenerationException) -> None:
            logger.warning("upstream %s did not list its models: %s", each.name, error.code)
            errors.append(error)
            models.update(model for model in each.models or () if not model.endswith("*"))

        async def ask(each: PooledUpstream) -> None:
            try:
                async with asyncio.timeout(seconds):
                    models.update(model for model in await each.upstream.list_models() if serves(each.models, model))
            except TimeoutError:
                fail(each, UpstreamTimeoutException(TIMED_OUT))
            except ImageGenerationException as error:
                fail(each, error)

        await asyncio.gather(*map(ask, self._upstreams))
        return models, errors

    def _reach(self, model: str, excluding: frozenset[str]) -> int:
        pairs = zip(self._upstreams, self.gates, strict=True)
        return sum(gate.bit for each, gate in pairs if each.name not in excluding and serves(each.models, model))

    def _gates_of(self, reach: int) -> tuple[Gate, ...]:
        return tuple(gate for gate in self.gates if gate.bit & reach)

    def _seat(self, turn: Turn, gate: Gate, now: float) -> None:
        gate.enter(now)
        turn.place, turn.gate, turn.entered_at = None, gate, now
        turn.upstream = self._upstreams[self.gates.index(gate)]
        turn.over.set()

    def _serve(self, now: float) -> None:
        """Give away what is free, until nobody waits for anything that is."""
        while free := self._free_for_waiting(now):
            tenant_id, reach = self.queue.next_turn(free)
            gate = draw_by_weight(free[reach])
            place = self.queue.oldest(tenant_id, [each for each, gates in free.items() if gate in gates])
            self.queue.serve(place, gate.bit)
            self._seat(self._waiting.pop(place), gate, now)
        self.queue.tell_watchers()
        self._set_alarm(now)

    def _free_for_waiting(self, now: float) -> dict[int, list[Gate]]:
        """What those that wait may choose from, for each set of upstreams of which one is free."""
        lines = ((reach, least_loaded(self._gates_of(reach), now)) for reach in self.queue.reaches)
        return {reach: gates for reach, gates in lines if gates}

    def _set_alarm(self, now: float) -> None:
        """Be called when time alone frees something that is waited for."""
        awaited = [gate for reach in self.queue.reaches for gate in self._gates_of(reach)]
        moment = min((gate.next_change(now) for gate in awaited), default=math.inf)
        if moment != self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_at = moment
            self._alarm = None if moment == math.inf else self.timing.call_at(moment, self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self._serve(self.timing.time())
