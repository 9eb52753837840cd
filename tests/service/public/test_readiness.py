"""Readiness is reported in time if a part hangs, and probes of a hanging part do not pile up."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from pixyproxy.core.exceptions import (
    DatabaseBusyException,
    DatabaseUnavailableException,
    ImageStorageException,
    StorageFullException,
)
from pixyproxy.service.public.readiness import ReadinessCheck

if TYPE_CHECKING:
    from pixyproxy.data.database import Database
    from pixyproxy.data.files.store.local import LocalStore

pytestmark = pytest.mark.anyio


@dataclass
class _FakePart:
    """A fake of both database and store, which responds when released."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    asked: int = 0

    async def ping(self) -> None:
        self.asked += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error

    check = ping


def check_of(database: _FakePart, store: _FakePart, *, seconds: float = 60) -> ReadinessCheck:
    return ReadinessCheck(database=cast("Database", database), store=cast("LocalStore", store), seconds=seconds)


def answering(error: Exception | None = None) -> _FakePart:
    part = _FakePart(error=error)
    part.go.set()
    return part


async def test_responding_parts_are_ready() -> None:
    database, store = answering(), answering()
    check = check_of(database, store)
    await check.require_ready()
    await check.require_ready()
    assert (database.asked, store.asked) == (2, 2)


@pytest.mark.parametrize(
    ("database", "store", "expected"),
    [
        (DatabaseBusyException(), None, DatabaseBusyException),
        (None, StorageFullException(), StorageFullException),
    ],
)
async def test_error_of_a_part_is_raised(
    database: Exception | None, store: Exception | None, expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        await check_of(answering(database), answering(store)).require_ready()


async def test_hanging_part_is_probed_once_and_reported() -> None:
    database, store = _FakePart(), _FakePart()
    check = check_of(database, answering(), seconds=0.01)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailableException):
            await check.require_ready()
    assert database.asked == 1
    with pytest.raises(ImageStorageException):
        await check_of(answering(), store, seconds=0.01).require_ready()
    database.go.set()
    await asyncio.sleep(0)
    await check_of(database, answering()).require_ready()
