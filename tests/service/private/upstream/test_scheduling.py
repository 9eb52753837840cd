"""Which order gets a slot, where and when, decided from rows alone; on both databases where their SQL differs."""

import random
from collections import Counter

import pytest

from pixyproxy.core.exceptions import (
    PromptRefusedException,
    QueueFullException,
    UpstreamBusyException,
    UpstreamUnreachableException,
)
from pixyproxy.core.models.generation import Generation, GenerationStatus, ProcessGuid
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.upstream import UpstreamId, serves
from pixyproxy.data.database import Repositories
from pixyproxy.service.private.upstream.capacity import WINDOW_SECONDS
from pixyproxy.service.private.upstream.pool import PooledUpstream
from pixyproxy.service.private.upstream.scheduling import CALL_MARGIN_SECONDS, LEASE_SECONDS
from tests.service.private.upstream.schedules import CALL_SECONDS, MODEL, Schedules, open_schedules, pooled
from tests.support.builders import add_generation, add_tenant

ACCEPTED, CALLING = GenerationStatus.ACCEPTED, GenerationStatus.CALLING
on_both = pytest.mark.parametrize("backend", ["sqlite", "mysql"])
BUSY = UpstreamBusyException(retry_after_seconds=30)


@pytest.fixture
def backend() -> str:
    """SQLite, except for tests that are marked."""
    return "sqlite"


@pytest.fixture
def tenants(data: Repositories) -> list[TenantId]:
    """Add five tenants."""
    return [add_tenant(data).id for _ in range(5)]


@pytest.fixture
def anna(tenants: list[TenantId]) -> TenantId:
    """Return one of them."""
    return tenants[0]


@pytest.fixture
def bert(tenants: list[TenantId]) -> TenantId:
    """Return another one."""
    return tenants[1]


def _take(schedules: Schedules, tenant_id: TenantId, model: str = MODEL) -> str | None:
    """Return the upstream that gets an order which finishes at once."""
    generation = schedules.order(tenant_id, model)
    schedules.end(generation, PromptRefusedException())
    return schedules.upstream_of(generation)


def _fail(schedules: Schedules, tenant_id: TenantId, error: Exception) -> str | None:
    """Return the upstream at which an order failed."""
    generation = schedules.order(tenant_id)
    schedules.end(generation, error)
    return schedules.upstream_of(generation)


def _serve_all(schedules: Schedules) -> list[Generation]:
    """Settle one order after the other, the longest running first; return those that start."""
    first = len(schedules.begun)
    for generation in iter(schedules.begun):
        if schedules.find(generation).status is CALLING:
            schedules.end(generation)
    return schedules.begun[first:]


@on_both
def test_free_slot_is_given_at_once(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled()])
    generation = schedules.find(schedules.order(anna))
    assert (generation.status, generation.upstream, generation.lease_owner) == (CALLING, "only", "this")
    assert generation.started_at == schedules.now
    assert generation.place_until == schedules.now + CALL_SECONDS + CALL_MARGIN_SECONDS
    assert generation.lease_until is not None
    assert generation.lease_until.timestamp() == schedules.now + LEASE_SECONDS
    assert schedules.open().queue_positions(anna) == {}


@on_both
def test_released_slots_go_to_waiting_orders_in_turn(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled()])
    first, second, third = (schedules.order(anna) for _ in range(3))
    assert [schedules.find(each).status for each in (second, third)] == [ACCEPTED, ACCEPTED]
    assert [schedules.position(each) for each in (second, third)] == [1, 2]
    assert schedules.end(first) == [schedules.find(second)]
    assert (schedules.find(second).status, schedules.position(third)) == (CALLING, 1)


@on_both
def test_tenants_take_turns(data: Repositories, tenants: list[TenantId]) -> None:
    schedules = open_schedules(data, [pooled()])
    anna, bert, carla, dora, _ = tenants
    schedules.order(dora)
    for tenant_id in (anna, anna, anna, bert, bert, carla):
        schedules.order(tenant_id)
    assert [each.tenant_id for each in _serve_all(schedules)] == [anna, bert, carla, anna, bert, anna]


@on_both
def test_tenants_take_turns_at_slots_freed_together(data: Repositories, anna: TenantId, bert: TenantId) -> None:
    schedules = open_schedules(data, [pooled(concurrency=6)])
    held = [schedules.order(anna) for _ in range(6)]
    for tenant_id in (anna, bert):
        for _ in range(3):
            schedules.order(tenant_id)
    for generation in held:
        schedules.settle(generation)
    assert [each.tenant_id for each in schedules.tick()] == [bert, anna] * 3


