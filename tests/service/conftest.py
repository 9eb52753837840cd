"""What the tests of services share: a database of either kind, a store, and a tenant."""

from pathlib import Path

import pytest

from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Database
from pixyproxy.data.files.store.local import LocalStore
from tests.support.builders import add_tenant


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty picture store."""
    return LocalStore(tmp_path / "images", room_bytes=1)


@pytest.fixture
async def tenant(database: Database) -> Tenant:
    """A tenant of `database`."""
    return await database.write(add_tenant)


@pytest.fixture
async def stranger(database: Database) -> Tenant:
    """Another tenant of `database`."""
    return await database.write(add_tenant)
