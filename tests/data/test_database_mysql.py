"""Behaviour of a database server only: deadlocks, stacked statements, killed connections."""

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from pixyproxy.core.exceptions import DatabaseBusyException, DatabaseException, DatabaseUnavailableException
from pixyproxy.core.models.upstream import UpstreamNumbers
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.engine import DEADLOCK_CODE, DISCONNECT_CODES, IDLE_SECONDS, LOCK_WAIT_CODE
from tests.data.test_database import assert_whole
from tests.support.builders import add_tenant
from tests.support.databases import TestDatabases, opened_database, opened_engine

pytestmark = pytest.mark.anyio


@pytest.fixture
def backend() -> str:
    """Use only the server."""
    return "mysql"


async def test_lost_deadlock_is_retried(database: Database) -> None:
    first, second = [(await database.write(add_tenant)).id for _ in range(2)]
    both_hold_one = threading.Barrier(2)
    runs: list[str] = []

    def rename_in_order(ids: tuple[int, int], name: str, data: Repositories) -> None:
        again = name in runs
        runs.append(name)
        for position, tenant_id in enumerate(ids):
            statement = "UPDATE tenants SET name = CONCAT(name, :name) WHERE id = :id"
            data.connection.execute(text(statement), {"name": name, "id": tenant_id})
            if position == 0 and not again:
                both_hold_one.wait(20)

    await asyncio.gather(
        database.write(lambda data: rename_in_order((first, second), "<a>", data)),
        database.write(lambda data: rename_in_order((second, first), "<b>", data)),
    )
    assert sorted(runs[:2]) == ["<a>", "<b>"]
    assert len(runs) == 3
    tenants = await database.read(lambda data: data.tenants.list_all())
    assert [(tenant.name.count("<a>"), tenant.name.count("<b>")) for tenant in tenants] == [(1, 1), (1, 1)]
    assert_whole(database)


async def test_lock_that_is_never_released_raises_database_busy(database: Database, databases: TestDatabases) -> None:
    tenant = await database.write(add_tenant)
    runs = 0

    def rename(data: Repositories) -> None:
        nonlocal runs
        runs += 1
        data.connection.execute(text("SET innodb_lock_wait_timeout = 0"))
        data.connection.execute(text("UPDATE tenants SET name = 'other' WHERE id = :id"), {"id": tenant.id})

    with (
        opened_engine(databases.migrated("mysql")) as engine,
        engine.begin() as holder,
    ):
        holder.execute(text("SELECT 1 FROM tenants WHERE id = :id FOR UPDATE"), {"id": tenant.id})
        with pytest.raises(DatabaseBusyException):
            await database.write(rename)
    assert runs == 1
    assert await database.read(lambda data: data.tenants.list_all()) == [tenant]


async def test_stacked_statements_are_rejected(database: Database) -> None:
    with pytest.raises(DatabaseException):
        await database.write(lambda data: data.connection.exec_driver_sql("SELECT 1; DELETE FROM tenants"))


async def test_killed_connection_is_replaced(database: Database, databases: TestDatabases) -> None:
    for _ in range(3):
        connection_id = await database.read(
            lambda data: data.connection.execute(text("SELECT CONNECTION_ID()")).scalar_one()
        )
        with opened_engine(f"{databases.servers.server_url}/mysql") as admin, admin.connect() as connection:
            connection.execute(text("KILL :id"), {"id": connection_id})
        await database.ping()
    assert_whole(database)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("time_zone", "+00:00"), ("collation_connection", "utf8mb4_unicode_ci"), ("character_set_client", "utf8mb4")],
)
async def test_connection_does_not_depend_on_server_defaults(database: Database, variable: str, value: str) -> None:
    found = await database.read(lambda data: data.connection.execute(text(f"SELECT @@{variable}")).scalar_one())
    assert found == value


async def test_transactions_read_committed_rows_and_have_an_idle_timeout(database: Database) -> None:
    names = ("tx_isolation", "transaction_isolation", "idle_transaction_timeout", "wait_timeout")
    statement = f"SHOW VARIABLES WHERE Variable_name IN {names}"
    rows = await database.read(lambda data: data.connection.execute(text(statement)).all())
    values = {value for _, value in rows}
    assert {"READ-COMMITTED", str(IDLE_SECONDS)} <= values


async def test_idle_transaction_loses_its_locks(database: Database) -> None:
    """Its process is stopped, or its machine is gone. Here the session's idle timeout is one second."""
    numbers = UpstreamNumbers(weight=1, concurrency=1, requests_per_minute=None)
    await database.write(lambda data: data.upstreams.register("a", numbers, revision=1.0))
    locked, over = threading.Event(), threading.Event()

    def stand_still(data: Repositories) -> None:
        data.connection.execute(text("SET SESSION idle_transaction_timeout = 1"))
        state = data.upstreams.list_named(["a"], lock=True)[0]
        locked.set()
        over.wait(20)
        data.upstreams.save(state.model_copy(update={"failures": 9}))

    def go_on(data: Repositories) -> None:
        (state,) = data.upstreams.list_named(["a"], lock=True)
        data.upstreams.save(state.model_copy(update={"failures": state.failures + 1}))

    async def others() -> None:
        await asyncio.to_thread(locked.wait, 20)
        try:
            await database.write(go_on)
        finally:
            over.set()

    still, other = await asyncio.gather(database.write(stand_still), others(), return_exceptions=True)
    assert isinstance(still, DatabaseUnavailableException)
    assert other is None
    (state,) = await database.read(lambda data: data.upstreams.list_named(["a"]))
    assert state.failures == 1
    assert_whole(database)


async def test_value_too_long_for_its_column_is_rejected_not_truncated(database: Database) -> None:
    with pytest.raises(DatabaseException):
        await database.write(lambda data: add_tenant(data, "n" * 256))
    assert await database.read(lambda data: data.tenants.list_all()) == []


async def test_update_without_changes_counts_its_row(databases: TestDatabases, tmp_path: Path) -> None:
    async with opened_database(databases.migrated("mysql"), tmp_path) as database:
        count = await database.read(
            lambda data: data.connection.execute(text("UPDATE alembic_version SET version_num = version_num")).rowcount
        )
    assert count == 1


async def test_lock_and_disconnect_error_codes_are_disjoint() -> None:
    assert not {LOCK_WAIT_CODE, DEADLOCK_CODE} & DISCONNECT_CODES
