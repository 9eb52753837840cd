"""Conversions between columns and fields."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pixyproxy.data.rows import from_timestamp, in_list, insert_statement, to_timestamp


@pytest.mark.parametrize("stored", [datetime(2026, 2, 3, 4, 5, 6), "2026-02-03 04:05:06"])  # noqa: DTZ001  (as MySQL's driver returns it)
def test_timestamp_is_utc(stored: object) -> None:
    assert from_timestamp(stored) == datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_time_of_another_zone_is_stored_in_utc() -> None:
    moment = datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert to_timestamp(moment) == "2026-02-02 22:35:06"


def test_no_time_is_null() -> None:
    assert to_timestamp(None) is None
    assert from_timestamp(None) is None


def test_insert_names_one_parameter_per_column() -> None:
    assert insert_statement("t", ("a", "b")) == "INSERT INTO t (a, b) VALUES (:a, :b)"


def test_list_has_a_parameter_for_each_value() -> None:
    assert in_list(["a", "b"]) == ("(:value_0, :value_1)", {"value_0": "a", "value_1": "b"})
    assert in_list([]) == ("(NULL)", {})
