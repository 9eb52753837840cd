"""The time of day, which never goes back."""

import time
from datetime import UTC, datetime, timedelta

from pixyproxy.core import clock
from pixyproxy.core.clock import Clock

HOUR = 3600


def test_now_is_utc_to_the_second() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    moment = clock.now()
    assert before <= moment <= datetime.now(UTC) + timedelta(seconds=1)
    assert moment.microsecond == 0
    assert moment.utcoffset() == timedelta(0)


def test_a_clock_that_was_set_back_counts_on_from_the_latest_time() -> None:
    ahead = time.time() + HOUR
    seen_at = time.monotonic() - 10
    told = Clock(latest=ahead, seen_at=seen_at).seconds()
    assert ahead + 10 <= told <= ahead + time.monotonic() - seen_at


def test_a_clock_that_was_set_forward_is_followed() -> None:
    before = time.time()
    told = Clock(latest=before - HOUR, seen_at=time.monotonic()).seconds()
    assert before <= told <= time.time()


def test_each_reading_is_no_earlier_than_the_one_before() -> None:
    ours = Clock(latest=time.time() + HOUR, seen_at=time.monotonic())
    readings = [ours.seconds() for _ in range(1000)]
    assert readings == sorted(readings)


def test_a_clock_that_follows_the_database_tells_its_time_though_the_machines_is_another() -> None:
    for off in (-HOUR, HOUR):
        ours, told_at = Clock(latest=time.time() + HOUR), time.monotonic()
        theirs = time.time() + off
        ours.follow(theirs, told_at=told_at - 10)
        assert theirs + 10 <= ours.seconds() <= theirs + 10 + time.monotonic() - told_at


def test_a_clock_that_follows_never_goes_back_and_goes_on_from_what_was_told_last() -> None:
    ours, told_at = Clock(), time.monotonic()
    theirs = ours.seconds()
    ours.follow(theirs, told_at=told_at)
    before = ours.seconds()
    ours.follow(theirs - HOUR, told_at=told_at)
    assert ours.seconds() == ours.seconds() >= before
    ours.follow(theirs + HOUR, told_at=told_at)
    assert theirs + HOUR <= ours.seconds() <= theirs + HOUR + time.monotonic() - told_at
