"""Schema migrations with Alembic, under a lock so that replicas may start together.

MySQL commits each DDL statement separately, so a migration that is interrupted leaves a schema that is neither old nor
new. A row in ``pixyproxy_migration``, committed before the first statement and deleted with the new version number,
marks that state for later processes.
"""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, inspect, text

from pixyproxy.core.exceptions import SchemaException

if TYPE_CHECKING:
    from alembic.config import Config

logger = logging.getLogger(__name__)

SCHEMA_REVISION = "0007"
"""The revision that this code requires: the head of ``sql/migrations``. Known without loading Alembic."""
LOCK_WAIT_SECONDS = 60
STATEMENT_SECONDS = 3600
"""How long MySQL may take for one statement: rewriting a large table takes longer than any request would wait."""


def migrate(engine: Engine) -> bool:
    """Migrate the schema to ``SCHEMA_REVISION``; return whether anything was changed.

    Raise ``SchemaException`` if the schema is newer than this code or half-applied.
    """
    with engine.connect() as connection:
        if _current_revision(connection) == SCHEMA_REVISION:
            return False
    with _locked(engine) as connection:
        current = _current_revision(connection)
        if current == SCHEMA_REVISION:
            return False
        _refuse_half_applied(connection)
        _upgrade(connection, current)
    logger.info("database schema migrated from %s to %s", current or "nothing", SCHEMA_REVISION)
    return True


def verify_schema(engine: Engine) -> None:
    """Raise ``SchemaException`` unless the schema has exactly the revision that this code requires."""
    with engine.connect() as connection:
        current = _current_revision(connection)
        _refuse_half_applied(connection)
    if current != SCHEMA_REVISION:
        message = f"The database schema is at {current or 'nothing'}, not {SCHEMA_REVISION}. Run `pixyproxy migrate`."
        raise SchemaException(message)


def render_schema(dialect: str) -> str:
    """Return the SQL that creates a new database, for ``mysql`` or ``sqlite``, as the migrations run it."""
    from alembic import command  # noqa: PLC0415  (Alembic takes 0.1 s and 10 MB; an up-to-date server never loads it)

    output = io.StringIO()
    config = _alembic_config()
    config.attributes |= {"dialect": dialect, "output": output}
    command.upgrade(config, "head", sql=True)
    lines = (line.rstrip() for line in output.getvalue().splitlines())
    return "-- Rendered from sql/migrations by `make schema`; do not edit.\n\n" + "\n".join(lines).strip() + "\n"


def _upgrade(connection: Connection, current: str | None) -> None:
    from alembic import command  # noqa: PLC0415  (as above)
    from alembic.script import ScriptDirectory  # noqa: PLC0415  (as above)

    config = _alembic_config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        message = (
            f"The database schema is at {current}, which this version of PixyProxy does not know. "
            "Install the version that migrated it, or a newer one."
        )
        raise SchemaException(message)
    connection.execute(text("CREATE TABLE IF NOT EXISTS pixyproxy_migration (revision VARCHAR(32) NOT NULL)"))
    connection.execute(
        text("INSERT INTO pixyproxy_migration (revision) VALUES (:revision)"), {"revision": SCHEMA_REVISION}
    )
    _commit_if_ddl_does(connection)
    config.attributes["connection"] = connection
    command.upgrade(config, SCHEMA_REVISION)
    connection.execute(text("DELETE FROM pixyproxy_migration"))


def _refuse_half_applied(connection: Connection) -> None:
    if not inspect(connection).has_table("pixyproxy_migration"):
        return
    unfinished = connection.execute(text("SELECT revision FROM pixyproxy_migration")).scalar()
    if unfinished is not None:
        message = (
            f"An earlier migration to {unfinished} was interrupted. Restore the backup made before it, "
            "or complete it manually and empty the table pixyproxy_migration; then start again."
        )
        raise SchemaException(message)


def _current_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


@contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that only one process can have at a time.

    On SQLite the write lock ensures that. On MySQL a named lock is taken, which the server frees with the connection.
    It is released only after the commit; otherwise the next process would read the old schema.
    """
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            with connection.begin():
                yield connection
            return
        with _patient(connection):
            statement = text("SELECT GET_LOCK(CONCAT('pixyproxy_', MD5(DATABASE())), :seconds)")
            if connection.execute(statement, {"seconds": LOCK_WAIT_SECONDS}).scalar() != 1:
                message = "Another process is migrating the database and has not finished. Check its log."
                raise SchemaException(message)
            connection.commit()
            try:
                with connection.begin():
                    yield connection
            finally:
                connection.execute(text("SELECT RELEASE_LOCK(CONCAT('pixyproxy_', MD5(DATABASE())))"))


@contextmanager
def _patient(connection: Connection) -> Iterator[None]:
    """Let MySQL's driver wait for responses as long as a migration may take.

    The server continues a statement after the driver gives up, which would leave a half-applied schema.
    """
    driver: Any = connection.connection.driver_connection
    usual = driver.read_timeout
    driver.read_timeout = STATEMENT_SECONDS
    try:
        yield
    finally:
        driver.read_timeout = usual


def _commit_if_ddl_does(connection: Connection) -> None:
    """Commit on MySQL, where the first DDL statement would do so implicitly, while the schema is still complete."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("COMMIT")


def _alembic_config() -> "Config":
    from alembic.config import Config  # noqa: PLC0415  (as above)

    config = Config()
    config.set_main_option("script_location", str(_migrations_folder()).replace("%", "%%"))
    return config


def _migrations_folder() -> Path:
    """Return ``sql/migrations``: inside the package when installed from a wheel, next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "sql" / "migrations"
    return packaged if packaged.is_dir() else package.parent / "sql" / "migrations"