def test_fast_clock_does_not_cost_a_tenant_its_turn(data: Repositories, anna: TenantId, bert: TenantId) -> None:
    schedules = open_schedules(data, [pooled()])
    schedules.order(anna)
    for _ in range(3):
        schedules.order(anna)
        schedules.order(bert)
    schedules.now += 0.010
    served = schedules.end(schedules.begun[-1])
    schedules.now -= 0.009
    served += _serve_all(schedules)
    assert [each.tenant_id for each in served] == [bert, anna] * 3


def test_immediately_returning_tenant_does_not_get_ahead(data: Repositories, anna: TenantId, bert: TenantId) -> None:
    schedules = open_schedules(data, [pooled()])
    for _ in range(11):
        schedules.order(anna)
    schedules.order(bert)
    for _ in range(10):
        (begun,) = schedules.end(schedules.begun[-1])
        if begun.tenant_id == bert:
            schedules.order(bert)
    assert [each.tenant_id for each in schedules.begun] == [anna, *[bert, anna] * 5]


@on_both
def test_long_queue_delays_another_tenant_by_one_slot(data: Repositories, anna: TenantId, bert: TenantId) -> None:
    schedules = open_schedules(data, [pooled()])
    schedules.order(anna)
    for _ in range(1000):
        add_generation(data, anna, status=ACCEPTED, model=MODEL)
    single = schedules.order(bert)
    assert schedules.position(single) <= 2
    (last,) = schedules.end(schedules.begun[-1])
    begun = [last, *schedules.end(last)]
    assert single.id in [each.id for each in begun]


@on_both
def test_model_without_a_free_slot_does_not_block_others(data: Repositories, anna: TenantId, bert: TenantId) -> None:
    schedules = open_schedules(data, [pooled("slow", models=("slow",)), pooled("fast", models=("fast",))])
    schedules.order(anna, "slow")
    blocked = [schedules.order(anna, "slow") for _ in range(3)]
    assert schedules.find(schedules.order(anna, "fast")).upstream == "fast"
    behind = schedules.order(bert, "fast")
    assert [schedules.position(each) for each in (*blocked, behind)] == [1, 2, 3, 1]


def test_turns_are_independent_between_upstreams(data: Repositories, anna: TenantId, bert: TenantId) -> None:
    schedules = open_schedules(data, [pooled("one", models=("a",)), pooled("two", models=("b",))])
    for _ in range(12):
        for tenant_id, model in ((anna, "a"), (anna, "b"), (bert, "b")):
            schedules.order(tenant_id, model)
    _serve_all(schedules)
    at_two = [each.tenant_id for each in schedules.begun if schedules.upstream_of(each) == "two"]
    assert at_two == [anna, bert] * 12


def test_upstreams_of_one_model_share_a_rotation(data: Repositories, tenants: list[TenantId]) -> None:
    schedules = open_schedules(data, [pooled("one"), pooled("two")])
    for tenant_id in tenants[:2]:
        schedules.order(tenant_id)
    for tenant_id in tenants[2:] * 2:
        schedules.order(tenant_id)
    assert [each.tenant_id for each in _serve_all(schedules)] == tenants[2:] * 2


@on_both
def test_model_names_are_case_sensitive(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled("one", models=("Flare",)), pooled("two", models=("flare",))])
    schedules.order(anna, "Flare")
    waiting = schedules.order(anna, "Flare")
    assert schedules.find(schedules.order(anna, "flare")).upstream == "two"
    second = schedules.order(anna, "flare")
    schedules.end(schedules.begun[-1])
    assert [schedules.find(each).status for each in (waiting, second)] == [ACCEPTED, CALLING]


@on_both
def test_excluded_upstream_is_not_chosen(data: Repositories, anna: TenantId, bert: TenantId) -> None:
    schedules = open_schedules(data, [pooled("one"), pooled("two")])
    first = schedules.order(anna)
    assert schedules.upstream_of(first) == "one"
    one, two = (schedules.states()[name].id for name in ("one", "two"))
    schedules.put_back(first, frozenset({one}))
    assert [each.id for each in schedules.tick()] == [first.id]
    assert schedules.upstream_of(first) == "two"
    other = schedules.order(bert)
    assert schedules.upstream_of(other) == "one"
    schedules.put_back(first, frozenset({one, two}))
    assert schedules.tick() == []
    assert schedules.open().queue_positions(anna) == {first.id: (1, None)}
    assert not schedules.open().is_served(MODEL, frozenset({one, two}))
    assert schedules.open().is_served(MODEL, frozenset({one}))


