"""Migrations: from an empty database to the current schema, by one process, and never over an unknown schema."""

import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Engine, event, inspect, text
from sqlalchemy.exc import DBAPIError

from pixyproxy.core import clock
from pixyproxy.core.exceptions import SchemaException
from pixyproxy.core.models.tenant import TenantStatus
from pixyproxy.data.database import Repositories
from pixyproxy.data.engine import open_engine
from pixyproxy.data.migrations import SCHEMA_REVISION, migrate, render_schema, verify_schema
from tests.support.databases import TABLES, TestDatabases, opened_engine

SQL = Path(__file__).parents[2] / "sql"
AT_ONCE = 8
EVERY_TABLE = (*TABLES, "audit_head")
MIGRATE = """
import sys
from pydantic import SecretStr
from pixyproxy.data.engine import open_engine
from pixyproxy.data.migrations import migrate, verify_schema
engine = open_engine(SecretStr(sys.argv[1]), pool_size=1, wait_seconds=20, timeout_seconds=20)
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
sys.stdout.write(f"{migrate(engine)}\\n")
verify_schema(engine)
engine.dispose()
"""


def _execute(url: str, statement: str) -> None:
    with opened_engine(url) as engine, engine.begin() as connection:
        connection.execute(text(statement))


def test_empty_database_gets_every_table(databases: TestDatabases, backend: str) -> None:
    with opened_engine(databases.new(backend)) as engine:
        assert migrate(engine) is True
        verify_schema(engine)
        assert set(EVERY_TABLE) <= set(inspect(engine).get_table_names())


def test_second_run_changes_nothing(databases: TestDatabases, backend: str) -> None:
    with opened_engine(databases.new(backend)) as engine:
        migrate(engine)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO tenants (guid, name, default_visibility) VALUES ('g', 'n', 'public')"))
        assert migrate(engine) is False
        with engine.connect() as connection:
            assert connection.execute(text("SELECT name FROM tenants")).scalar_one() == "n"


FIRST_ROWS = [
    """
    INSERT INTO tenants (guid, name, default_visibility, created_at)
    VALUES ('t', 'naïve 🦊', 'private', '2026-01-02 03:04:05')
    """,
    """
    INSERT INTO api_keys (guid, tenant_id, key_id, secret_sha256, name, scopes, created_at, expires_at, revoked_at)
    SELECT 'k', id, 'abc', 'digest', 'a key', 'image:read admin',
           '2026-01-02 03:04:05', '2037-12-31 23:59:59', '2026-03-29 01:30:00' FROM tenants
    """,
    """
    INSERT INTO generations (guid, tenant_id, idempotency_key, fingerprint, status, image_guid, prompt, visibility,
                             model, created_at, updated_at)
    SELECT 'g', id, 'once', 'f', 'stored', 'i', 'a 🦊', 'public', 'm', '2026-01-02 03:04:05', '2026-01-02 03:04:06'
      FROM tenants
    """,
    """
    INSERT INTO images (guid, tenant_id, generation_id, filename, prompt, visibility, media_type, byte_size, sha256,
                        width, height, model, created_at, updated_at)
    SELECT 'i', tenant_id, id, 'a.png', prompt, 'public', 'image/png', 1, 's', 2, 3, model, created_at, updated_at
      FROM generations
    """,
]
"""A row of each table of the first release."""
CARRIED = ("images", "generations", "api_keys", "tenants")


