"""The capacity of one upstream: pure arithmetic."""

import logging
from collections import Counter
from collections.abc import Iterable

import pytest

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    PictureUnusableException,
    PromptRefusedException,
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
from pixyproxy.core.models.upstream import UpstreamId, UpstreamState
from pixyproxy.service.private.upstream.capacity import (
    WINDOW_SECONDS,
    UpstreamCapacity,
    draw_by_weight,
    estimate_seconds,
    least_loaded,
)

NOW = 1_800_000_000.0


def _capacity(
    name: str = "one", *, weight: int = 1, concurrency: int = 1, per_minute: int | None = None
) -> UpstreamCapacity:
    state = UpstreamState(
        id=UpstreamId(1), name=name, weight=weight, concurrency=concurrency, requests_per_minute=per_minute
    )
    return UpstreamCapacity(state)


def _names(capacities: Iterable[UpstreamCapacity]) -> list[str]:
    return [capacity.state.name for capacity in capacities]


def _fail(capacity: UpstreamCapacity, error: BaseException | None, now: float = NOW) -> float:
    """Return how long an upstream pauses after an order that finished at once."""
    capacity.leave(error, entered_at=now, now=now)
    return max(0.0, capacity.state.paused_until - now)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (UpstreamBusyException(), 5),
        (UpstreamBusyException(retry_after_seconds=30), 30),
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
def test_upstream_pauses_after_some_errors(error: ImageGenerationException, seconds: int) -> None:
    assert _fail(_capacity(), error) == seconds


def test_pauses_double_until_a_success() -> None:
    capacity, now, pauses = _capacity(), NOW, []
    for _ in range(8):
        pauses.append(_fail(capacity, UpstreamErrorException(), now))
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert _fail(capacity, None, now) == 0
    assert _fail(capacity, UpstreamErrorException(), now) == 1


def test_success_ends_a_pause() -> None:
    capacity = _capacity()
    _fail(capacity, UpstreamBusyException(retry_after_seconds=30))
    assert capacity.pauses(NOW + 1)
    _fail(capacity, None, NOW + 1)
    assert not capacity.pauses(NOW + 1)


def test_upstream_pauses_after_three_consecutive_unusable_pictures() -> None:
    capacity, now, pauses = _capacity(), NOW, []
    for error in (None, *[PictureUnusableException()] * 2, None, *[PictureUnusableException()] * 5):
        _fail(capacity, error, now)
        # A refusal has no picture: it says nothing about the next one.
        pauses.append(_fail(capacity, PromptRefusedException(), now))
        now += pauses[-1]
    assert pauses == [0, 0, 0, 0, 0, 0, 1, 2, 4]


def test_concurrent_failures_count_as_one(caplog: pytest.LogCaptureFixture) -> None:
    capacity = _capacity(concurrency=100)
    with caplog.at_level(logging.WARNING):
        for number in range(1, 50):
            capacity.leave(UpstreamUnreachableException(), entered_at=NOW, now=NOW + number / 100)
    assert caplog.messages == ["upstream one is paused for 1 s: upstream_unreachable"]
    # A call that started before the failure says nothing about now, whether it fails or not.
    capacity.leave(None, entered_at=NOW, now=NOW + 0.5)
    assert capacity.pauses(NOW + 0.5)
    assert capacity.state.failures == 1


def test_busy_upstream_pauses_as_long_as_it_requests() -> None:
    one, two = capacities = [_capacity("one", concurrency=9), _capacity("two", concurrency=9)]
    _fail(one, UpstreamBusyException(retry_after_seconds=30))
    assert least_loaded(capacities, NOW + 29.9) == [two]
    assert least_loaded(capacities, NOW + 30) == [one, two]


def test_paused_upstream_is_not_used_while_another_works() -> None:
    one, two = capacities = [_capacity("one"), _capacity("two")]
    _fail(one, UpstreamBusyException(retry_after_seconds=30))
    two.enter(NOW)
    assert least_loaded(capacities, NOW) == []
    assert least_loaded(capacities, NOW + 30) == [one]


