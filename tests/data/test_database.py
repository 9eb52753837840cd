"""Units of work: atomic, with bounded waits, also when callers are cancelled."""

import asyncio
import threading
from functools import partial
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.pool import QueuePool

from pixyproxy.core.exceptions import (
    DatabaseBusyException,
    DatabaseException,
    SearchTimeoutException,
    TenantExistsException,
    TooManyAtOnceException,
)
from pixyproxy.core.fair_slots import Requester
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.init import SEARCHES_OF_REQUESTER
from tests.support.builders import add_tenant
from tests.support.databases import TestDatabases, opened_database

pytestmark = pytest.mark.anyio


def _names(data: Repositories) -> list[str]:
    return [tenant.name for tenant in data.tenants.list_all()]


def assert_whole(database: Database) -> None:
    """Assert that all slots and connections are free."""
    assert database.slots.borrowed_tokens == 0
    assert isinstance(database.engine.pool, QueuePool)
    assert database.engine.pool.checkedout() == 0


class _Gate:
    """Blocks a unit of work in its thread until the test opens the gate."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.entered = asyncio.Event()
        self.opened = threading.Event()

    def add_tenant(self, name: str, data: Repositories) -> None:
        add_tenant(data, name)
        self.hold()

    def hold(self) -> None:
        self.loop.call_soon_threadsafe(self.entered.set)
        assert self.opened.wait(20)


async def test_unit_of_work_is_committed(database: Database) -> None:
    tenant = await database.write(partial(add_tenant, name="kept"))
    assert await database.read(lambda data: data.tenants.list_all()) == [tenant]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(TenantExistsException(), TenantExistsException), (KeyError("x"), KeyError), (ValueError("x"), ValueError)],
)
async def test_unit_of_work_that_raises_is_rolled_back(
    database: Database, error: Exception, expected: type[Exception]
) -> None:
    def fail(data: Repositories) -> None:
        add_tenant(data, "lost")
        raise error

    with pytest.raises(expected):
        await database.write(fail)
    assert await database.read(_names) == []
    assert_whole(database)


async def test_invalid_sql_raises_database_exception_without_the_sql(database: Database) -> None:
    with pytest.raises(DatabaseException) as caught:
        await database.read(lambda data: data.connection.execute(text("SELECT secret_word FROM nowhere")))
    assert "secret_word" not in str(caught.value)
    assert_whole(database)


@pytest.mark.parametrize("backend", ["sqlite", "mysql"])
async def test_wait_for_a_slot_is_bounded(
    databases: TestDatabases, backend: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("wait")
    async with (
        opened_database(databases.migrated(backend), folder, pool_size=1, wait_seconds=0.05) as database,
        anyio.create_task_group() as group,
    ):
        gate = _Gate()
        group.start_soon(database.read, lambda _: gate.hold())
        await gate.entered.wait()
        with pytest.raises(DatabaseBusyException):
            await database.ping()
        gate.opened.set()
    assert_whole(database)


async def test_cancelled_wait_for_a_slot_leaks_no_slot(
    databases: TestDatabases, backend: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("abandoned")
    async with opened_database(databases.migrated(backend), folder, pool_size=1) as database:
        gate = _Gate()
        holder = asyncio.create_task(database.read(lambda _: gate.hold()))
        await gate.entered.wait()
        waiting = [asyncio.create_task(database.ping()) for _ in range(5)]
        await anyio.wait_all_tasks_blocked()
        assert database.slots.statistics().tasks_waiting == 5
        for task in waiting[1:]:
            task.cancel()
        gate.opened.set()
        await holder
        await waiting[0]
        ends = await asyncio.gather(*waiting[1:], return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 4
        assert_whole(database)
        await database.ping()


async def test_cancelled_scope_does_not_stop_the_commit(database: Database) -> None:
    gate = _Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(database.write, partial(gate.add_tenant, "kept"))
        await gate.entered.wait()
        group.cancel_scope.cancel()
        gate.opened.set()
    assert await database.read(_names) == ["kept"]
    assert_whole(database)


async def test_cancelled_task_does_not_stop_the_commit(database: Database) -> None:
    gate = _Gate()
    task = asyncio.create_task(database.write(partial(gate.add_tenant, "kept")))
    await gate.entered.wait()
    task.cancel()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    while "kept" not in await database.read(_names):
        pass
    assert_whole(database)


async def test_two_hundred_concurrent_reads_share_two_connections(
    databases: TestDatabases, backend: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("reads")
    async with opened_database(databases.migrated(backend), folder, pool_size=2) as database:
        answers = await asyncio.gather(
            *(
                database.read(partial(lambda n, data: data.connection.execute(text(f"SELECT {n:d}")).scalar_one(), n))
                for n in range(200)
            )
        )
        assert answers == list(range(200))
        assert isinstance(database.engine.pool, QueuePool)
        assert database.engine.pool.checkedin() <= 2
        assert_whole(database)


async def test_concurrent_writers_all_commit(database: Database) -> None:
    await asyncio.gather(*(database.write(partial(add_tenant, name=f"{n:02d}")) for n in range(20)))
    assert sorted(await database.read(_names)) == [f"{n:02d}" for n in range(20)]
    assert_whole(database)


async def test_read_sees_what_was_committed_before_each_statement(database: Database, backend: str) -> None:
    """On SQLite, commits before the first statement: a read there sees one snapshot."""
    gate = _Gate()

    def count_twice(data: Repositories) -> tuple[int, int]:
        before = len(data.tenants.list_all())
        gate.hold()
        return before, len(data.tenants.list_all())

    reading = asyncio.create_task(database.read(count_twice))
    await gate.entered.wait()
    await database.write(add_tenant)
    gate.opened.set()
    assert await reading == (0, {"sqlite": 0, "mysql": 1}[backend])


def _slow(data: Repositories) -> object:
    """Scan more rows than the time limit allows, in each database's SQL."""
    endless = {
        "sqlite": "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n",
        "mysql": f"SELECT COUNT(*) FROM {', '.join(f'information_schema.collations AS c{n}' for n in range(5))}",
    }
    return data.connection.execute(text(endless[data.connection.dialect.name])).scalar_one()


