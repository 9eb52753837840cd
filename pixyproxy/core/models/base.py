"""The configuration shared by all models."""

import re
from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict


class FrozenModel(BaseModel):
    """An immutable model that rejects unknown fields."""

    # A rejected value may be a secret, and unexpected errors are logged.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _refuse_coercion(value: object) -> object:
    if isinstance(value, bool | str):
        problem = "must be a number"
        raise ValueError(problem)  # noqa: TRY004  (pydantic turns a ValueError into a validation error)
    return value


def _refuse_duplicates(value: object) -> object:
    if isinstance(value, list | tuple) and len(set(map(str, value))) < len(value):
        problem = "must not contain duplicates"
        raise ValueError(problem)
    return value


DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
REFUSE_COERCION = BeforeValidator(_refuse_coercion)
"""Accept only JSON numbers: pydantic alone would accept ``"80"`` as 80 and ``false`` as 0."""
UNIQUE = BeforeValidator(_refuse_duplicates)
"""Reject duplicates in a JSON list that becomes a set."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC).replace(microsecond=0)
    except OverflowError as error:
        problem = "must lie within the years 1 to 9999 in UTC"
        raise ValueError(problem) from error


def _refuse_timestamp(value: object) -> object:
    """Require RFC 3339: pydantic alone would accept ``0`` as the first second of 1970."""
    if not isinstance(value, date) and not (isinstance(value, str) and DATE.match(value)):
        problem = "must be in RFC 3339 format, such as 2026-11-21 or 2026-11-21T09:15:02Z"
        raise ValueError(problem)
    return value


Day = Annotated[date, BeforeValidator(_refuse_timestamp)]
"""A date sent by a client."""
Moment = Annotated[AwareDatetime, BeforeValidator(_refuse_timestamp), AfterValidator(_in_utc)]
"""A time sent by a client, with an offset; stored in UTC, in whole seconds."""
