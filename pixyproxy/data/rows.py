"""Conversions between database columns and model fields that every repository needs."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import TextClause, text

Row = Mapping[Any, Any]
"""Column name to value, as SQLAlchemy types it; nothing is known of either until ``from_row`` validates it."""

Parameters = dict[str, str | int | float | None]
"""Named parameters of a statement."""


@lru_cache(maxsize=1024)
def sql(statement: str) -> TextClause:
    """A statement with ``:named`` parameters, parsed once: parsing takes longer than a look-up in SQLite."""
    return text(statement)


def from_timestamp(value: object) -> datetime | None:
    """A TIMESTAMP column as UTC: MySQL's driver gives a naive datetime, SQLite the text that was stored."""
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC)


def to_timestamp(moment: datetime | None) -> str | None:
    """A UTC time as the text that both databases take for a TIMESTAMP."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "seconds")


def insert_statement(table: str, columns: Iterable[str]) -> str:
    """``INSERT`` with one named parameter a column. Names come from code, never from a client."""
    names = list(columns)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(':' + name for name in names)})"


def in_list(values: Iterable[str | int]) -> tuple[str, Parameters]:
    """What stands behind ``IN``, and its parameters, a few hundred at most. Nothing is in a list of none."""
    parameters: Parameters = {f"value_{number}": value for number, value in enumerate(values)}
    return f"({', '.join(f':{name}' for name in parameters) or 'NULL'})", parameters


def to_names(names: Iterable[str] | None) -> str | None:
    """Names without spaces, such as scopes, as one text that they are separated in by spaces (RFC 6749 §3.3)."""
    return None if names is None else " ".join(sorted(names))


def from_names(value: object) -> list[str] | None:
    """The names in such a text."""
    return None if value is None else str(value).split()