def _one(data: Repositories) -> int:
    return int(data.connection.execute(text("SELECT 1")).scalar_one())


async def test_slow_search_is_aborted_and_the_next_one_works(
    databases: TestDatabases, backend: str, tmp_path: Path
) -> None:
    async with opened_database(databases.migrated(backend), tmp_path, search_seconds=0.1) as database:
        for _ in range(3):
            with pytest.raises(SearchTimeoutException):
                await database.search(_slow, requester=Requester(None, "a"))
        assert await database.search(_one, requester=Requester(None, "a")) == 1
        assert await database.search(_names, requester=Requester(None, "a")) == []


async def test_searches_do_not_block_other_work(tmp_path: Path) -> None:
    gate, asker = _Gate(), Requester(None, "a")
    url = f"sqlite:///{tmp_path / 'searches.db'}"
    async with opened_database(url, tmp_path, pool_size=1) as database:
        searches = [
            asyncio.create_task(database.search(lambda _: gate.hold(), requester=asker))
            for _ in range(SEARCHES_OF_REQUESTER)
        ]
        await gate.entered.wait()
        with pytest.raises(TooManyAtOnceException):
            await database.search(_one, requester=asker)
        await database.write(partial(add_tenant, name="meanwhile"))
        assert await database.read(_names) == ["meanwhile"]
        waiting = asyncio.create_task(database.search(_one, requester=Requester(None, "b")))
        assert not any(search.done() for search in searches)
        gate.opened.set()
        await asyncio.gather(*searches)
        assert await waiting == 1
        assert_whole(database)


async def test_sqlite_writers_wait_for_a_slot_and_not_in_the_database(tmp_path: Path) -> None:
    checked_out = []

    async with opened_database(f"sqlite:///{tmp_path / 'turns.db'}", tmp_path) as database:
        pool = database.engine.pool
        assert isinstance(pool, QueuePool)

        def write(data: Repositories) -> None:
            checked_out.append(pool.checkedout())
            add_tenant(data)

        async with anyio.create_task_group() as writers:
            for _ in range(50):
                writers.start_soon(database.write, write)
    assert checked_out == [1] * 50