def _migrate_to(engine: Engine, revision: str) -> None:
    """Create the schema of an earlier release with its own migrations."""
    config = Config()
    config.set_main_option("script_location", str(SQL / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _rows(engine: Engine) -> dict[str, list[dict[str, object]]]:
    with engine.connect() as connection:
        return {
            table: [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]
            for table in CARRIED
        }


def test_rows_of_the_first_release_are_preserved(databases: TestDatabases, backend: str) -> None:
    with opened_engine(databases.new(backend)) as engine:
        _migrate_to(engine, "0001")
        with engine.begin() as connection:
            for statement in FIRST_ROWS:
                connection.execute(text(statement))
        before = _rows(engine)
        for row in before["generations"]:
            # A generation had one image then; now it may have several.
            row["image_guids"] = row.pop("image_guid")
        assert migrate(engine) is True
        verify_schema(engine)
        after = _rows(engine)
    assert [len(after[table]) for table in CARRIED] == [1, 1, 1, 1]
    for table in CARRIED:
        assert after[table][0].items() >= before[table][0].items()


def test_rows_are_preserved_when_the_signing_keys_table_is_added(databases: TestDatabases, backend: str) -> None:
    with opened_engine(databases.new(backend)) as engine:
        _migrate_to(engine, "0001")
        with engine.begin() as connection:
            for statement in FIRST_ROWS:
                connection.execute(text(statement))
        _migrate_to(engine, "0004")
        before = _rows(engine)
        _migrate_to(engine, "0005")
        assert _rows(engine) == before
        with engine.connect() as connection:
            assert Repositories(connection).signing_keys.list_all() == []
            assert Repositories(connection).signing_keys.installation() is None


BEGUN_ROWS = """
    INSERT INTO generations (guid, tenant_id, idempotency_key, fingerprint, status, image_guids, prompt, visibility,
                             model, terms, budget_month, reserved_micro_usd, lease_owner, lease_until, upstream,
                             created_at, updated_at)
    SELECT :status, id, :status, 'f', :status, 'i', 'a 🦊', 'public', 'M', '{}', '2026-11', 7, 'p',
           '2026-01-02 03:05:04', :upstream, '2026-01-02 03:04:05', '2026-01-02 03:04:06'
      FROM tenants
"""
"""A row as left by a process that was stopped or killed before the upgrade."""


def test_waiting_and_called_orders_of_an_older_release_continue(databases: TestDatabases, backend: str) -> None:
    statuses = {"accepted": None, "calling": "a", "stored": "a", "unknown": "a"}
    with opened_engine(databases.new(backend)) as engine:
        _migrate_to(engine, "0004")
        with engine.begin() as connection:
            connection.execute(text(FIRST_ROWS[0]))
            connection.execute(text("INSERT INTO budgets (tenant_id, month) SELECT id, '2026-11' FROM tenants"))
            for status, upstream in statuses.items():
                connection.execute(text(BEGUN_ROWS), {"status": status, "upstream": upstream})
        before = _rows(engine)["generations"]
        migrate(engine)
        after = _rows(engine)["generations"]
        assert [new.items() >= old.items() for new, old in zip(after, before, strict=True)] == [True] * len(statuses)
        with engine.begin() as connection:
            data = Repositories(connection)
            waiting, called = (data.generations.find(status) for status in ("accepted", "calling"))
            assert waiting is not None
            assert (waiting.excluded, waiting.version, waiting.follower) == (frozenset(), 0, None)
            (head,) = data.queue.heads()
            assert (head.tenant_id, head.model, head.first_id) == (waiting.tenant_id, "M", waiting.id)
            # The process that called it is dead: its outcome is unknown, and it uses no slot of a current upstream.
            assert data.generations.list_abandoned(at=clock.now(), limit=9) == [called]
            assert data.upstreams.count_slots(now=0.0) == {}
            data.budgets.lock("2026-11", tenant_id=waiting.tenant_id)
            assert data.budgets.reserve("2026-11", 1, tenant_id=waiting.tenant_id)


def test_rows_of_the_first_release_are_read_without_limits(databases: TestDatabases, backend: str) -> None:
    with opened_engine(databases.new(backend)) as engine:
        _migrate_to(engine, "0001")
        with engine.begin() as connection:
            for statement in FIRST_ROWS:
                connection.execute(text(statement))
        migrate(engine)
        with engine.connect() as connection:
            data = Repositories(connection)
            tenant, key = data.tenants.get_by_guid("t"), data.api_keys.find_for_authentication("abc")
            generation = data.generations.find("g")
    assert tenant is not None
    assert (tenant.name, tenant.status) == ("naïve 🦊", TenantStatus.ACTIVE)
    assert (tenant.images_per_minute, tenant.monthly_budget_usd, tenant.allowed_models) == (None, None, None)
    assert key is not None
    assert (key.expires_at, key.revoked_at) == (
        datetime(2037, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    )
    assert (key.allowed_models, key.former_sha256, key.last_used_at) == (None, None, None)
    assert generation is not None
    assert (generation.subject, generation.resolved_at) == (None, None)


def test_concurrent_threads_migrate_once(databases: TestDatabases, backend: str) -> None:
    url = databases.new(backend)

    def migrate_alone(_: int) -> bool:
        with opened_engine(url) as engine:
            changed = migrate(engine)
            verify_schema(engine)
            return changed

    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert sorted(threads.map(migrate_alone, range(AT_ONCE))) == [False] * (AT_ONCE - 1) + [True]


def test_next_migration_waits_for_the_commit(databases: TestDatabases, backend: str) -> None:
    url = databases.new(backend)

    def migrate_alone(_: int) -> bool:
        with opened_engine(url) as engine:
            event.listen(engine, "commit", lambda _: time.sleep(0.3))
            changed = migrate(engine)
            verify_schema(engine)
            return changed

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(migrate_alone, range(2))) == [False, True]


def test_concurrent_processes_migrate_once(databases: TestDatabases, backend: str) -> None:
    url = databases.new(backend)
    command = [sys.executable, "-c", MIGRATE, url]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(AT_ONCE)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    answers = [process.communicate("go\n", timeout=60) for process in processes]
    assert sorted(answers) == [("False\n", "")] * (AT_ONCE - 1) + [("True\n", "")]


def test_mysql_migration_may_take_longer_than_the_request_timeout(databases: TestDatabases) -> None:
    url = databases.new("mysql")
    name = "CONCAT('pixyproxy_', MD5(DATABASE()))"
    impatient = open_engine(SecretStr(url), pool_size=1, wait_seconds=1, timeout_seconds=1)
    with opened_engine(url) as engine, engine.connect() as other, ThreadPoolExecutor() as threads:
        assert other.execute(text(f"SELECT GET_LOCK({name}, 0)")).scalar() == 1
        migrated = threads.submit(migrate, impatient)
        # One second longer than the driver would wait for a response.
        time.sleep(2)
        other.execute(text(f"SELECT RELEASE_LOCK({name})"))
        assert migrated.result() is True
        with impatient.connect() as connection, pytest.raises(DBAPIError):
            connection.execute(text("SELECT SLEEP(3)"))
        impatient.dispose()


def _newer(url: str) -> None:
    with opened_engine(url) as engine:
        migrate(engine)
    _execute(url, "UPDATE alembic_version SET version_num = '9999'")


def _half_applied(url: str) -> None:
    _execute(url, "CREATE TABLE pixyproxy_migration (revision VARCHAR(32) NOT NULL)")
    _execute(url, "INSERT INTO pixyproxy_migration VALUES ('0001')")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(_newer, "is at 9999, which .* does not know. Install"), (_half_applied, "0001 was interrupted. Restore")],
    ids=["newer", "half-applied"],
)
def test_unusable_schema_is_rejected_with_instructions(
    databases: TestDatabases, backend: str, spoil: Callable[[str], None], words: str
) -> None:
    url = databases.new(backend)
    spoil(url)
    for _ in range(2):
        with opened_engine(url) as engine, pytest.raises(SchemaException, match=words):
            migrate(engine)


