"""Generation and identity services over a real database and store, with a fake upstream whose state tests can see."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from pixyproxy.core.exceptions import DatabaseUnavailableException
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Database, UnitOfWork
from pixyproxy.data.files.store.local import LocalStore
from tests.service.private.identities import Identity, compose
from tests.service.private.processes import Process, start_process
from tests.support.builders import principal_of
from tests.support.drawing import FakeDrawer

Result = TypeVar("Result")


@dataclass
class Outage:
    """Whether the database is unavailable."""

    lasts: bool = False


@dataclass(frozen=True, kw_only=True)
class FailingDatabase(Database):
    """A real database that refuses every transaction during its outage."""

    outage: Outage

    async def _run(self, work: UnitOfWork[Result], *, writes: bool) -> Result:
        if self.outage.lasts:
            raise DatabaseUnavailableException
        return await super()._run(work, writes=writes)


@pytest.fixture
def drawer() -> FakeDrawer:
    """Provide the fake upstream."""
    return FakeDrawer()


@pytest.fixture
def outage() -> Outage:
    """Provide the outage of the service's database, which has not started."""
    return Outage()


@pytest.fixture
def shaky(database: Database, outage: Outage) -> FailingDatabase:
    """Provide ``database``, unavailable during the outage."""
    return FailingDatabase(
        engine=database.engine,
        slots=database.slots,
        writers=database.writers,
        wait_seconds=database.wait_seconds,
        outage=outage,
    )


@pytest.fixture
async def process(shaky: FailingDatabase, store: LocalStore, drawer: FakeDrawer) -> AsyncIterator[Process]:
    """Provide the process under test, which calls the fake upstream."""
    started = await start_process(shaky, store, drawer.pooled())
    yield started
    await started.stop()


@pytest.fixture
def principal(tenant: Tenant) -> Principal:
    """Provide a principal of the tenant."""
    return principal_of(tenant)


@pytest.fixture
def other_principal(stranger: Tenant) -> Principal:
    """Provide a principal of another tenant."""
    return principal_of(stranger)


@pytest.fixture
async def identity(database: Database, store: LocalStore, tmp_path: Path) -> AsyncIterator[Identity]:
    """Provide the identity services, wired as in the server."""
    composed = await compose(database, store, tmp_path)
    yield composed
    await composed.tasks.drain(20)
