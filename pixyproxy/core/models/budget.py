"""Monthly budgets of tenants."""

from datetime import datetime

from pydantic import Field

from pixyproxy.core.models.base import FrozenModel

MICRO = 1_000_000
"""Micro-dollars per dollar: money is always counted in whole micro-dollars."""


def month_of(moment: datetime) -> str:
    """Return the month (UTC) whose budget applies, such as ``2026-11``."""
    return f"{moment:%Y-%m}"


def usd(micro_usd: int | None) -> float | None:
    """Convert micro-dollars to dollars for display."""
    return None if micro_usd is None else micro_usd / MICRO


class Spending(FrozenModel):
    """The reserved and spent amounts of a tenant's month, in micro-dollars."""

    month: str
    reserved_micro_usd: int = 0
    spent_micro_usd: int = 0


class BudgetDetail(FrozenModel):
    """A tenant's budget of this month (UTC), in US dollars; `limit_usd` and `left_usd` are null without a limit."""

    month: str = Field(examples=["2026-11"])
    limit_usd: float | None
    spent_usd: float
    reserved_usd: float = Field(description="Reserved for generations that are running or whose outcome is unknown.")
    left_usd: float | None