def test_newer_schema_is_unchanged(databases: TestDatabases, backend: str) -> None:
    url = databases.new(backend)
    _newer(url)
    with opened_engine(url) as engine:
        with pytest.raises(SchemaException):
            migrate(engine)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"


def test_failed_mysql_migration_is_reported_afterwards(databases: TestDatabases) -> None:
    url = databases.new("mysql")
    _execute(url, "CREATE TABLE generations (taken INT)")
    with opened_engine(url) as engine:
        with pytest.raises(Exception, match="already exists"):
            migrate(engine)
        with pytest.raises(SchemaException, match="was interrupted"):
            migrate(engine)


def test_failed_sqlite_migration_leaves_nothing(databases: TestDatabases) -> None:
    url = databases.new("sqlite")
    _execute(url, "CREATE TABLE generations (taken INT)")
    with opened_engine(url) as engine:
        with pytest.raises(Exception, match="already exists"):
            migrate(engine)
        assert inspect(engine).get_table_names() == ["generations"]


def test_unmigrated_database_fails_verification(databases: TestDatabases, backend: str) -> None:
    with (
        opened_engine(databases.new(backend)) as engine,
        pytest.raises(SchemaException, match=rf"is at nothing, not {SCHEMA_REVISION}. Run `pixyproxy migrate`"),
    ):
        verify_schema(engine)


def test_revision_in_the_code_is_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(SQL / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_REVISION]


@pytest.mark.parametrize("dialect", ["mysql", "sqlite"])
def test_schema_file_is_current(dialect: str) -> None:
    assert (SQL / f"schema.{dialect}.sql").read_text() == render_schema(dialect)


def _sqlite_objects(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: " ".join(sql.split()) for name, sql in rows if name != "pixyproxy_migration"}


def test_schema_file_equals_the_migrations_in_sqlite(databases: TestDatabases) -> None:
    path = databases.migrated("sqlite").removeprefix("sqlite:///")
    loaded, migrated = sqlite3.connect(":memory:"), sqlite3.connect(path)
    loaded.executescript((SQL / "schema.sqlite.sql").read_text())
    assert _sqlite_objects(loaded) == _sqlite_objects(migrated)
    assert loaded.execute("SELECT * FROM alembic_version").fetchall() == [(SCHEMA_REVISION,)]
    loaded.close()
    migrated.close()


def _mysql_tables(url: str) -> list[str]:
    with opened_engine(url) as engine, engine.connect() as connection:
        definitions = [connection.exec_driver_sql(f"SHOW CREATE TABLE {table}").one()[1] for table in EVERY_TABLE]
    return [re.sub(r"AUTO_INCREMENT=\d+ ", "", definition) for definition in definitions]


def test_schema_file_equals_the_migrations_in_mysql(databases: TestDatabases) -> None:
    url = databases.new("mysql")
    lines = (SQL / "schema.mysql.sql").read_text().splitlines()
    statements = "\n".join(line for line in lines if not line.startswith("--")).split(";")
    with opened_engine(url) as engine, engine.begin() as connection:
        for statement in filter(str.strip, statements):
            connection.exec_driver_sql(statement)
    assert _mysql_tables(url) == _mysql_tables(databases.migrated("mysql"))
