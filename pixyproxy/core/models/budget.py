"""Budgets: what a tenant may spend in a month."""

from datetime import datetime

from pydantic import Field

from pixyproxy.core.models.base import FrozenModel

MICRO = 1_000_000
"""Micro-dollars to the dollar: money is whole micro-dollars wherever it is counted."""


def month_of(moment: datetime) -> str:
    """The month (UTC) whose budget a moment falls into: ``2026-11``."""
    return f"{moment:%Y-%m}"


def usd(micro_usd: int | None) -> float | None:
    """Micro-dollars as dollars, to be shown."""
    return None if micro_usd is None else micro_usd / MICRO


class Spending(FrozenModel):
    """What a tenant has reserved and spent of a month's budget, in micro-dollars."""

    month: str
    reserved_micro_usd: int = 0
    spent_micro_usd: int = 0


class BudgetDetail(FrozenModel):
    """A tenant's budget of this month (UTC), in US dollars; `limit_usd` and `left_usd` are null without a limit."""

    month: str = Field(examples=["2026-11"])
    limit_usd: float | None
    spent_usd: float
    reserved_usd: float = Field(description="Held for what is under way, or ended without a known outcome.")
    left_usd: float | None
