"""Turns are fair: between tenants, between models, and in the order in which a tenant asked."""

import asyncio
import random
from collections import Counter
from itertools import pairwise

import pytest

from pixyproxy.core.models.tenant import TenantId
from pixyproxy.service.private.upstream.queue import FairQueue, Place

pytestmark = pytest.mark.anyio

ONE, TWO = 1, 2
BOTH = ONE | TWO
ANNA, BERT, CARLA = TenantId(1), TenantId(2), TenantId(3)


def serve(queue: FairQueue, upstream: int = ONE) -> Place:
    """The place that an upstream with one free place gets, where that upstream alone is free."""
    free = [reach for reach in queue.reaches if reach & upstream]
    tenant_id, _ = queue.next_turn(free)
    place = queue.oldest(tenant_id, free)
    queue.serve(place, upstream)
    return place


def serve_all(queue: FairQueue) -> list[Place]:
    return [serve(queue) for _ in range(sum(map(queue.count_waiting, list(queue.tenants))))]


def test_a_tenant_is_served_in_the_order_in_which_it_asked() -> None:
    queue = FairQueue()
    places = [queue.join(ANNA, ONE) for _ in range(5)]
    assert serve_all(queue) == places
    assert not queue.tenants
    assert not queue.rotations


def test_tenants_take_turns() -> None:
    queue = FairQueue()
    for tenant_id in (ANNA, ANNA, ANNA, BERT, BERT, CARLA):
        queue.join(tenant_id, ONE)
    assert [place.tenant_id for place in serve_all(queue)] == [ANNA, BERT, CARLA, ANNA, BERT, ANNA]


def test_a_thousand_that_wait_delay_another_tenant_by_one_place() -> None:
    queue = FairQueue()
    for _ in range(1000):
        queue.join(ANNA, ONE)
    serve(queue)
    first = queue.join(BERT, ONE)
    assert queue.position(first) == 2
    assert serve(queue).tenant_id == ANNA
    assert serve(queue) is first


def test_a_tenant_that_comes_back_at_once_does_not_get_ahead() -> None:
    queue = FairQueue()
    for _ in range(20):
        queue.join(ANNA, ONE)
    served = []
    for _ in range(20):
        if not queue.count_waiting(BERT):
            queue.join(BERT, ONE)
        served.append(serve(queue).tenant_id)
    assert served == [ANNA, BERT] * 10


def test_what_nothing_is_free_for_does_not_block_what_stands_behind_it() -> None:
    queue = FairQueue()
    blocked = queue.join(ANNA, TWO)
    behind = queue.join(ANNA, ONE)
    assert queue.position(behind) == 1
    assert serve(queue, ONE) is behind
    assert serve(queue, TWO) is blocked


def test_the_oldest_is_served_whichever_line_it_stands_in() -> None:
    queue = FairQueue()
    older, younger = queue.join(ANNA, TWO), queue.join(ANNA, BOTH)
    assert queue.position(younger) == 2
    assert [serve(queue, TWO), serve(queue, TWO)] == [older, younger]


def test_what_a_tenant_gets_of_one_model_takes_nothing_from_it_at_another() -> None:
    queue = FairQueue()
    for _ in range(40):
        queue.join(ANNA, ONE)
        queue.join(ANNA, TWO)
        queue.join(BERT, TWO)
    served = []
    for _ in range(20):
        assert serve(queue, ONE).tenant_id == ANNA
        served.append(serve(queue, TWO).tenant_id)
    assert Counter(served) == {ANNA: 10, BERT: 10}


def test_upstreams_that_serve_the_same_model_share_one_rotation() -> None:
    queue = FairQueue()
    for tenant_id in (ANNA, BERT, CARLA) * 2:
        queue.join(tenant_id, BOTH)
    served = [serve(queue, upstream).tenant_id for upstream in (ONE, TWO, TWO, ONE, TWO, ONE)]
    assert served == [ANNA, BERT, CARLA] * 2


def test_leaving_moves_those_behind_up() -> None:
    queue = FairQueue()
    places = [queue.join(ANNA, ONE) for _ in range(4)]
    queue.leave(places[1])
    assert [queue.position(places[index]) for index in (0, 2, 3)] == [1, 2, 3]
    assert queue.count_waiting(ANNA) == 3
    assert serve_all(queue) == [places[0], places[2], places[3]]


