"""The time of day."""

from datetime import UTC, datetime, timedelta

from pixyproxy.core import clock


def test_now_is_utc_to_the_second() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    moment = clock.now()
    assert before <= moment <= datetime.now(UTC)
    assert moment.microsecond == 0
    assert moment.utcoffset() == timedelta(0)
