"""Conversions between database columns and model fields, used by all repositories."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import TextClause, text

Row = Mapping[Any, Any]
"""Column names to values, typed as in SQLAlchemy; unvalidated until ``from_row``."""

Parameters = dict[str, str | int | float | None]
"""Named parameters of a statement."""


@lru_cache(maxsize=1024)
def sql(statement: str) -> TextClause:
    """Return a statement with ``:named`` parameters, parsed once: parsing takes longer than a lookup in SQLite."""
    return text(statement)


def from_timestamp(value: object) -> datetime | None:
    """Convert a TIMESTAMP column to UTC: MySQL's driver returns a naive datetime, SQLite the stored text."""
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC)


def to_timestamp(moment: datetime | None) -> str | None:
    """Convert a time to the UTC text that both databases accept for a TIMESTAMP."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "seconds")


def insert_statement(table: str, columns: Iterable[str]) -> str:
    """Build an ``INSERT`` with one named parameter per column. Names come from code, never from a client."""
    names = list(columns)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(':' + name for name in names)})"


def in_list(values: Iterable[str | int]) -> tuple[str, Parameters]:
    """Return the list for ``IN`` and its parameters, a few hundred at most. An empty list matches nothing."""
    parameters: Parameters = {f"value_{number}": value for number, value in enumerate(values)}
    return f"({', '.join(f':{name}' for name in parameters) or 'NULL'})", parameters


def to_names(names: Iterable[str] | None) -> str | None:
    """Join names without spaces, such as scopes, with spaces (RFC 6749 §3.3)."""
    return None if names is None else " ".join(sorted(names))


def from_names(value: object) -> list[str] | None:
    """Split such a text into its names."""
    return None if value is None else str(value).split()
