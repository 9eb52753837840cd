"""Fixtures that all tests share: both databases, a fake upstream, a running server, a tenant per test."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser

from pixyproxy.data.database import Database, Repositories
from tests.support.browser import running_browser
from tests.support.databases import TestDatabases, empty, opened_database, rolled_back
from tests.support.mariadb import URL_VARIABLE, MariaDbServer, MySqlDatabases
from tests.support.memory import temporary_files_in_memory
from tests.support.redis import RedisServer
from tests.support.server import UNLIMITED, RunningServer, TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import FakeUpstream

BACKENDS = ("sqlite", "mysql")
on_both_databases = pytest.mark.parametrize("server", BACKENDS, indirect=True)
"""For HTTP tests of SQL that differs by database. Services and repositories are always tested on both."""
with_short_upstream_timeout = pytest.mark.parametrize("server", ["impatient"], indirect=True)
"""For tests of a silent upstream. On a slow machine the short timeout would expire in all other tests."""
UPSTREAM_TIMEOUT_SECONDS = {"sqlite": 20, "mysql": 20, "impatient": 3}
held = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Choose a folder for temporary files and, unless a server is named, start one MariaDB for all worker processes."""
    config.stash[held] = ExitStack()
    if hasattr(config, "workerinput"):
        return
    config.stash[held].enter_context(temporary_files_in_memory())
    if URL_VARIABLE not in os.environ:
        server = config.stash[held].enter_context(MariaDbServer())
        os.environ[URL_VARIABLE] = server.admin_url
        config.stash[held].callback(os.environ.pop, URL_VARIABLE)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop everything that ``pytest_configure`` started."""
    config.stash[held].close()


@pytest.fixture(scope="session")
def mysql_server() -> MySqlDatabases:
    """Return a creator of databases on a real MariaDB or MySQL server."""
    return MySqlDatabases(os.environ[URL_VARIABLE])


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Return the name of the server's event loop."""
    return "asyncio"


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory, mysql_server: MySqlDatabases) -> Iterator[TestDatabases]:
    """Yield SQLite and MySQL databases."""
    made = TestDatabases(tmp_path_factory.mktemp("sqlite"), mysql_server)
    yield made
    made.drop_all()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Return the kind of database."""
    return str(request.param)


@pytest.fixture
def data(backend: str, databases: TestDatabases) -> Iterator[Repositories]:
    """Yield repositories in a transaction that is rolled back after the test."""
    with rolled_back(databases.engine(backend)) as repositories:
        yield repositories


@pytest.fixture
async def database(backend: str, databases: TestDatabases, tmp_path: Path) -> AsyncIterator[Database]:
    """Yield a migrated database that tests may commit to."""
    url = databases.migrated(backend)
    async with opened_database(url, tmp_path) as opened:
        yield opened
    empty(databases.engine(backend))


@pytest.fixture(scope="session")
def session_upstream() -> Iterator[FakeUpstream]:
    """Yield the fake upstream that ``server`` calls. Tests take ``upstream``."""
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
def upstream(session_upstream: FakeUpstream) -> Iterator[FakeUpstream]:
    """Yield the fake upstream with default behaviour and an empty request log."""
    session_upstream.reset()
    yield session_upstream
    session_upstream.reset()


@pytest.fixture(scope="session", params=["sqlite"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    mysql_server: MySqlDatabases,
    session_upstream: FakeUpstream,
) -> Iterator[RunningServer]:
    """Yield a running PixyProxy with the fake upstream, on SQLite unless the test is marked ``on_both_databases``.

    Every test creates its own tenant.
    """
    with ExitStack() as stack:
        url = None
        if request.param == "mysql":
            url = mysql_server.create_database()
            stack.callback(mysql_server.drop_database, url)
        settings = make_settings(
            tmp_path_factory.mktemp(request.param),
            database_url=url,
            **UNLIMITED,
            upstream_timeout_seconds=UPSTREAM_TIMEOUT_SECONDS[request.param],
            **upstream_settings(session_upstream),
        )
        running = stack.enter_context(serving(settings))
        running.hash_cheaply()
        yield running


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """Yield a Redis for this test alone, which may kill, freeze and restart it."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def tenant(server: RunningServer) -> Iterator[TenantClient]:
    """Yield a tenant for this test alone."""
    tenant = server.new_tenant(f"tenant {uuid.uuid4()}")
    with tenant.http:
        yield tenant


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a real browser for one module. While it runs, no ``async`` test can run (see ``running_browser``)."""
    with running_browser() as browser:
        yield browser


@pytest.fixture
def anonymous(server: RunningServer) -> Iterator[httpx2.Client]:
    """Yield a client without a credential."""
    with server.client() as client:
        yield client
