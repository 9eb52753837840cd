"""Orders that come, wait, give up, end and fail at random: no place is ever given twice, and none is lost."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from pixyproxy.core.exceptions import QueueFullException, UpstreamBusyException, UpstreamUnreachableException
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.upstream import serves
from pixyproxy.service.private.upstream.gate import WINDOW_SECONDS, Gate
from pixyproxy.service.private.upstream.pool import PooledUpstream, Turn, UpstreamPool
from tests.service.private.upstream.pools import StandingClock, make_pool, name_of, pooled, settle

pytestmark = pytest.mark.anyio

NAMES = ("one", "two", "three")
SERVED = {"one": ("a*", "b"), "two": None, "three": ("a1", "c")}
TENANTS = (1, 1, 1, 1, 2, 3)
ERRORS = (None, None, None, UpstreamUnreachableException(), UpstreamBusyException(retry_after_seconds=3))


def draw_pool(source: random.Random, clock: StandingClock) -> UpstreamPool:
    upstreams = [
        pooled(
            name,
            models=SERVED[name],
            weight=source.randint(1, 4),
            concurrency=source.randint(1, 4),
            per_minute=source.choice((None, 3, 12)),
        )
        for name in NAMES
    ]
    return make_pool(clock, *upstreams, queue_size=15)


@dataclass
class _Simulation:
    """What is known of the orders from outside of the pool."""

    source: random.Random
    clock: StandingClock
    pool: UpstreamPool
    waiting: dict[Turn, "asyncio.Task[PooledUpstream]"] = field(default_factory=dict)
    wishes: dict[Turn, tuple[str, frozenset[str]]] = field(default_factory=dict)
    held: list[Turn] = field(default_factory=list)
    sent: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in NAMES})
    outcomes: Counter[str] = field(default_factory=Counter)

    async def step(self) -> None:
        self.source.choices((self.order, self.end_one, self.give_up, self.move_on), (8, 3, 1, 2))[0]()
        await self.look()

    def order(self) -> None:
        model = self.source.choice(("a1", "a2", "b", "c"))
        excluding = frozenset(self.source.sample(NAMES, self.source.choice((0, 0, 0, 1))))
        if self.pool.serves_other(model, excluding):
            try:
                turn = self.pool.join(TenantId(self.source.choice(TENANTS)), model, excluding=excluding)
            except QueueFullException:
                self.outcomes["full"] += 1
            else:
                self.outcomes["joined"] += 1
                self.wishes[turn] = model, excluding
                self.waiting[turn] = asyncio.create_task(turn.wait(seconds=self.source.choice((2, 20, 500))))

    def end_one(self) -> None:
        if self.held:
            turn = self.held.pop(self.source.randrange(len(self.held)))
            turn.release(self.source.choice(ERRORS))

    def give_up(self) -> None:
        # In half of the cases a place may come at the very moment, and must not be lost.
        if self.source.random() < 0.5:
            self.end_one()
        if self.waiting:
            self.source.choice(list(self.waiting.values())).cancel()

    def move_on(self) -> None:
        self.clock.pass_by(self.source.random() * 8)

    async def look(self) -> None:
        await settle()
        for turn, task in [pair for pair in self.waiting.items() if pair[1].done()]:
            del self.waiting[turn]
            if task.cancelled() or task.exception() is not None:
                self.lose(turn, "cancelled" if task.cancelled() else "late")
            else:
                self.serve(turn, task.result())
        self.check()

    def lose(self, turn: Turn, outcome: str) -> None:
        self.outcomes[outcome] += 1
        assert not turn.ready

    def serve(self, turn: Turn, upstream: PooledUpstream) -> None:
        self.outcomes["served"] += 1
        model, excluding = self.wishes[turn]
        assert upstream.name == name_of(turn)
        assert serves(upstream.models, model)
        assert upstream.name not in excluding
        self.held.append(turn)
        self.sent[upstream.name].append(turn.entered_at)

    def check(self) -> None:
        now, gates, queue = self.clock.now, self.pool.gates, self.pool.queue
        held = Counter(map(name_of, self.held))
        assert {gate.name: gate.in_flight for gate in gates} == {name: held[name] for name in NAMES}
        assert [gate.name for gate in gates if gate.in_flight > gate.concurrency] == []
        free = [gate for gate in gates if gate.is_free(now) and not gate.pauses(now)]
        assert [gate.name for gate in free if any(reach & gate.bit for reach in queue.reaches)] == []
        assert sum(map(queue.count_waiting, queue.tenants)) == len(self.waiting)
        assert [turn for turn in self.waiting if turn.position < 1] == []

    async def end_all(self) -> None:
        while self.waiting or self.held:
            while self.held:
                self.held.pop().release()
            await self.look()
            self.clock.pass_by(7)
            await self.look()


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_happens_limits_hold_and_no_order_is_lost(seed: int) -> None:
    source, clock = random.Random(seed), StandingClock()
    simulation = _Simulation(source, clock, draw_pool(source, clock))
    for _ in range(400):
        await simulation.step()
    await simulation.end_all()
    outcomes = simulation.outcomes
    assert outcomes["joined"] == outcomes["served"] + outcomes["cancelled"] + outcomes["late"]
    assert outcomes["served"] > 20
    assert [gate.in_flight for gate in simulation.pool.gates] == [0, 0, 0]
    assert [gate.name for gate in simulation.pool.gates if is_overrun(gate, simulation.sent[gate.name])] == []
    assert not simulation.pool.queue.tenants
    assert clock.pending == 0


def is_overrun(gate: Gate, sent: list[float]) -> bool:
    """Return whether more requests than a minute's limit were sent within a minute."""
    if gate.requests_per_minute is None:
        return False
    ordered = sorted(sent)
    pairs = zip(ordered, ordered[gate.requests_per_minute :], strict=False)
    return any(later - earlier < WINDOW_SECONDS - 1e-6 for earlier, later in pairs)


@pytest.mark.parametrize("seed", range(10))
async def test_an_order_is_passed_by_no_tenant_twice_whatever_the_upstreams(seed: int) -> None:
    source, clock = random.Random(seed), StandingClock()
    upstreams = [pooled(name, weight=source.randint(1, 5), concurrency=source.randint(1, 5)) for name in NAMES]
    pool = make_pool(clock, *upstreams, queue_size=10_000)
    held: list[Turn] = []
    lines: dict[int, list[Turn]] = {tenant_id: [] for tenant_id in range(5)}
    passed: dict[int, Counter[int]] = {tenant_id: Counter() for tenant_id in lines}
    for _ in range(1500):
        if source.random() < 0.55 or not held:
            tenant_id = source.choice((0, 0, 0, 0, 1, 2, 3, 4))
            lines[tenant_id].append(pool.join(TenantId(tenant_id), "any"))
        else:
            held.pop(source.randrange(len(held))).release()
        for tenant_id, line in lines.items():
            if line and line[0].ready:
                was_waiting = [other for other, turns in lines.items() if turns and not turns[0].ready]
                held.append(line.pop(0))
                passed[tenant_id].clear()
                for other in was_waiting:
                    passed[other][tenant_id] += 1
            assert [turn for turn in line if turn.ready] == []
            assert {count for counts in passed.values() for count in counts.values()} <= {1}
    assert sum(map(len, lines.values())) > 20
