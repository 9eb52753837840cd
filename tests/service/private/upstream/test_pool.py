"""The pool: who gets a place, where, and when."""

import asyncio
import logging
from collections import Counter

import pytest
from pydantic import ValidationError

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    ModelUnknownException,
    PictureUnusableException,
    PromptRefusedException,
    QueueFullException,
    QueueTimeoutException,
    UpstreamAddressException,
    UpstreamAnswerException,
    UpstreamBusyException,
    UpstreamCredentialException,
    UpstreamErrorException,
    UpstreamFundsException,
    UpstreamSilentException,
    UpstreamTimeoutException,
    UpstreamUnreachableException,
)
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.upstream import UpstreamSettings, serves
from pixyproxy.service.private.upstream.pool import UpstreamPool
from tests.service.private.upstream.pools import FakeListing, StandingClock, make_pool, name_of, pooled, settle

pytestmark = pytest.mark.anyio

ANNA, BERT = TenantId(1), TenantId(2)
MODEL = "flare"


@pytest.fixture
def timing() -> StandingClock:
    return StandingClock()


def take(pool: UpstreamPool, *, model: str = MODEL, tenant_id: TenantId = ANNA) -> str:
    """The upstream that gets an order that is over at once."""
    turn = pool.join(tenant_id, model)
    turn.release(PromptRefusedException())
    return name_of(turn)


def fail(pool: UpstreamPool, error: ImageGenerationException) -> str:
    """The upstream that answered an order so."""
    turn = pool.join(ANNA, MODEL)
    turn.release(error)
    return name_of(turn)


async def test_a_free_place_is_had_at_once(timing: StandingClock) -> None:
    turn = make_pool(timing).join(ANNA, MODEL)
    assert turn.ready
    assert turn.position == 0
    assert turn.estimate_seconds == 0
    assert (await turn.wait(seconds=0)).name == "only"
    assert not await turn.wait_changed()
    assert timing.pending == 0


async def test_whoever_waits_gets_the_place_that_is_given_back(timing: StandingClock) -> None:
    pool = make_pool(timing)
    first, second, third = (pool.join(ANNA, MODEL) for _ in range(3))
    assert (second.ready, second.upstream, second.position, third.position) == (False, None, 1, 2)
    waiting = asyncio.create_task(second.wait(seconds=60))
    await settle()
    first.release()
    assert (await waiting).name == "only"
    assert (second.ready, third.ready, third.position) == (True, False, 1)
    assert timing.pending == 0


async def test_giving_back_twice_gives_one_place(timing: StandingClock) -> None:
    pool = make_pool(timing)
    first, second, third = (pool.join(ANNA, MODEL) for _ in range(3))
    first.release()
    first.release(UpstreamBusyException())
    assert second.ready
    assert not third.ready
    third.release()
    third.release()
    second.release()
    assert pool.join(ANNA, MODEL).ready
    assert not pool.join(ANNA, MODEL).ready


async def test_tenants_take_turns(timing: StandingClock) -> None:
    pool = make_pool(timing)
    held = pool.join(ANNA, MODEL)
    crowd = [pool.join(ANNA, MODEL) for _ in range(500)]
    other = pool.join(BERT, MODEL)
    assert other.position == 2
    held.release()
    crowd[0].release()
    assert other.ready


async def test_a_model_that_nothing_is_free_for_does_not_block_others(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("slow", models=("slow",)), pooled("fast", models=("fast",)))
    pool.join(ANNA, "slow")
    blocked = [pool.join(ANNA, "slow") for _ in range(3)]
    assert pool.join(ANNA, "fast").ready
    behind = pool.join(ANNA, "fast")
    assert behind.position == 1
    assert [turn.position for turn in blocked] == [1, 2, 3]


async def test_a_wait_ends_when_its_time_is_over(timing: StandingClock) -> None:
    pool = make_pool(timing)
    held, late, next_one = (pool.join(ANNA, MODEL) for _ in range(3))
    waiting = asyncio.create_task(late.wait(seconds=5))
    await settle()
    timing.pass_by(4.9)
    await settle()
    assert not waiting.done()
    timing.pass_by(0.1)
    with pytest.raises(QueueTimeoutException) as caught:
        await waiting
    assert caught.value.retry_after_seconds == QueueTimeoutException.retry_after_seconds
    assert late.position == 0
    held.release()
    late.release()
    assert not late.ready
    assert next_one.ready


