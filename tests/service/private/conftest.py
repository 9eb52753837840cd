"""Services over a real database and store: generation, with an upstream whose state tests see, and identity."""

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
    """Whether the database is away."""

    lasts: bool = False


@dataclass(frozen=True, kw_only=True)
class FailingDatabase(Database):
    """A real database that refuses every transaction while its outage lasts."""

    outage: Outage

    async def _run(self, work: UnitOfWork[Result], *, writes: bool) -> Result:
        if self.outage.lasts:
            raise DatabaseUnavailableException
        return await super()._run(work, writes=writes)


@pytest.fixture
def drawer() -> FakeDrawer:
    """The upstream."""
    return FakeDrawer()


@pytest.fixture
def outage() -> Outage:
    """The outage of the service's database; it has not begun."""
    return Outage()


@pytest.fixture
def shaky(database: Database, outage: Outage) -> FailingDatabase:
    """``database``, away while the outage lasts."""
    return FailingDatabase(
        engine=database.engine,
        slots=database.slots,
        writers=database.writers,
        wait_seconds=database.wait_seconds,
        outage=outage,
    )


@pytest.fixture
async def process(shaky: FailingDatabase, store: LocalStore, drawer: FakeDrawer) -> AsyncIterator[Process]:
    """The process under test, which asks the drawer."""
    started = await start_process(shaky, store, drawer.pooled())
    yield started
    await started.stop()


@pytest.fixture
def principal(tenant: Tenant) -> Principal:
    """Who asks."""
    return principal_of(tenant)


@pytest.fixture
def other_principal(stranger: Tenant) -> Principal:
    """Who asks for another tenant."""
    return principal_of(stranger)


@pytest.fixture
async def identity(database: Database, store: LocalStore, tmp_path: Path) -> AsyncIterator[Identity]:
    """The identity services, wired as the server wires them."""
    composed = await compose(database, store, tmp_path)
    yield composed
    await composed.tasks.drain(20)
