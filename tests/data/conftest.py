"""Both databases: a transaction that is rolled back, or a `Database` whose rows are deleted afterwards."""

from collections.abc import Iterator

import pytest

from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Repositories
from tests.support.builders import add_tenant
from tests.support.databases import TestDatabases, rolled_back


@pytest.fixture
def data(backend: str, databases: TestDatabases) -> Iterator[Repositories]:
    """Repositories in a transaction of the test's own."""
    with rolled_back(databases.engine(backend)) as repositories:
        yield repositories


@pytest.fixture
def tenant(data: Repositories) -> Tenant:
    """A tenant of `data`."""
    return add_tenant(data)


@pytest.fixture
def stranger(data: Repositories) -> Tenant:
    """Another tenant of `data`."""
    return add_tenant(data)