async def test_a_place_that_comes_in_the_last_moment_is_had(timing: StandingClock) -> None:
    pool = make_pool(timing)
    held, late = pool.join(ANNA, MODEL), pool.join(ANNA, MODEL)
    waiting = asyncio.create_task(late.wait(seconds=5))
    await settle()
    held.release()
    timing.pass_by(5)
    assert (await waiting).name == "only"


async def test_the_running_loop_tells_the_time(timing: StandingClock) -> None:
    pool = UpstreamPool([pooled()], queue_size=10)
    pool.join(ANNA, MODEL)
    with pytest.raises(QueueTimeoutException):
        await pool.join(ANNA, MODEL).wait(seconds=0.001)
    assert timing.pending == 0


async def test_releasing_ends_the_wait(timing: StandingClock) -> None:
    pool = make_pool(timing)
    pool.join(ANNA, MODEL)
    turn = pool.join(ANNA, MODEL)
    waiting, watching = asyncio.create_task(turn.wait(seconds=5)), asyncio.create_task(turn.wait_changed())
    await settle()
    turn.release()
    with pytest.raises(QueueTimeoutException):
        await waiting
    assert not await watching


async def test_whoever_is_cancelled_leaves_the_queue(timing: StandingClock) -> None:
    pool = make_pool(timing)
    held, leaving, next_one = (pool.join(ANNA, MODEL) for _ in range(3))
    waiting = asyncio.create_task(leaving.wait(seconds=5))
    await settle()
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    assert next_one.position == 1
    held.release()
    assert next_one.ready
    assert timing.pending == 0


async def test_a_place_that_comes_as_its_wait_is_cancelled_goes_to_the_next(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled(per_minute=2))
    held, leaving, next_one = (pool.join(ANNA, MODEL) for _ in range(3))
    waiting = asyncio.create_task(leaving.wait(seconds=5))
    await settle()
    held.release()
    assert leaving.ready
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    assert not leaving.ready
    # It also counts as never sent: two a minute are the one that was and this one.
    assert next_one.ready


async def test_a_place_that_is_not_needed_counts_as_never_sent(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled(concurrency=10, per_minute=1))
    unused = pool.join(ANNA, MODEL)
    waiting = pool.join(ANNA, MODEL)
    pool.withdraw(unused)
    pool.withdraw(unused)
    assert not unused.ready
    assert waiting.ready
    assert not pool.join(ANNA, MODEL).ready


async def test_a_full_queue_refuses_its_own_tenant_alone(timing: StandingClock) -> None:
    pool = make_pool(timing, queue_size=2)
    held = pool.join(ANNA, MODEL)
    waiting = [pool.join(ANNA, MODEL) for _ in range(2)]
    with pytest.raises(QueueFullException) as caught:
        pool.join(ANNA, MODEL)
    assert caught.value.retry_after_seconds == QueueFullException.retry_after_seconds
    assert pool.join(BERT, MODEL).position == 2
    timing.pass_by(7.5)
    held.release()
    assert waiting[0].ready
    assert pool.join(ANNA, MODEL).position == 3
    with pytest.raises(QueueFullException) as caught:
        pool.join(ANNA, MODEL)
    # A round of two tenants at one place, each of its orders taking 7.5 seconds.
    assert caught.value.retry_after_seconds == 15


async def test_an_estimate_comes_of_how_long_orders_took(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled(concurrency=2))
    held = [pool.join(ANNA, MODEL) for _ in range(2)]
    turns = [pool.join(ANNA, MODEL) for _ in range(4)]
    assert turns[0].estimate_seconds is None
    timing.pass_by(10)
    held[0].release()
    assert [turn.estimate_seconds for turn in turns] == [0, 5, 10, 15]
    timing.pass_by(10)
    held[1].release()
    # The latest of 20 seconds counts for a fifth: the mean is 12, and two places are left in that time.
    assert turns[3].estimate_seconds == pytest.approx(12)


async def test_an_estimate_minds_the_orders_of_a_minute(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled(concurrency=10, per_minute=2))
    held = [pool.join(ANNA, MODEL) for _ in range(2)]
    timing.pass_by(5)
    for turn in held:
        turn.release()
    turns = [pool.join(ANNA, MODEL) for _ in range(3)]
    assert [turn.estimate_seconds for turn in turns] == [55, 85, 115]


