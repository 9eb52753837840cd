"""The configuration that every model shares."""

import re
from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict


class FrozenModel(BaseModel):
    """Immutable, and strict about its fields: an unknown one is an error, never ignored."""

    # What a model refuses may be a secret, and an error that nobody foresaw is logged.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _refuse_coercion(value: object) -> object:
    if isinstance(value, bool | str):
        problem = "must be a number"
        raise ValueError(problem)  # noqa: TRY004  (pydantic takes a ValueError for a validation error)
    return value


def _refuse_duplicates(value: object) -> object:
    if isinstance(value, list | tuple) and len(set(map(str, value))) < len(value):
        problem = "must not name anything twice"
        raise ValueError(problem)
    return value


DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
REFUSE_COERCION = BeforeValidator(_refuse_coercion)
"""A number in JSON is a number: pydantic alone would take ``"80"`` for 80 and ``false`` for 0."""
UNIQUE = BeforeValidator(_refuse_duplicates)
"""A set in JSON is a list of different things."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC).replace(microsecond=0)
    except OverflowError as error:
        problem = "must lie within the years 1 to 9999 in UTC"
        raise ValueError(problem) from error


def _refuse_timestamp(value: object) -> object:
    """A time is written as RFC 3339 says: pydantic alone would take ``0`` for the first second of 1970."""
    if not isinstance(value, date) and not (isinstance(value, str) and DATE.match(value)):
        problem = "must be written as in RFC 3339: 2026-11-21, or 2026-11-21T09:15:02Z"
        raise ValueError(problem)
    return value


Day = Annotated[date, BeforeValidator(_refuse_timestamp)]
"""A day that a client sends."""
Moment = Annotated[AwareDatetime, BeforeValidator(_refuse_timestamp), AfterValidator(_in_utc)]
"""A time that a client sends: with its offset, kept in UTC to the second."""