def test_requeued_order_keeps_its_queue_position(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled("one", concurrency=2), pooled("two")])
    _, first, third = (schedules.order(anna) for _ in range(3))
    waiting = schedules.order(anna)
    assert (schedules.upstream_of(first), schedules.find(waiting).status) == ("two", ACCEPTED)
    schedules.put_back(first, frozenset({schedules.states()["two"].id}))
    schedules.end(third)
    assert (schedules.upstream_of(first), schedules.upstream_of(waiting)) == ("one", "two")


@on_both
def test_weights_apply_across_transactions(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled("light"), pooled("heavy", weight=4)])
    assert Counter(_take(schedules, anna) for _ in range(15)) == {"light": 3, "heavy": 12}


def test_least_loaded_upstream_is_chosen(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled("one", concurrency=10), pooled("two", concurrency=10)])
    assert schedules.upstream_of(schedules.order(anna)) == "one"
    assert {_take(schedules, anna) for _ in range(10)} == {"two"}


@on_both
def test_calls_per_minute_are_counted_from_rows(data: Repositories, anna: TenantId, bert: TenantId) -> None:
    schedules = open_schedules(data, [pooled(concurrency=10, per_minute=2)])
    for passed in (0.0, 40.0):
        schedules.now += passed
        schedules.end(schedules.order(anna))
    third, fourth = schedules.order(anna), schedules.order(bert)
    begun = []
    for passed in (WINDOW_SECONDS - 40.1, 0.1, 39.9, 0.1):
        schedules.now += passed
        begun.append([each.id for each in schedules.tick()])
    # Both waited; the turn is that of the tenant without one so far.
    assert begun == [[], [fourth.id], [], [third.id]]


def test_capacity_freed_by_time_goes_to_waiting_orders_first(
    data: Repositories, anna: TenantId, bert: TenantId
) -> None:
    schedules = open_schedules(data, [pooled(concurrency=10, per_minute=1)])
    schedules.order(anna)
    waiting = schedules.order(bert)
    schedules.now += WINDOW_SECONDS
    late = schedules.order(anna)
    assert [schedules.find(each).status for each in (waiting, late)] == [CALLING, ACCEPTED]


@on_both
def test_unreleased_slot_is_free_after_the_longest_call(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled()])
    schedules.order(anna)
    waiting = schedules.order(anna)
    schedules.now += CALL_SECONDS + CALL_MARGIN_SECONDS - 0.1
    assert schedules.tick() == []
    schedules.now += 0.1
    assert [each.id for each in schedules.tick()] == [waiting.id]


@on_both
def test_pauses_and_durations_are_shared_by_all_processes(data: Repositories, anna: TenantId) -> None:
    upstreams = [pooled("one"), pooled("two")]
    schedules, other = (open_schedules(data, upstreams) for _ in range(2))
    assert _fail(schedules, anna, BUSY) == "one"
    assert {_take(other, anna) for _ in range(6)} == {"two"}
    schedules.now = other.now = other.now + 29.9
    assert {_take(other, anna) for _ in range(6)} == {"two"}
    other.now += 0.1
    assert {_take(other, anna) for _ in range(6)} == {"one", "two"}
    generation = other.order(anna)
    other.now += 8
    other.end(generation)
    assert schedules.states()[schedules.upstream_of(generation) or ""].mean_seconds == 8


def test_waiting_order_gets_the_shortest_pause_if_all_are_paused(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled("one"), pooled("two")])
    assert _fail(schedules, anna, BUSY) == "one"
    failing = schedules.order(anna)
    waiting = [schedules.order(anna) for _ in range(2)]
    assert [schedules.find(each).status for each in waiting] == [ACCEPTED, ACCEPTED]
    schedules.end(failing, UpstreamUnreachableException())
    assert [schedules.upstream_of(each) for each in waiting] == ["two", "one"]


def test_waiting_order_gets_an_upstream_after_its_pause(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled("one"), pooled("two")])
    _fail(schedules, anna, BUSY)
    assert schedules.upstream_of(schedules.order(anna)) == "two"
    waiting = schedules.order(anna)
    schedules.now += 29
    assert schedules.tick() == []
    schedules.now += 1
    assert [each.id for each in schedules.tick()] == [waiting.id]
    assert schedules.upstream_of(waiting) == "one"