async def test_a_refusal_never_tells_to_wait_longer_than_five_minutes(timing: StandingClock) -> None:
    pool = make_pool(timing, queue_size=0)
    held = pool.join(ANNA, MODEL)
    timing.pass_by(5000)
    held.release()
    pool.join(ANNA, MODEL)
    with pytest.raises(QueueFullException) as caught:
        pool.join(ANNA, MODEL)
    assert caught.value.retry_after_seconds == 300


async def test_changes_of_the_position_are_told(timing: StandingClock) -> None:
    pool = make_pool(timing)
    turns = [pool.join(ANNA, MODEL) for _ in range(4)]
    told: list[int] = []

    async def watch() -> None:
        while await turns[-1].wait_changed():
            told.append(turns[-1].position)

    watching = asyncio.create_task(watch())
    for turn in turns[:-1]:
        await settle()
        turn.release()
    await watching
    assert told == [2, 1]


async def test_a_model_that_nobody_serves_is_unknown(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("one", models=("flare-*", "sketch")), pooled("two", models=("sketch",)))
    for model in ("flare", "Sketch", "sketch-2", ""):
        with pytest.raises(ModelUnknownException):
            pool.join(ANNA, model)
    assert name_of(pool.join(ANNA, "flare-2")) == "one"
    assert pool.serves_other("sketch", frozenset({"one"}))
    assert not pool.serves_other("flare-2", frozenset({"one"}))
    with pytest.raises(ModelUnknownException):
        pool.join(ANNA, "sketch", excluding=frozenset({"one", "two"}))


async def test_what_is_excluded_is_not_chosen(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("one"), pooled("two"))
    turn = pool.join(ANNA, MODEL, excluding=frozenset({"one"}))
    assert name_of(turn) == "two"
    assert not pool.join(ANNA, MODEL, excluding=frozenset({"one"})).ready
    assert name_of(pool.join(ANNA, MODEL)) == "one"


async def test_places_are_filled_by_weight(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("light", concurrency=100), pooled("heavy", weight=3, concurrency=100))
    names = Counter(name_of(pool.join(ANNA, MODEL)) for _ in range(40))
    assert names == {"light": 10, "heavy": 30}


async def test_an_upstream_with_less_to_do_is_chosen(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("one", concurrency=10), pooled("two", concurrency=10))
    assert name_of(pool.join(ANNA, MODEL)) == "one"
    assert {take(pool) for _ in range(10)} == {"two"}


async def test_orders_one_after_the_other_are_shared_by_weight(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("light"), pooled("heavy", weight=4))
    assert Counter(take(pool) for _ in range(50)) == {"light": 10, "heavy": 40}


async def test_weights_hold_over_all_models_together(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("one"), pooled("two"), pooled("third", models=("sketch",)))
    assert Counter(take(pool, model=model) for model in ("flare", "sketch") * 60) == {"one": 40, "two": 40, "third": 40}


async def test_an_upstream_that_comes_back_is_not_sent_everything(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("one"), pooled("two"))
    assert fail(pool, UpstreamBusyException(retry_after_seconds=30)) == "one"
    assert {take(pool) for _ in range(100)} == {"two"}
    timing.pass_by(30)
    assert Counter(take(pool) for _ in range(10)) == {"one": 6, "two": 4}


async def test_orders_of_a_minute_are_kept_by_a_window_that_slides(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled(concurrency=10, per_minute=2))
    assert pool.join(ANNA, MODEL).ready
    timing.pass_by(40)
    assert pool.join(ANNA, MODEL).ready
    third, fourth = pool.join(ANNA, MODEL), pool.join(BERT, MODEL)
    timing.pass_by(19.9)
    assert not third.ready
    timing.pass_by(0.1)
    assert third.ready
    assert not fourth.ready
    timing.pass_by(40)
    assert fourth.ready
    assert timing.pending == 0


async def test_what_opens_by_time_goes_to_who_waits_before_who_comes(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled(concurrency=10, per_minute=1))
    pool.join(ANNA, MODEL)
    waiting = pool.join(ANNA, MODEL)
    timing.now += 60
    assert not pool.join(BERT, MODEL).ready
    assert waiting.ready


