"""The clock, which never goes back."""

import time
from datetime import UTC, datetime, timedelta

from pixyproxy.core import clock
from pixyproxy.core.clock import Clock

HOUR = 3600


def test_now_is_utc_in_whole_seconds() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    moment = clock.now()
    assert before <= moment <= datetime.now(UTC) + timedelta(seconds=1)
    assert moment.microsecond == 0
    assert moment.utcoffset() == timedelta(0)


def test_clock_set_back_continues_from_latest_time() -> None:
    ahead = time.time() + HOUR
    seen_at = time.monotonic() - 10
    told = Clock(latest=ahead, seen_at=seen_at).seconds()
    assert ahead + 10 <= told <= ahead + time.monotonic() - seen_at


def test_clock_set_forward_is_followed() -> None:
    before = time.time()
    told = Clock(latest=before - HOUR, seen_at=time.monotonic()).seconds()
    assert before <= told <= time.time()


def test_readings_never_decrease() -> None:
    ours = Clock(latest=time.time() + HOUR, seen_at=time.monotonic())
    readings = [ours.seconds() for _ in range(1000)]
    assert readings == sorted(readings)


def test_following_clock_uses_database_time() -> None:
    for off in (-HOUR, HOUR):
        ours, read_at = Clock(latest=time.time() + HOUR), time.monotonic()
        theirs = time.time() + off
        ours.follow(theirs, read_at=read_at - 10)
        assert theirs + 10 <= ours.seconds() <= theirs + 10 + time.monotonic() - read_at


def test_following_clock_never_goes_back() -> None:
    ours, read_at = Clock(), time.monotonic()
    theirs = ours.seconds()
    ours.follow(theirs, read_at=read_at)
    before = ours.seconds()
    ours.follow(theirs - HOUR, read_at=read_at)
    assert ours.seconds() == ours.seconds() >= before
    ours.follow(theirs + HOUR, read_at=read_at)
    assert theirs + HOUR <= ours.seconds() <= theirs + HOUR + time.monotonic() - read_at
