"""The SQLAlchemy engine for each database: connection settings and the meaning of driver errors.

Facts measured with mysql-connector-python 26.10 and SQLAlchemy 2.1 are noted where they matter.
"""

import logging
import math
import re
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import mysql.connector
from mysql.connector.abstracts import MySQLConnectionAbstract
from mysql.connector.constants import ClientFlag
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import QueuePool

from pixyproxy.core.exceptions import ConfigurationException

logger = logging.getLogger(__name__)

LOCK_WAIT_CODE = 1205
DEADLOCK_CODE = 1213
SNAPSHOT_CODE = 1020
"""MariaDB, from 11.6 on by default: a row to be written has changed since the transaction's snapshot."""
DISCONNECT_CODES = frozenset({1040, 1053, 1152, 1184, 1927, 2002, 2003, 2006, 2013, 2055, 3024, 4031})
"""MySQL and its connector: too many connections, shutdown, aborted, refused, gone, lost, timed out."""
WAL_WAIT_SECONDS = 10
IDLE_SECONDS = 5
"""How long a transaction may be idle before the server ends it."""
STATEMENT_TIMEOUT_CODES = frozenset({1969, 3024})
"""MariaDB and MySQL: a statement exceeded the time limit of its session."""
STEPS_BETWEEN_LOOKS = 1000
"""SQLite virtual machine instructions between two checks of the clock; usually a few dozen rows."""
REFUSAL_CODES = frozenset({1044, 1045, 1049})
"""MySQL: no permission for the database, wrong user or password, unknown database."""
UNUSABLE_URL = "PIXYPROXY_DATABASE_URL is not valid. Its format is mysql://user:password@host:3306/database."


def open_engine(
    url: SecretStr,
    *,
    pool_size: int,
    wait_seconds: float,
    timeout_seconds: float,
    statement_seconds: float | None = None,
) -> Engine:
    """Return an engine for a ``mysql://``, ``mariadb://`` or ``sqlite:///`` URL, without connecting.

    The database aborts statements that take longer than ``statement_seconds``; on SQLite the limit applies to the whole
    transaction. Raise ``ConfigurationException`` if the URL is not valid.
    """
    try:
        parsed = make_url(url.get_secret_value())
    except (ArgumentError, ValueError) as error:
        raise ConfigurationException(UNUSABLE_URL) from error
    if parsed.get_backend_name() != "sqlite" and not parsed.database:
        raise ConfigurationException(UNUSABLE_URL)
    if parsed.get_backend_name() == "sqlite":
        engine = _open_sqlite(parsed, pool_size=pool_size, wait_seconds=wait_seconds)
    else:
        engine = _open_mysql(parsed, pool_size=pool_size, wait_seconds=wait_seconds, timeout_seconds=timeout_seconds)
    if statement_seconds is not None and engine.dialect.name == "sqlite":
        event.listen(engine, "begin", partial(_limit_sqlite, seconds=statement_seconds))
    elif statement_seconds is not None:
        event.listen(engine, "connect", partial(_limit_mysql, seconds=statement_seconds))
    event.listen(engine, "handle_error", _mark_disconnect)
    return engine


def is_refusal(error: BaseException) -> bool:
    """Return whether the database rejected the user, password or database name."""
    return isinstance(error, DBAPIError) and _driver_code(error.orig) in REFUSAL_CODES


def is_disconnect(error: BaseException) -> bool:
    """Return whether the connection is unusable, so that the same work may succeed on another one."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _driver_code(error.orig) in DISCONNECT_CODES
    return isinstance(error, OSError) or _driver_code(error) in DISCONNECT_CODES


def is_deadlock(error: BaseException) -> bool:
    """Return whether the transaction lost a deadlock; it was rolled back, so it may be run again."""
    return isinstance(error, DBAPIError) and _driver_code(error.orig) in {DEADLOCK_CODE, SNAPSHOT_CODE}


def is_lock_conflict(error: BaseException) -> bool:
    """Return whether another transaction blocked this one, by a deadlock or for longer than it may wait."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.OperationalError):
        return original.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    return _driver_code(original) in {LOCK_WAIT_CODE, DEADLOCK_CODE, SNAPSHOT_CODE}