async def test_a_busy_upstream_is_passed_over_for_as_long_as_it_says(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("one"), pooled("two"))
    assert fail(pool, UpstreamBusyException(retry_after_seconds=30)) == "one"
    assert {take(pool) for _ in range(6)} == {"two"}
    timing.pass_by(29.9)
    assert {take(pool) for _ in range(6)} == {"two"}
    timing.pass_by(0.1)
    assert {take(pool) for _ in range(6)} == {"one", "two"}


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (UpstreamBusyException(), 5),
        (UpstreamBusyException(retry_after_seconds=4000), 300),
        (UpstreamUnreachableException(), 1),
        (UpstreamErrorException(), 1),
        (UpstreamCredentialException(), 1),
        (UpstreamFundsException(), 1),
        (UpstreamAddressException(), 1),
        (UpstreamAnswerException(), 0),
        (PictureUnusableException(), 0),
        (UpstreamSilentException(), 1),
        (UpstreamTimeoutException(), 0),
        (PromptRefusedException(), 0),
    ],
)
async def test_what_an_upstream_is_passed_over_for(
    timing: StandingClock, error: ImageGenerationException, seconds: int
) -> None:
    pool = make_pool(timing, pooled("one"), pooled("two"))
    fail(pool, error)
    passed = 0
    while {take(pool) for _ in range(4)} == {"two"}:
        timing.pass_by(1)
        passed += 1
    assert passed == seconds


async def test_pauses_double_until_a_success(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("one"))
    pauses = []
    for _ in range(8):
        fail(pool, UpstreamErrorException())
        pauses.append(pool.gates[0].pauses_until - timing.now)
        timing.pass_by(pauses[-1])
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    pool.join(ANNA, MODEL).release()
    fail(pool, UpstreamErrorException())
    assert pool.gates[0].pauses_until - timing.now == 1


async def test_an_upstream_pauses_after_three_pictures_in_a_row_that_cannot_be_stored(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("one"))
    gate = pool.gates[0]
    pauses = []
    for error in (None, *[PictureUnusableException()] * 2, None, *[PictureUnusableException()] * 5):
        pool.join(ANNA, MODEL).release(error)
        # A refusal is no picture: it says nothing of whether the next one can be stored.
        fail(pool, PromptRefusedException())
        pauses.append(max(0, gate.pauses_until - timing.now))
        timing.pass_by(pauses[-1])
    assert pauses == [0, 0, 0, 0, 0, 0, 1, 2, 4]


async def test_many_that_fail_together_are_one_failure(timing: StandingClock, caplog: pytest.LogCaptureFixture) -> None:
    pool = make_pool(timing, pooled("one", concurrency=100))
    turns = [pool.join(ANNA, MODEL) for _ in range(50)]
    with caplog.at_level(logging.WARNING):
        for turn in turns[1:]:
            timing.pass_by(0.01)
            turn.release(UpstreamUnreachableException())
    assert caplog.messages == ["upstream one pauses for 1 s: upstream_unreachable"]
    # What began before says nothing of now, whether it fails or not.
    turns[0].release()
    assert pool.gates[0].pauses(timing.now)
    assert pool.gates[0].failures == 1


async def test_where_all_pause_the_one_that_does_so_shortest_is_tried(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("one"), pooled("two"))
    assert fail(pool, UpstreamBusyException(retry_after_seconds=30)) == "one"
    assert fail(pool, UpstreamBusyException(retry_after_seconds=10)) == "two"
    turns = [pool.join(ANNA, MODEL) for _ in range(3)]
    assert [name_of(turn) for turn in turns[:2]] == ["two", "one"]
    assert not turns[2].ready
    turns[0].release()
    assert name_of(turns[2]) == "two"


async def test_who_waits_gets_what_has_paused_when_that_is_over(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("one"), pooled("two"))
    assert fail(pool, UpstreamBusyException(retry_after_seconds=30)) == "one"
    assert name_of(pool.join(ANNA, MODEL)) == "two"
    waiting = pool.join(ANNA, MODEL)
    assert not waiting.ready
    timing.pass_by(29)
    assert not waiting.ready
    timing.pass_by(1)
    assert name_of(waiting) == "one"


async def test_the_last_upstream_to_fail_sets_those_that_wait_going(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled("one"), pooled("two"))
    fail(pool, UpstreamBusyException(retry_after_seconds=30))
    failing = pool.join(ANNA, MODEL)
    turns = [pool.join(ANNA, MODEL) for _ in range(2)]
    failing.release(UpstreamUnreachableException())
    assert [name_of(turn) for turn in turns] == ["two", "one"]


