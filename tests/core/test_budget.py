"""Money: micro-dollars, dollars and months."""

from datetime import UTC, datetime

import pytest

from pixyproxy.core.models.budget import month_of, usd


@pytest.mark.parametrize(("micro_usd", "shown"), [(None, None), (0, 0), (1, 0.000001), (1_234_567, 1.234567)])
def test_micro_dollars_convert_to_dollars(micro_usd: int | None, shown: float | None) -> None:
    assert usd(micro_usd) == shown


def test_month_ends_with_its_last_second() -> None:
    assert month_of(datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)) == "2026-11"
    assert month_of(datetime(2026, 12, 1, tzinfo=UTC)) == "2026-12"