def is_statement_timeout(error: BaseException) -> bool:
    """Return whether a statement was aborted because it took longer than ``statement_seconds``."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.OperationalError):
        return original.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT
    return _driver_code(original) in STATEMENT_TIMEOUT_CODES


def _driver_code(error: BaseException | None) -> int | None:
    return error.errno if isinstance(error, mysql.connector.Error) else None


def _mark_disconnect(context: ExceptionContext) -> None:
    """Remove a connection that timed out or broke from the pool.

    SQLAlchemy does not recognize the pure Python driver's read timeout (3024) as a disconnect and would give the broken
    connection to the next caller.
    """
    if context.original_exception is not None and is_disconnect(context.original_exception):
        context.is_disconnect = True


def _open_mysql(parsed: URL, *, pool_size: int, wait_seconds: float, timeout_seconds: float) -> Engine:
    engine = create_engine(
        parsed.set(drivername="mysql+mysqlconnector"),
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=wait_seconds,
        pool_pre_ping=True,
        pool_recycle=1800,
        # Every transaction ends before its connection is returned; another rollback would be an extra round trip.
        pool_reset_on_return=None,
        hide_parameters=True,
        connect_args={
            "charset": "utf8mb4",
            "collation": "utf8mb4_unicode_ci",
            "time_zone": "+00:00",
            "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
            "connection_timeout": int(max(1, timeout_seconds)),
            "read_timeout": int(max(1, timeout_seconds)),
            "write_timeout": int(max(1, timeout_seconds)),
            # The driver runs stacked statements by default, which makes any SQL injection far worse.
            "client_flags": [ClientFlag.FOUND_ROWS, -ClientFlag.MULTI_STATEMENTS],
        },
    )
    event.listen(engine, "connect", partial(_prepare_mysql, lock_wait_seconds=int(max(1, wait_seconds))))
    logger.info("database driver: mysql-connector-python, C extension %s", mysql.connector.HAVE_CEXT)
    return engine


def _open_sqlite(parsed: URL, *, pool_size: int, wait_seconds: float) -> Engine:
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        parsed,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=wait_seconds,
        # The most recently used connection has cached the pages that the next transaction reads.
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args={"timeout": wait_seconds, "check_same_thread": False, "isolation_level": None},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_mysql(connection: MySQLConnectionAbstract, _record: object, *, lock_wait_seconds: int) -> None:
    """Configure a session.

    It waits for a lock no longer than for a connection: the server's own 50 s exceed every timeout here. MariaDB from
    11.6 on aborts a transaction that waited for a row which then changed (1020). Of eight concurrent writers of the
    audit log five were aborted three times in a row, so it is configured to wait as MySQL does.
    """
    with closing(connection.cursor()) as cursor:
        cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {lock_wait_seconds}")
        # Scheduling counts rows after it has locked the rows that it decides on.
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute("SHOW VARIABLES LIKE 'idle_transaction_timeout'")
        # Frees the locks of a process that hangs. MySQL has no timeout for idle transactions only.
        name = "idle_transaction_timeout" if cursor.fetchall() else "wait_timeout"
        cursor.execute(f"SET SESSION {name} = {IDLE_SECONDS}")
        cursor.execute("SHOW VARIABLES LIKE 'innodb_snapshot_isolation'")
        if cursor.fetchall():
            cursor.execute("SET SESSION innodb_snapshot_isolation = OFF")


def _limit_mysql(connection: MySQLConnectionAbstract, _record: object, *, seconds: float) -> None:
    """Abort every SELECT that takes longer, with MariaDB's variable or MySQL's."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("SHOW VARIABLES LIKE 'max_statement_time'")
        if cursor.fetchall():
            cursor.execute(f"SET SESSION max_statement_time = {seconds:.3f}")
        else:
            cursor.execute(f"SET SESSION max_execution_time = {math.ceil(seconds * 1000)}")


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Configure durable commits, readers concurrent with the writer, and the MySQL features that the SQL uses.

    These are Unicode-aware LOWER, REGEXP and a collation.
    """
    _enter_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.create_function("LOWER", 1, _casefold, deterministic=True)
    connection.create_function("REGEXP", 2, _matches, deterministic=True)
    connection.create_collation("utf8mb4_bin", _compare)


def _casefold(value: object) -> str | None:
    return None if value is None else str(value).casefold()


def _matches(pattern: str, value: str) -> bool:
    """Return whether the value matches; Python caches recently compiled patterns."""
    return re.search(pattern, value) is not None


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch a new database to write-ahead logging, which is permanent.

    SQLite's own wait for locks does not cover the switch, so processes that open a new database together wait here.
    """
    deadline = time.monotonic() + WAL_WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not is_lock_conflict(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _compare(left: str, right: str) -> int:
    return (left > right) - (left < right)


def _begin_sqlite(connection: Connection) -> None:
    """Start transactions explicitly: the driver starts none before a SELECT.

    A writer takes the lock at once; after a read it could not upgrade without SQLITE_BUSY.
    """
    writes = connection.get_execution_options().get("pixyproxy_writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _limit_sqlite(connection: Connection, *, seconds: float) -> None:
    """Abort the transaction that is starting if it takes longer."""
    deadline = time.monotonic() + seconds
    raw = connection.connection.dbapi_connection
    if isinstance(raw, sqlite3.Connection):
        raw.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_BETWEEN_LOOKS)
