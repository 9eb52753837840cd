"""Which order goes to which upstream, and when: decided in one transaction, under the lock of the upstreams' rows.

Tenants take turns: of those that wait, the one whose last order at these upstreams began longest ago is next, with its
oldest order. Everything that this is decided from stands in the database, so that any number of processes decide alike.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from pixyproxy.core import clock
from pixyproxy.core.exceptions import QueueFullException
from pixyproxy.core.models.generation import Generation, ProcessGuid
from pixyproxy.core.models.image import GenerationId
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.upstream import UpstreamId, UpstreamState, serves
from pixyproxy.data.database import Repositories
from pixyproxy.data.repositories.queue import Place, QueueHead
from pixyproxy.service.private.upstream.gate import (
    WINDOW_SECONDS,
    Gate,
    draw_by_weight,
    estimate_seconds,
    least_loaded,
)
from pixyproxy.service.private.upstream.pool import PooledUpstream

LEASE_SECONDS = 60
"""How long a process may be silent before others take it for dead; on its own machine its lock tells at once."""
CALL_MARGIN_SECONDS = 15
"""How much longer than a call may take its place is held where nobody says that it is over."""
TURN_SECONDS = 1e-6
"""How far turns lie apart at least; a column of seconds since 1970 tells steps of a quarter of this."""
LONGEST_RETRY_SECONDS = 300
"""The most that a refusal tells a client to wait: an estimate for later than that is none."""


@dataclass(frozen=True)
class Scheduler:
    """Opens schedules. ``upstreams`` are those that this process has configured.

    ``call_seconds`` is how long a call takes at the most. At most ``queue_size`` orders of a tenant wait.
    """

    upstreams: Mapping[str, PooledUpstream]
    owner: ProcessGuid
    call_seconds: float
    queue_size: int

    def lock(self, data: Repositories) -> "Schedule":
        """Return a schedule that nobody else changes before this transaction ends."""
        return Schedule(self, data, data.upstreams.list_named(list(self.upstreams), lock=True))

    def look(self, data: Repositories) -> "Schedule":
        """Return a schedule to read positions from."""
        return Schedule(self, data, data.upstreams.list_named(list(self.upstreams)))

    def register(self, data: Repositories, *, revision: float) -> None:
        """Have a row for each upstream, with the numbers of the settings."""
        for name, upstream in self.upstreams.items():
            data.upstreams.register(name, upstream.numbers, revision=revision)

    def serves(self, model: str) -> bool:
        """Whether an upstream serves the model."""
        return any(serves(each.models, model) for each in self.upstreams.values())


@dataclass
class Schedule:
    """Who has which place, and who waits, in one transaction. Its time is taken after the lock.

    ``latest_turn`` is the latest one that is known of. The next one is later, whatever the time: several orders begin
    in one transaction, and the clocks of two processes differ by a little.
    """

    scheduler: Scheduler
    data: Repositories
    states: list[UpstreamState]
    now: float = field(default_factory=clock.seconds)
    latest_turn: float = 0.0

    @cached_property
    def gates(self) -> list[Gate]:
        """The upstreams, with nothing counted yet."""
        return [Gate(state) for state in self.states]

    @cached_property
    def counted(self) -> list[Gate]:
        """The upstreams, with what they have to do when they are first looked at."""
        places = self.data.upstreams.count_places(now=self.now)
        for gate in self.gates:
            gate.in_flight = places.get(gate.state.id, 0)
            if gate.state.requests_per_minute is not None:
                gate.starts, gate.oldest = self.data.upstreams.starts_since(gate.state.id, self.now - WINDOW_SECONDS)
        return self.gates

    def reach(self, model: str, excluded: frozenset[UpstreamId] = frozenset()) -> list[Gate]:
        """The upstreams that may take an order."""
        return [gate for gate in self.counted if self._serves(gate.state, model, excluded)]

    def is_served(self, model: str, excluded: frozenset[UpstreamId]) -> bool:
        """Whether an upstream may take an order, now or later."""
        return any(self._serves(state, model, excluded) for state in self.states)

    def place_at_once(self, tenant_id: TenantId, model: str) -> Place | None:
        """A place for a new order, if one is free and nobody waits for it."""
        if not self.data.queue.is_empty():
            return None
        free = least_loaded(self.reach(model), self.now)
        return self._enter(draw_by_weight(free), tenant_id) if free else None

    def begin_waiting(self, *, limit: int) -> list[Generation]:
        """Give free places to those that are next, and return their orders: this process is to execute them."""
        begun: list[Generation] = []
        if not limit or self.data.queue.is_empty():
            return begun
        while len(begun) < limit and (following := self._next()) is not None:
            head, gates = following
            place = self._enter(draw_by_weight(gates), head.tenant_id)
            begun.append(self.data.queue.begin(head.first_id, place))
        return begun

    @property
    def is_something_free(self) -> bool:
        """Whether an order that waits may begin."""
        return self._next() is not None

    def require_room(self, tenant_id: TenantId, model: str) -> None:
        """Raise ``QueueFullException`` if more of the tenant's orders wait than may."""
        if self.data.queue.count(tenant_id=tenant_id) > self.scheduler.queue_size:
            raise QueueFullException(retry_after_seconds=self.retry_after(model))

    def leave(self, generation: Generation, error: BaseException | None) -> None:
        """Note how an order went at its upstream, whose place the row does not hold any more.

        What recovery finishes for another process says nothing of how long a call takes.
        """
        gate = next((gate for gate in self.gates if gate.state.id == generation.upstream_id), None)
        own = generation.lease_owner == self.scheduler.owner
        if own and gate is not None and generation.started_at is not None:
            gate.leave(error, entered_at=generation.started_at, now=self.now)

    def save(self) -> None:
        """Write what has changed of the upstreams."""
        for gate in self.gates:
            if gate.changed:
                self.data.upstreams.save(gate.state)
                gate.changed = False

    def retry_after(self, model: str) -> int | None:
        """When the queue of the model has moved by one for each tenant, in seconds; None while that is unknown."""
        gates = self.reach(model)
        tenants = {head.tenant_id for head in self.data.queue.heads() if self._meets(head, gates)}
        seconds = estimate_seconds(gates, max(1, len(tenants)), self.now)
        return None if seconds is None else min(max(1, math.ceil(seconds)), LONGEST_RETRY_SECONDS)

    def standings(self, tenant_id: TenantId) -> dict[GenerationId, tuple[int, float | None]]:
        """The position of each of a tenant's orders that wait, 1 for the next, and about how many seconds it waits.

        Between two of its orders every other tenant that waits for the same upstreams has one turn.
        """
        lines = self.data.queue.count_lines()
        turns = self._turns([head for head, _ in lines])
        reached: dict[tuple[str, frozenset[UpstreamId]], tuple[list[Gate], list[tuple[int, bool]]]] = {}
        found: dict[GenerationId, tuple[int, float | None]] = {}
        ahead: Counter[frozenset[UpstreamId]] = Counter()
        for waiting in self.data.queue.list_waiting(tenant_id=tenant_id):
            line = waiting.model, waiting.excluded
            if line not in reached:
                gates = self.reach(*line)
                reached[line] = gates, self._rivals(tenant_id, gates, lines, turns)
            gates, rivals = reached[line]
            ids = frozenset(gate.state.id for gate in gates)
            own = sum(count for others, count in ahead.items() if ids & others)
            ahead[ids] += 1
            position = 1 + own + sum(min(count, own + comes_first) for count, comes_first in rivals)
            found[waiting.id] = position, estimate_seconds(gates, position, self.now) if gates else None
        return found

    def _rivals(
        self,
        tenant_id: TenantId,
        gates: list[Gate],
        lines: list[tuple[QueueHead, int]],
        turns: Mapping[QueueHead, float],
    ) -> list[tuple[int, bool]]:
        """For each other tenant that waits for these upstreams, how many of its orders do, and whether it is next."""
        counts: Counter[TenantId] = Counter()
        firsts: dict[TenantId, tuple[float, GenerationId]] = {}
        for head, count in lines:
            if self._meets(head, gates):
                first = turns[head], head.first_id
                counts[head.tenant_id] += count
                firsts[head.tenant_id] = min(first, firsts.get(head.tenant_id, first))
        own = firsts.get(tenant_id, (math.inf, GenerationId(0)))
        return [(count, firsts[tenant] < own) for tenant, count in counts.items() if tenant != tenant_id]

    def _serves(self, state: UpstreamState, model: str, excluded: frozenset[UpstreamId]) -> bool:
        return state.id not in excluded and serves(self.scheduler.upstreams[state.name].models, model)

    def _meets(self, head: QueueHead, gates: list[Gate]) -> bool:
        """Whether one of these upstreams may take the orders of a line."""
        return any(gate in gates for gate in self.reach(head.model, head.excluded))

    def _turns(self, heads: list[QueueHead]) -> dict[QueueHead, float]:
        """When the last order of each line's tenant began at the upstreams that may take it; 0 for none."""
        began = self.data.upstreams.turns(sorted({head.tenant_id for head in heads}))
        self.latest_turn = max([self.latest_turn, *began.values()])
        return {
            head: max(
                (began.get((head.tenant_id, gate.state.id), 0.0) for gate in self.reach(head.model, head.excluded)),
                default=0.0,
            )
            for head in heads
        }

    def _enter(self, gate: Gate, tenant_id: TenantId) -> Place:
        """Take a place that is free."""
        gate.enter(self.now)
        state, moment = gate.state, datetime.fromtimestamp(int(self.now), UTC)
        if state.requests_per_minute is not None:
            self.data.upstreams.note_start(state.id, at=self.now)
        self.latest_turn = max(self.now, self.latest_turn + TURN_SECONDS)
        self.data.upstreams.take_turn(tenant_id, state.id, at=self.latest_turn)
        return Place(
            upstream_id=state.id,
            upstream=state.name,
            lease_owner=self.scheduler.owner,
            started_at=self.now,
            place_until=self.now + self.scheduler.call_seconds + CALL_MARGIN_SECONDS,
            lease_until=moment + timedelta(seconds=LEASE_SECONDS),
        )

    def _next(self) -> tuple[QueueHead, list[Gate]] | None:
        """The order whose turn it is, of those that a free place is there for, and the upstreams to choose from."""
        lines = (
            (head, least_loaded(self.reach(head.model, head.excluded), self.now)) for head in self.data.queue.heads()
        )
        able = [(head, gates) for head, gates in lines if gates]
        if not able:
            return None
        turns = self._turns([head for head, _ in able])
        following, _ = min(able, key=lambda each: (turns[each[0]], each[0].first_id))
        # It is the tenant's turn, not the line's.
        own = [each for each in able if each[0].tenant_id == following.tenant_id]
        return min(own, key=lambda each: each[0].first_id)
