"""A database server that stops, freezes and restarts under one ``Database``."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from pixyproxy.core.exceptions import DatabaseUnavailableException
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.init import open_database
from tests.data.test_database import assert_whole
from tests.support.builders import add_tenant
from tests.support.databases import opened_database
from tests.support.mariadb import MariaDbServer
from tests.support.server import make_settings

pytestmark = pytest.mark.anyio
TIMEOUT_SECONDS = 3
"""The database timeout; long enough that a slow disk does not count as an outage."""


@pytest.fixture(scope="module")
def started_server() -> Iterator[MariaDbServer]:
    with MariaDbServer() as server:
        yield server


@pytest.fixture
def mortal_server(started_server: MariaDbServer) -> Iterator[MariaDbServer]:
    """Yield this module's own server, running before and after each test."""
    yield started_server
    if not started_server.running:
        started_server.start()


@pytest.fixture
async def database(mortal_server: MariaDbServer, tmp_path: Path) -> AsyncIterator[Database]:
    async with opened_database(mortal_server.create_database(), tmp_path, timeout_seconds=TIMEOUT_SECONDS) as opened:
        yield opened


async def test_stopped_server_is_unavailable_until_it_restarts(
    database: Database, mortal_server: MariaDbServer
) -> None:
    tenant = await database.write(add_tenant)
    mortal_server.stop()
    for work in (database.ping(), database.write(add_tenant)):
        with pytest.raises(DatabaseUnavailableException):
            await work
    mortal_server.start()
    assert await database.read(lambda data: data.tenants.list_all()) == [tenant]
    assert_whole(database)


async def test_server_killed_in_mid_transaction_keeps_nothing_of_it(
    database: Database, mortal_server: MariaDbServer
) -> None:
    def die(data: Repositories) -> None:
        add_tenant(data)
        mortal_server.kill()
        add_tenant(data)

    with pytest.raises(DatabaseUnavailableException):
        await database.write(die)
    mortal_server.start()
    assert await database.read(lambda data: data.tenants.list_all()) == []
    assert_whole(database)


async def test_frozen_server_times_out_and_the_pool_recovers(database: Database, mortal_server: MariaDbServer) -> None:
    await asyncio.gather(*(database.ping() for _ in range(4)))
    mortal_server.freeze()
    ends = await asyncio.gather(*(database.ping() for _ in range(4)), return_exceptions=True)
    mortal_server.thaw()
    assert [type(end) for end in ends] == [DatabaseUnavailableException] * 4
    await asyncio.gather(*(database.write(add_tenant) for _ in range(8)))
    assert len(await database.read(lambda data: data.tenants.list_all())) == 8
    assert_whole(database)


async def test_opening_an_unreachable_server_raises_unavailable(mortal_server: MariaDbServer, tmp_path: Path) -> None:
    url = mortal_server.create_database()
    mortal_server.stop()
    with pytest.raises(DatabaseUnavailableException):
        await open_database(make_settings(tmp_path, database_url=url))


async def test_late_response_is_not_given_to_the_next_caller(mortal_server: MariaDbServer, tmp_path: Path) -> None:
    """The driver gives up before the server responds; the next caller must not read that response."""

    def outwait(data: Repositories) -> None:
        data.connection.execute(text("SELECT 1"))
        mortal_server.freeze()
        data.connection.execute(text("SELECT 'too late'"))

    url = mortal_server.create_database()
    async with opened_database(url, tmp_path, pool_size=1, timeout_seconds=TIMEOUT_SECONDS) as database:
        with pytest.raises(DatabaseUnavailableException):
            await database.read(outwait)
        mortal_server.thaw()
        for number in range(3):
            assert await database.read(partial(_select, number)) == number
        assert_whole(database)


def _select(number: int, data: Repositories) -> int:
    found: int = data.connection.execute(text(f"SELECT {number:d}")).scalar_one()
    return found