def test_shortest_pause_is_used_if_all_are_paused() -> None:
    one, two = capacities = [_capacity("one"), _capacity("two")]
    _fail(one, UpstreamBusyException(retry_after_seconds=30))
    _fail(two, UpstreamBusyException(retry_after_seconds=10))
    assert least_loaded(capacities, NOW) == [two]
    two.enter(NOW)
    assert least_loaded(capacities, NOW) == [one]
    one.enter(NOW)
    assert least_loaded(capacities, NOW) == []


def test_least_load_by_weight_is_chosen() -> None:
    light, heavy = capacities = [_capacity("light", concurrency=100), _capacity("heavy", weight=3, concurrency=100)]
    names = []
    for _ in range(40):
        capacity = draw_by_weight(least_loaded(capacities, NOW))
        capacity.enter(NOW)
        names += _names([capacity])
    assert Counter(names) == {"light": 10, "heavy": 30}
    light.in_flight, heavy.in_flight = 10, 29
    assert least_loaded(capacities, NOW) == [heavy]


def test_sequential_orders_are_shared_by_weight() -> None:
    capacities = [_capacity("light"), _capacity("heavy", weight=4)]
    assert Counter(_names(draw_by_weight(capacities) for _ in range(50))) == {"light": 10, "heavy": 40}


def test_weights_apply_across_all_models() -> None:
    one, two, third = _capacity("one"), _capacity("two"), _capacity("third")
    drawn = [draw_by_weight(capacities) for capacities in ([one, two], [one, two, third]) * 60]
    assert Counter(_names(drawn)) == {"one": 40, "two": 40, "third": 40}


def test_returning_upstream_does_not_get_every_order() -> None:
    one, two = _capacity("one"), _capacity("two")
    for _ in range(100):
        draw_by_weight([two])
    assert Counter(_names(draw_by_weight([one, two]) for _ in range(10))) == {"one": 6, "two": 4}


def test_calls_per_minute_use_a_sliding_window() -> None:
    capacity = _capacity(concurrency=10, per_minute=2)
    assert capacity.is_free(NOW)
    capacity.enter(NOW)
    assert capacity.is_free(NOW + 40)
    capacity.enter(NOW + 40)
    assert not capacity.is_free(NOW + 40)
    assert capacity.opens_at(NOW + 40) == NOW + WINDOW_SECONDS
    assert capacity.is_free(NOW + WINDOW_SECONDS)


def test_estimate_uses_past_durations() -> None:
    capacity = _capacity(concurrency=2)
    capacity.in_flight = 2
    assert estimate_seconds([capacity], 1, NOW) is None
    capacity.leave(None, entered_at=NOW - 10, now=NOW)
    # One of two slots becomes free every 5 seconds.
    assert [estimate_seconds([capacity], position, NOW) for position in (1, 2, 3)] == [5, 10, 15]
    capacity.leave(None, entered_at=NOW - 20, now=NOW)
    capacity.in_flight = 1
    # The latest duration of 20 seconds has a weight of a fifth: the mean is 12.
    assert [estimate_seconds([capacity], position, NOW) for position in (1, 2, 3)] == pytest.approx([0, 6, 12])


def test_estimate_respects_the_calls_per_minute() -> None:
    capacity = _capacity(concurrency=10, per_minute=2)
    for _ in range(2):
        capacity.enter(NOW)
        capacity.leave(None, entered_at=NOW, now=NOW + 5)
    capacity.in_flight = 0
    estimates = [estimate_seconds([capacity], position, NOW + 5) for position in (1, 2, 3)]
    assert estimates == [WINDOW_SECONDS - 5, WINDOW_SECONDS * 1.5 - 5, WINDOW_SECONDS * 2 - 5]


def test_estimate_ignores_paused_upstreams_while_any_works() -> None:
    one, two = capacities = [_capacity("one"), _capacity("two")]
    for capacity in capacities:
        capacity.leave(None, entered_at=NOW - 10, now=NOW)
    assert estimate_seconds(capacities, 3, NOW) == 10
    _fail(one, UpstreamUnreachableException(), NOW)
    assert estimate_seconds(capacities, 3, NOW) == 20
    _fail(two, UpstreamUnreachableException(), NOW)
    assert estimate_seconds(capacities, 3, NOW) == 10