def test_order_of_another_process_does_not_change_the_mean_duration(data: Repositories, anna: TenantId) -> None:
    """Recovery records the response of a dead process, however much later."""
    schedules = open_schedules(data, [pooled()])
    generation = schedules.find(schedules.order(anna))
    schedules.now += 3600
    schedule = schedules.open()
    schedule.leave(generation.model_copy(update={"lease_owner": ProcessGuid("dead")}), None)
    schedule.save()
    assert schedules.states()["only"].mean_seconds is None


def test_process_uses_only_its_configured_upstreams(data: Repositories, anna: TenantId) -> None:
    one, two = pooled("one", models=("flare",)), pooled("two", models=("sketch",))
    both, only = open_schedules(data, [one, two]), open_schedules(data, [one])
    _, sketch, _, flare = (both.order(anna, model) for model in ("sketch", "sketch", "flare", "flare"))
    for generation in both.begun:
        both.settle(generation)
    assert [each.id for each in only.tick()] == [flare.id]
    assert [each.id for each in both.tick()] == [sketch.id]
    assert [only.scheduler.serves(model) for model in ("flare", "sketch")] == [True, False]


@on_both
def test_full_queue_rejects_only_its_own_tenant(data: Repositories, anna: TenantId, bert: TenantId) -> None:
    schedules = open_schedules(data, [pooled()], queue_size=2)
    held = schedules.order(anna)
    for _ in range(2):
        schedules.order(anna)
    with pytest.raises(QueueFullException) as caught, data.connection.begin_nested():
        schedules.order(anna)
    assert caught.value.retry_after_seconds == QueueFullException.retry_after_seconds
    assert schedules.position(schedules.order(bert)) == 1
    schedules.now += 7.5
    schedules.end(held)
    for _ in range(2):
        schedules.order(bert)
    with pytest.raises(QueueFullException) as caught, data.connection.begin_nested():
        schedules.order(bert)
    # One round of two tenants at one slot, each order taking 7.5 seconds.
    assert caught.value.retry_after_seconds == 15


def test_retry_after_is_at_most_five_minutes(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled()], queue_size=0)
    held = schedules.order(anna)
    schedules.now += 500
    schedules.end(held)
    schedules.order(anna)
    with pytest.raises(QueueFullException) as caught:
        schedules.order(anna)
    assert caught.value.retry_after_seconds == 300


def test_estimate_depends_on_the_position(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled(concurrency=2)])
    held = [schedules.order(anna) for _ in range(2)]
    waiting = [schedules.order(anna) for _ in range(4)]
    assert schedules.open().queue_positions(anna)[waiting[0].id] == (1, None)
    schedules.now += 10
    schedules.end(held[0])
    assert list(schedules.open().queue_positions(anna).values()) == [(1, 5.0), (2, 10.0), (3, 15.0)]


def test_unlocked_check_finds_free_slots_for_waiting_orders(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled(per_minute=1)])
    assert not schedules.open().is_something_free
    schedules.end(schedules.order(anna))
    schedules.order(anna)
    assert not schedules.open().is_something_free
    schedules.now += WINDOW_SECONDS
    assert schedules.open().is_something_free
    assert len(schedules.open().start_waiting(limit=0)) == 0


def test_oldest_order_of_a_tenant_is_next_in_any_lane(data: Repositories, anna: TenantId) -> None:
    schedules = open_schedules(data, [pooled("one", models=("wide", "narrow")), pooled("two", models=("wide",))])
    schedules.order(anna, "narrow")
    schedules.now += 1
    schedules.order(anna, "wide")
    older, younger = schedules.order(anna, "wide"), schedules.order(anna, "narrow")
    assert [schedules.position(each) for each in (older, younger)] == [1, 2]
    assert [each.id for each in schedules.end(schedules.begun[0])] == [older.id]


@pytest.mark.parametrize("seed", range(20))
def test_positions_match_the_order_of_slots(data: Repositories, tenants: list[TenantId], seed: int) -> None:
    source = random.Random(seed)
    models = ["a", "b", "c"][: source.randint(1, 3)]
    schedules = open_schedules(data, [pooled(concurrency=source.randint(1, 3))])
    for _ in range(40):
        schedules.order(source.choice(tenants), source.choice(models))
        schedules.now += source.choice((0, 0.001))
        if source.random() < 0.3:
            schedules.end(source.choice(schedules.at_work))
    for generation in source.sample(schedules.waiting, 5):
        schedules.settle(generation)
    positions = {
        generation_id: position
        for tenant_id in tenants
        for generation_id, (position, _) in schedules.open().queue_positions(tenant_id).items()
    }
    assert sorted(positions.values()) == list(range(1, len(schedules.waiting) + 1))
    foretold = sorted(positions, key=lambda each: positions[each])
    assert [each.id for each in _serve_all(schedules)] == foretold
    assert len(foretold) > 5


