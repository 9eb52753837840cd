"""Decide which order goes to which upstream and when, in one transaction under the lock of the upstreams' rows.

Tenants take turns: the waiting tenant whose last order at these upstreams started longest ago is next, with its oldest
order. All inputs of the decision are in the database, so all processes decide alike.
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
from pixyproxy.data.repositories.queue import QueueHead, Slot
from pixyproxy.service.private.upstream.capacity import (
    WINDOW_SECONDS,
    UpstreamCapacity,
    draw_by_weight,
    estimate_seconds,
    least_loaded,
)
from pixyproxy.service.private.upstream.pool import PooledUpstream

LEASE_SECONDS = 60
"""How long a process may be silent before others consider it dead; on its own machine its lock shows that at once."""
CALL_MARGIN_SECONDS = 15
"""How much longer than the longest call its slot is held if nothing releases it."""
TURN_SECONDS = 1e-6
"""The least distance of two turns; a column of seconds since 1970 resolves a quarter of this."""
LONGEST_RETRY_SECONDS = 300
"""The longest wait that an error suggests: estimates beyond it are unreliable."""


@dataclass(frozen=True)
class Scheduler:
    """Creates schedules. ``upstreams`` are those configured in this process.

    ``call_seconds`` is the longest duration of a call. At most ``queue_size`` orders of a tenant wait.
    """

    upstreams: Mapping[str, PooledUpstream]
    owner: ProcessGuid
    call_seconds: float
    queue_size: int

    def lock(self, data: Repositories) -> "Schedule":
        """Return a schedule whose upstreams stay locked until this transaction ends."""
        return Schedule(self, data, data.upstreams.list_named(list(self.upstreams), lock=True))

    def look(self, data: Repositories) -> "Schedule":
        """Return a read-only schedule, without locks."""
        return Schedule(self, data, data.upstreams.list_named(list(self.upstreams)))

    def register(self, data: Repositories, *, revision: float) -> None:
        """Write a row for each upstream with the capacity limits of the settings."""
        for name, upstream in self.upstreams.items():
            data.upstreams.register(name, upstream.numbers, revision=revision)

    def serves(self, model: str) -> bool:
        """Return whether an upstream serves the model."""
        return any(serves(each.models, model) for each in self.upstreams.values())


@dataclass
class Schedule:
    """The slots in use and the waiting orders in one transaction. Its time is taken after the lock.

    ``latest_turn`` is the latest known turn. The next turn is later, whatever the time: one transaction may start
    several orders, and the clocks of two processes differ slightly.
    """

    scheduler: Scheduler
    data: Repositories
    states: list[UpstreamState]
    now: float = field(default_factory=clock.seconds)
    latest_turn: float = 0.0

    @cached_property
    def capacities(self) -> list[UpstreamCapacity]:
        """The upstreams, without counts."""
        return [UpstreamCapacity(state) for state in self.states]

    @cached_property
    def counted(self) -> list[UpstreamCapacity]:
        """The upstreams, with their counts as of the first access."""
        slots = self.data.upstreams.count_slots(now=self.now)
        for capacity in self.capacities:
            capacity.in_flight = slots.get(capacity.state.id, 0)
            if capacity.state.requests_per_minute is not None:
                capacity.starts, capacity.oldest = self.data.upstreams.starts_since(
                    capacity.state.id, self.now - WINDOW_SECONDS
                )
        return self.capacities

    def eligible(self, model: str, excluded: frozenset[UpstreamId] = frozenset()) -> list[UpstreamCapacity]:
        """Return the upstreams that may take an order."""
        return [capacity for capacity in self.counted if self._serves(capacity.state, model, excluded)]

    def is_served(self, model: str, excluded: frozenset[UpstreamId]) -> bool:
        """Return whether an upstream may take an order, now or later."""
        return any(self._serves(state, model, excluded) for state in self.states)

    def free_slot(self, tenant_id: TenantId, model: str) -> Slot | None:
        """Return a slot for a new order if one is free and no order is waiting."""
        if not self.data.queue.is_empty():
            return None
        free = least_loaded(self.eligible(model), self.now)
        return self._enter(draw_by_weight(free), tenant_id) if free else None

    def start_waiting(self, *, limit: int) -> list[Generation]:
        """Give free slots to the next orders and return these; this process must execute them."""
        begun: list[Generation] = []
        if not limit or self.data.queue.is_empty():
            return begun
        while len(begun) < limit and (following := self._next()) is not None:
            head, capacities = following
            slot = self._enter(draw_by_weight(capacities), head.tenant_id)
            begun.append(self.data.queue.begin(head.first_id, slot))
        return begun

    @property
    def is_something_free(self) -> bool:
        """Whether a waiting order may start."""
        return self._next() is not None

    def require_room(self, tenant_id: TenantId, model: str) -> None:
        """Raise ``QueueFullException`` if the tenant has more waiting orders than allowed."""
        if self.data.queue.count(tenant_id=tenant_id) > self.scheduler.queue_size:
            raise QueueFullException(retry_after_seconds=self.retry_after(model))

    def leave(self, generation: Generation, error: BaseException | None) -> None:
        """Record the outcome of an order at its upstream; its row no longer holds the slot.

        Orders that recovery finished for another process are ignored, as their durations say nothing about calls.
        """
        capacity = next((capacity for capacity in self.capacities if capacity.state.id == generation.upstream_id), None)
        own = generation.lease_owner == self.scheduler.owner
        if own and capacity is not None and generation.started_at is not None:
            capacity.leave(error, entered_at=generation.started_at, now=self.now)

    def save(self) -> None:
        """Write the changed upstreams."""
        for capacity in self.capacities:
            if capacity.changed:
                self.data.upstreams.save(capacity.state)
                capacity.changed = False

    def retry_after(self, model: str) -> int | None:
        """Return the estimated seconds until each waiting tenant of the model had one turn; None while unknown."""
        capacities = self.eligible(model)
        tenants = {head.tenant_id for head in self.data.queue.heads() if self._meets(head, capacities)}
        seconds = estimate_seconds(capacities, max(1, len(tenants)), self.now)
        return None if seconds is None else min(max(1, math.ceil(seconds)), LONGEST_RETRY_SECONDS)

    def queue_positions(self, tenant_id: TenantId) -> dict[GenerationId, tuple[int, float | None]]:
        """Return the position of each waiting order of a tenant, 1 for the next, and its estimated wait in seconds.

        Between two of its orders, every other tenant waiting for the same upstreams has one turn.
        """
        lines = self.data.queue.count_lines()
        turns = self._turns([head for head, _ in lines])
        reached: dict[tuple[str, frozenset[UpstreamId]], tuple[list[UpstreamCapacity], list[tuple[int, bool]]]] = {}
        found: dict[GenerationId, tuple[int, float | None]] = {}
        ahead: Counter[frozenset[UpstreamId]] = Counter()
        for waiting in self.data.queue.list_waiting(tenant_id=tenant_id):
            line = waiting.model, waiting.excluded
            if line not in reached:
                capacities = self.eligible(*line)
                reached[line] = capacities, self._rivals(tenant_id, capacities, lines, turns)
            capacities, rivals = reached[line]
            ids = frozenset(capacity.state.id for capacity in capacities)
            own = sum(count for others, count in ahead.items() if ids & others)
            ahead[ids] += 1
            position = 1 + own + sum(min(count, own + comes_first) for count, comes_first in rivals)
            found[waiting.id] = position, estimate_seconds(capacities, position, self.now) if capacities else None
        return found

    def _rivals(
        self,
        tenant_id: TenantId,
        capacities: list[UpstreamCapacity],
        lines: list[tuple[QueueHead, int]],
        turns: Mapping[QueueHead, float],
    ) -> list[tuple[int, bool]]:
        """Return, for each other tenant waiting for these upstreams, its number of orders and whether it is next."""
        counts: Counter[TenantId] = Counter()
        firsts: dict[TenantId, tuple[float, GenerationId]] = {}
        for head, count in lines:
            if self._meets(head, capacities):
                first = turns[head], head.first_id
                counts[head.tenant_id] += count
                firsts[head.tenant_id] = min(first, firsts.get(head.tenant_id, first))
        own = firsts.get(tenant_id, (math.inf, GenerationId(0)))
        return [(count, firsts[tenant] < own) for tenant, count in counts.items() if tenant != tenant_id]

    def _serves(self, state: UpstreamState, model: str, excluded: frozenset[UpstreamId]) -> bool:
        return state.id not in excluded and serves(self.scheduler.upstreams[state.name].models, model)

    def _meets(self, head: QueueHead, capacities: list[UpstreamCapacity]) -> bool:
        """Return whether one of these upstreams may take the orders of a queue lane."""
        return any(capacity in capacities for capacity in self.eligible(head.model, head.excluded))

    def _turns(self, heads: list[QueueHead]) -> dict[QueueHead, float]:
        """Return when the last order of each lane's tenant started at the lane's eligible upstreams; 0 for never."""
        began = self.data.upstreams.turns(sorted({head.tenant_id for head in heads}))
        self.latest_turn = max([self.latest_turn, *began.values()])
        return {
            head: max(
                (
                    began.get((head.tenant_id, capacity.state.id), 0.0)
                    for capacity in self.eligible(head.model, head.excluded)
                ),
                default=0.0,
            )
            for head in heads
        }

    def _enter(self, capacity: UpstreamCapacity, tenant_id: TenantId) -> Slot:
        capacity.enter(self.now)
        state, moment = capacity.state, datetime.fromtimestamp(int(self.now), UTC)
        if state.requests_per_minute is not None:
            self.data.upstreams.note_start(state.id, at=self.now)
        self.latest_turn = max(self.now, self.latest_turn + TURN_SECONDS)
        self.data.upstreams.take_turn(tenant_id, state.id, at=self.latest_turn)
        return Slot(
            upstream_id=state.id,
            upstream=state.name,
            lease_owner=self.scheduler.owner,
            started_at=self.now,
            place_until=self.now + self.scheduler.call_seconds + CALL_MARGIN_SECONDS,
            lease_until=moment + timedelta(seconds=LEASE_SECONDS),
        )

    def _next(self) -> tuple[QueueHead, list[UpstreamCapacity]] | None:
        """Return the next order among those with a free slot, and the upstreams to choose from."""
        lines = (
            (head, least_loaded(self.eligible(head.model, head.excluded), self.now)) for head in self.data.queue.heads()
        )
        able = [(head, capacities) for head, capacities in lines if capacities]
        if not able:
            return None
        turns = self._turns([head for head, _ in able])
        following, _ = min(able, key=lambda each: (turns[each[0]], each[0].first_id))
        # The turn belongs to the tenant, not to the lane.
        own = [each for each in able if each[0].tenant_id == following.tenant_id]
        return min(own, key=lambda each: each[0].first_id)
