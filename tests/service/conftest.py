"""Fixtures of the service tests: databases, a store and tenants."""

from pathlib import Path

import pytest

from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Database
from pixyproxy.data.files.store.local import LocalStore
from tests.support.builders import add_tenant


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Provide an empty picture store."""
    return LocalStore(tmp_path / "images", room_bytes=1)


@pytest.fixture
async def tenant(database: Database) -> Tenant:
    """Provide a tenant of `database`."""
    return await database.write(add_tenant)


@pytest.fixture
async def stranger(database: Database) -> Tenant:
    """Provide another tenant of `database`."""
    return await database.write(add_tenant)
