"""Migrations: from nothing to the current schema, by whoever comes first, and never over what they do not know."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from pixyproxy.core.exceptions import SchemaException
from pixyproxy.data.migrations import SCHEMA_REVISION, migrate, render_schema, verify_schema
from tests.support.databases import TABLES, TestDatabases, opened_engine

SQL = Path(__file__).parents[2] / "sql"
AT_ONCE = 8
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


def test_an_empty_database_gets_every_table(databases: TestDatabases, backend: str) -> None:
    with opened_engine(databases.new(backend)) as engine:
        assert migrate(engine) is True
        verify_schema(engine)
        assert set(TABLES) <= set(inspect(engine).get_table_names())


def test_a_second_run_does_nothing_and_keeps_what_is_there(databases: TestDatabases, backend: str) -> None:
    with opened_engine(databases.new(backend)) as engine:
        migrate(engine)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO tenants (guid, name, default_visibility) VALUES ('g', 'n', 'public')"))
        assert migrate(engine) is False
        with engine.connect() as connection:
            assert connection.execute(text("SELECT name FROM tenants")).scalar_one() == "n"


def test_threads_that_migrate_at_once_make_one_schema(databases: TestDatabases, backend: str) -> None:
    url = databases.new(backend)

    def migrate_alone(_: int) -> bool:
        with opened_engine(url) as engine:
            changed = migrate(engine)
            verify_schema(engine)
            return changed

    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert sorted(threads.map(migrate_alone, range(AT_ONCE))) == [False] * (AT_ONCE - 1) + [True]


def test_processes_that_migrate_at_once_make_one_schema(databases: TestDatabases, backend: str) -> None:
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


def _newer(url: str) -> None:
    with opened_engine(url) as engine:
        migrate(engine)
    _execute(url, "UPDATE alembic_version SET version_num = '9999'")


def _half_applied(url: str) -> None:
    _execute(url, "CREATE TABLE pixyproxy_migration (revision VARCHAR(32) NOT NULL)")
    _execute(url, "INSERT INTO pixyproxy_migration VALUES ('0001')")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(_newer, "is at 9999, which .* does not know. Install"), (_half_applied, "0001 stopped half way. Restore")],
    ids=["newer", "half-applied"],
)
def test_a_schema_that_is_not_ours_is_refused_with_what_to_do(
    databases: TestDatabases, backend: str, spoil: Callable[[str], None], words: str
) -> None:
    url = databases.new(backend)
    spoil(url)
    for _ in range(2):
        with opened_engine(url) as engine, pytest.raises(SchemaException, match=words):
            migrate(engine)


def test_a_newer_schema_is_left_as_it_is(databases: TestDatabases, backend: str) -> None:
    url = databases.new(backend)
    _newer(url)
    with opened_engine(url) as engine:
        with pytest.raises(SchemaException):
            migrate(engine)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"


def test_a_migration_that_fails_in_mysql_is_told_from_then_on(databases: TestDatabases) -> None:
    url = databases.new("mysql")
    _execute(url, "CREATE TABLE generations (taken INT)")
    with opened_engine(url) as engine:
        with pytest.raises(Exception, match="already exists"):
            migrate(engine)
        with pytest.raises(SchemaException, match="stopped half way"):
            migrate(engine)


def test_a_migration_that_fails_in_sqlite_leaves_nothing(databases: TestDatabases) -> None:
    url = databases.new("sqlite")
    _execute(url, "CREATE TABLE generations (taken INT)")
    with opened_engine(url) as engine:
        with pytest.raises(Exception, match="already exists"):
            migrate(engine)
        assert inspect(engine).get_table_names() == ["generations"]


def test_an_unmigrated_database_does_not_verify(databases: TestDatabases, backend: str) -> None:
    with (
        opened_engine(databases.new(backend)) as engine,
        pytest.raises(SchemaException, match=r"is at nothing, not 0001. Run `pixyproxy migrate`"),
    ):
        verify_schema(engine)


def test_the_revision_in_the_code_is_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(SQL / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_REVISION]


@pytest.mark.parametrize("dialect", ["mysql", "sqlite"])
def test_the_schema_file_is_current(dialect: str) -> None:
    assert (SQL / f"schema.{dialect}.sql").read_text() == render_schema(dialect)


def _sqlite_objects(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: " ".join(sql.split()) for name, sql in rows if name != "pixyproxy_migration"}


def test_the_schema_file_makes_what_the_migrations_make_in_sqlite(databases: TestDatabases) -> None:
    path = databases.migrated("sqlite").removeprefix("sqlite:///")
    loaded, migrated = sqlite3.connect(":memory:"), sqlite3.connect(path)
    loaded.executescript((SQL / "schema.sqlite.sql").read_text())
    assert _sqlite_objects(loaded) == _sqlite_objects(migrated)
    assert loaded.execute("SELECT * FROM alembic_version").fetchall() == [(SCHEMA_REVISION,)]
    loaded.close()
    migrated.close()


def _mysql_tables(url: str) -> list[str]:
    with opened_engine(url) as engine, engine.connect() as connection:
        definitions = [connection.exec_driver_sql(f"SHOW CREATE TABLE {table}").one()[1] for table in TABLES]
    return [re.sub(r"AUTO_INCREMENT=\d+ ", "", definition) for definition in definitions]


def test_the_schema_file_makes_what_the_migrations_make_in_mysql(databases: TestDatabases) -> None:
    url = databases.new("mysql")
    lines = (SQL / "schema.mysql.sql").read_text().splitlines()
    statements = "\n".join(line for line in lines if not line.startswith("--")).split(";")
    with opened_engine(url) as engine, engine.begin() as connection:
        for statement in filter(str.strip, statements):
            connection.exec_driver_sql(statement)
    assert _mysql_tables(url) == _mysql_tables(databases.migrated("mysql"))