def test_the_last_to_leave_leaves_nothing_behind() -> None:
    queue = FairQueue()
    place, other = queue.join(ANNA, ONE), queue.join(BERT, ONE)
    queue.leave(place)
    assert queue.count_waiting(ANNA) == 0
    assert queue.count_tenants(ONE) == 1
    queue.leave(other)
    assert not queue.tenants
    assert queue.reaches == ()


@pytest.mark.parametrize("seed", range(20))
def test_positions_say_in_which_order_places_are_served(seed: int) -> None:
    source = random.Random(seed)
    queue = FairQueue()
    places = [queue.join(TenantId(source.randrange(6)), ONE) for _ in range(60)]
    for _ in range(source.randrange(20)):
        places.remove(serve(queue))
    for place in source.sample(places, 10):
        places.remove(place)
        queue.leave(place)
    foretold = sorted(places, key=queue.position)
    assert [queue.position(place) for place in foretold] == list(range(1, len(places) + 1))
    assert serve_all(queue) == foretold


@pytest.mark.parametrize("seed", range(20))
def test_between_two_turns_of_a_line_another_tenant_gets_one_at_each_upstream_at_the_most(seed: int) -> None:
    source = random.Random(seed)
    queue = FairQueue()
    passed: Counter[tuple[int, TenantId, int]] = Counter()
    for _ in range(3000):
        upstream = source.choice((1, 2, 4))
        if source.random() < 0.5:
            queue.join(TenantId(source.choice((0, 0, 0, 0, 1, 2, 3))), source.randrange(1, 8))
        elif any(reach & upstream for reach in queue.reaches):
            tenant_id = serve(queue, upstream).tenant_id
            others = (lines for other, lines in queue.tenants.items() if other != tenant_id)
            turns = (line.turn for lines in others for reach, line in lines.items() if reach & upstream)
            passed.update((turn, tenant_id, upstream) for turn in turns)
    assert passed.total() > 100
    assert max(passed.values()) == 1


async def watching(queue: FairQueue, place: Place, told: list[int]) -> None:
    while place.waiting:
        await queue.watch(place).wait()
        told.append(queue.position(place) if place.waiting else 0)


async def settle() -> None:
    """Let every task go on until it waits again."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_each_step_is_told_near_the_front() -> None:
    queue = FairQueue()
    place = [queue.join(ANNA, ONE) for _ in range(6)][-1]
    told: list[int] = []
    task = asyncio.create_task(watching(queue, place, told))
    for _ in range(6):
        await settle()
        serve(queue)
        queue.tell_watchers()
    await task
    assert told == [5, 4, 3, 2, 1, 0]


async def test_a_thousand_watchers_are_told_of_noticeable_changes_alone() -> None:
    queue = FairQueue()
    told: list[list[int]] = [[] for _ in range(1000)]
    tasks = [asyncio.create_task(watching(queue, queue.join(ANNA, ONE), each)) for each in told]
    for _ in range(1000):
        await settle()
        serve(queue)
        queue.tell_watchers()
    await asyncio.gather(*tasks)
    assert max(map(len, told)) < 30
    steps = [step for each in told for step in pairwise(each)]
    assert len(steps) > len(told)
    assert all(before * 3 // 4 - 1 <= after < before for before, after in steps)


async def test_many_watch_one_place_and_one_of_them_may_give_up() -> None:
    queue = FairQueue()
    place = [queue.join(ANNA, ONE) for _ in range(2)][-1]
    watchers = [asyncio.create_task(queue.watch(place).wait()) for _ in range(3)]
    await settle()
    watchers[0].cancel()
    await settle()
    serve(queue)
    queue.tell_watchers()
    assert await asyncio.gather(*watchers[1:]) == [True, True]


async def test_a_place_that_did_not_move_is_not_told_of() -> None:
    queue = FairQueue()
    place = queue.join(ANNA, ONE)
    behind = queue.join(ANNA, ONE)
    changed = queue.watch(place)
    queue.leave(behind)
    queue.tell_watchers()
    assert not changed.is_set()
    queue.leave(place)
    assert changed.is_set()