async def test_models_are_those_that_upstreams_tell_and_are_asked_for(timing: StandingClock) -> None:
    one = FakeListing(models=("flare-2", "text-1", "flare-1"))
    two = FakeListing(models=("sketch", "flare-1"))
    silent = FakeListing(error=UpstreamSilentException())
    pool = make_pool(
        timing,
        pooled("one", upstream=one, models=("flare*",)),
        pooled("two", upstream=two),
        pooled("3", upstream=silent),
    )
    assert await pool.list_models() == ["flare-1", "flare-2", "sketch"]


async def test_where_no_upstream_tells_its_models_that_is_an_error(timing: StandingClock) -> None:
    with pytest.raises(UpstreamUnreachableException):
        await make_pool(timing, pooled(upstream=FakeListing(error=UpstreamUnreachableException()))).list_models()


async def test_all_are_closed_even_if_one_fails(timing: StandingClock) -> None:
    fakes = [FakeListing("a", closing_error=OSError("cut off")), FakeListing("b")]
    pool = make_pool(timing, *(pooled(fake.name, upstream=fake, concurrency=5, per_minute=1) for fake in fakes))
    for _ in range(3):
        pool.join(ANNA, MODEL)
    pool.join(ANNA, MODEL, excluding=frozenset({"a"}))
    assert pool.name == "a, b"
    assert timing.pending == 1
    with pytest.raises(OSError, match="cut off"):
        await pool.close()
    assert [fake.closed for fake in fakes] == [True, True]
    assert timing.pending == 0


async def test_ten_thousand_orders_leave_nothing_behind(timing: StandingClock) -> None:
    pool = make_pool(timing, pooled(concurrency=10), queue_size=10_000)
    turns = [pool.join(TenantId(number % 50), MODEL) for number in range(10_000)]
    done = 0
    while ready := [turn for turn in turns if turn.ready]:
        for turn in ready:
            turn.release()
        done += len(ready)
        turns = [turn for turn in turns if not turn.released]
    assert done == 10_000
    assert not turns
    assert not pool.queue.tenants
    assert timing.pending == 0


def test_a_list_of_upstreams_is_read_strictly() -> None:
    given = {"name": "azure-1", "base_url": "https://images.example/v1", "api_key": "sk-1"}
    settings = UpstreamSettings.model_validate(given)
    assert (settings.models, settings.weight, settings.concurrency, settings.requests_per_minute) == (
        None,
        1,
        1000,
        None,
    )
    assert "sk-1" not in repr(settings)
    assert (settings.headers, settings.query, settings.response_format) == ({}, {}, "none")
    azure = {"api_key": None, "headers": {"api-key": "sk-2"}, "query": {"api-version": "sk-3"}}
    assert "sk-" not in repr(UpstreamSettings.model_validate({**given, **azure}))
    assert UpstreamSettings.model_validate({**given, "models": ["flare-*", "a/b@c:1", "*"]}).models is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "two words"},
        {"name": "line\n"},
        {"base_url": "images.example"},
        {"base_url": "https://images.example/v1?api-version=1"},
        {"base_url": "https://images.example/v1#v2"},
        {"api_key": ""},
        {"api_key": "…"},
        {"headers": {"api key": "k"}},
        {"headers": {"api-key": "line\nbreak"}},
        {"headers": {"api-key": ""}},
        {"headers": {"api-key": 5}},
        {"query": {"a&b": "c"}},
        {"response_format": "base64"},
        {"models": []},
        {"models": ["a*b"]},
        {"models": [""]},
        {"models": ["**"]},
        {"models": ["flare", "flare"]},
        {"weight": 0},
        {"weight": "2"},
        {"weight": 1001},
        {"concurrency": 10_001},
        {"concurrency": True},
        {"requests_per_minute": 0},
        {"colour": "red"},
    ],
)
def test_an_upstream_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    given = {"name": "azure-1", "base_url": "https://images.example/v1", "api_key": "sk-1"}
    with pytest.raises(ValidationError):
        UpstreamSettings.model_validate(given | wrong)


@pytest.mark.parametrize(
    ("models", "model", "served"),
    [
        (None, "any", True),
        (("*",), "any", True),
        (("flare",), "flare", True),
        (("flare",), "flare-2", False),
        (("flare-*",), "flare-2", True),
        (("flare-*",), "flare", False),
        (("sketch", "flare*"), "flare", True),
    ],
)
def test_a_model_is_served_by_its_name_or_by_how_it_begins(
    models: tuple[str, ...] | None, model: str, *, served: bool
) -> None:
    assert serves(models, model) is served