NAMES = ("one", "two", "three")
SERVED = {"one": ("a*", "b"), "two": None, "three": ("a1", "c")}
ERRORS = (None, None, None, UpstreamUnreachableException(), UpstreamBusyException(retry_after_seconds=3))


@pytest.mark.parametrize("seed", range(12))
def test_random_events_keep_limits_and_lose_no_order(data: Repositories, tenants: list[TenantId], seed: int) -> None:
    source = random.Random(seed)
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
    schedules = open_schedules(data, upstreams)
    for _ in range(150):
        source.choices(
            (
                lambda: schedules.order(
                    source.choice((*tenants[:3], tenants[0])), source.choice(("a1", "a2", "b", "c"))
                ),
                lambda: _end_any(schedules, source),
                lambda: _put_back_any(schedules, source),
                lambda: setattr(schedules, "now", schedules.now + source.random() * 8),
            ),
            (8, 3, 1, 2),
        )[0]()
        schedules.tick()
        _assert_sound(schedules)
    _finish(schedules)
    _assert_sound(schedules)
    assert [each for each in schedules.waiting if not each.excluded] == []
    assert len(schedules.begun) > 20
    overrun = [each.name for each in upstreams if _is_overrun(each, schedules.starts[each.name])]
    assert overrun == []


def _finish(schedules: Schedules) -> None:
    """Settle running orders until the only waiting ones have no eligible upstream left."""
    while schedules.at_work or [each for each in schedules.waiting if _is_served(schedules, each)]:
        for generation in schedules.at_work:
            schedules.end(generation)
        schedules.now += 7
        schedules.tick()


def _end_any(schedules: Schedules, source: random.Random) -> None:
    if schedules.at_work:
        schedules.end(source.choice(schedules.at_work), source.choice(ERRORS))


def _put_back_any(schedules: Schedules, source: random.Random) -> None:
    if schedules.at_work:
        generation = source.choice(schedules.at_work)
        schedules.put_back(generation, generation.excluded | {UpstreamId(generation.upstream_id or 0)})


def _is_served(schedules: Schedules, generation: Generation) -> bool:
    return schedules.open().is_served(generation.order.model, generation.excluded)


def _assert_sound(schedules: Schedules) -> None:
    """Assert that limits and exclusions hold, and that no upstream is free while an order waits for it."""
    upstreams = schedules.scheduler.upstreams
    taken = Counter(generation.upstream for generation in schedules.at_work)
    assert [name for name, upstream in upstreams.items() if taken[name] > upstream.concurrency] == []
    wrong = [
        each
        for each in schedules.at_work
        if each.upstream_id in each.excluded or not serves(upstreams[each.upstream or ""].models, each.order.model)
    ]
    assert wrong == []
    assert not schedules.open().is_something_free


def _is_overrun(upstream: PooledUpstream, starts: list[float]) -> bool:
    """Return whether more calls than a minute's limit were started within a window."""
    if upstream.requests_per_minute is None:
        return False
    pairs = zip(starts, starts[upstream.requests_per_minute :], strict=False)
    return any(later - earlier < WINDOW_SECONDS - 1e-6 for earlier, later in pairs)


@pytest.mark.parametrize("seed", range(5))
def test_no_tenant_overtakes_an_order_twice(data: Repositories, tenants: list[TenantId], seed: int) -> None:
    source = random.Random(seed)
    upstreams = [pooled(name, weight=source.randint(1, 5), concurrency=source.randint(1, 3)) for name in NAMES]
    schedules = open_schedules(data, upstreams)
    passed: dict[TenantId, Counter[TenantId]] = {tenant_id: Counter() for tenant_id in tenants}
    overtaken = 0
    for _ in range(250):
        schedules.now += source.choice((0, 0.001))
        before = {each.tenant_id for each in schedules.waiting}
        first = len(schedules.begun)
        if source.random() < 0.6 or not schedules.at_work:
            schedules.order(source.choice((*tenants, *[tenants[0]] * 3)))
        else:
            schedules.end(source.choice(schedules.at_work))
        for begun in schedules.begun[first:]:
            passed[begun.tenant_id].clear()
            for other in before - {begun.tenant_id}:
                passed[other][begun.tenant_id] += 1
                overtaken += 1
        assert {count for counts in passed.values() for count in counts.values()} <= {1}
    assert overtaken > 10
