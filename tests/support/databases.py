"""Migrated databases of both kinds, created once per test process and emptied after each test."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Engine, text

from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.engine import open_engine
from pixyproxy.data.init import open_database
from pixyproxy.data.migrations import migrate
from tests.support.mariadb import MySqlDatabases
from tests.support.server import make_settings

TABLES = (
    "audit_log",
    "webhook_deliveries",
    "webhooks",
    "budgets",
    "refresh_tokens",
    "revoked_tokens",
    "users",
    "images",
    "generations",
    "upstream_starts",
    "tenant_turns",
    "upstreams",
    "api_keys",
    "tenants",
    "signing_keys",
    "installation",
    "processes",
)


@dataclass(frozen=True)
class TestDatabases:
    """Databases named by their backend, `sqlite` or `mysql`."""

    __test__ = False
    folder: Path
    servers: MySqlDatabases
    urls: dict[str, str] = field(default_factory=dict)
    unshared: list[str] = field(default_factory=list)
    engines: dict[str, Engine] = field(default_factory=dict)

    def new(self, backend: str) -> str:
        """Return the URL of a new database without tables, for one test alone."""
        if backend == "sqlite":
            return f"sqlite:///{self.folder / uuid.uuid4().hex}.db"
        self.unshared.append(self.servers.create_database())
        return self.unshared[-1]

    def migrated(self, backend: str) -> str:
        """Return the URL of the migrated database that the tests of this process share, one at a time."""
        if backend not in self.urls:
            url = self.new(backend)
            with opened_engine(url) as engine:
                migrate(engine)
            self.urls[backend] = url
        return self.urls[backend]

    def engine(self, backend: str) -> Engine:
        """Return an engine of the database of ``migrated``, open until ``drop_all``; tests do not cache it."""
        if backend not in self.engines:
            self.engines[backend] = _open_engine(self.migrated(backend), pool_size=2)
        return self.engines[backend]

    def drop_all(self) -> None:
        """Close the engines, and drop the databases on a server. Files are removed with their folder."""
        for engine in self.engines.values():
            engine.dispose()
        for url in self.unshared:
            self.servers.drop_database(url)


@contextmanager
def opened_engine(url: str, *, pool_size: int = 2) -> Iterator[Engine]:
    """Yield an engine opened as in the server, and close its connections afterwards."""
    engine = _open_engine(url, pool_size=pool_size)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def rolled_back(engine: Engine) -> Iterator[Repositories]:
    """Yield repositories in a transaction that is always rolled back."""
    with engine.connect() as connection, connection.begin() as transaction:
        yield Repositories(connection)
        transaction.rollback()


@asynccontextmanager
async def opened_database(  # noqa: PLR0913  (settings, by keyword)
    url: str,
    folder: Path,
    *,
    pool_size: int = 4,
    wait_seconds: float = 20,
    timeout_seconds: float = 20,
    search_seconds: float = 20,
) -> AsyncIterator[Database]:
    """Yield a database opened as in the server, and close it afterwards."""
    database = await open_database(
        make_settings(
            folder,
            database_url=url,
            database_pool_size=pool_size,
            database_wait_seconds=wait_seconds,
            database_timeout_seconds=timeout_seconds,
            search_seconds=search_seconds,
        )
    )
    try:
        yield database
    finally:
        await database.close()


def empty(engine: Engine) -> None:
    """Delete every row that a test has committed."""
    with engine.begin() as connection:
        for table in TABLES:
            connection.execute(text(f"DELETE FROM {table}"))
        connection.execute(text("UPDATE audit_head SET sequence = 0, entry_sha256 = :none"), {"none": "0" * 64})


def _open_engine(url: str, *, pool_size: int) -> Engine:
    return open_engine(SecretStr(url), pool_size=pool_size, wait_seconds=20, timeout_seconds=20)
