"""What the tests of repositories share: tenants."""

import pytest

from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Repositories
from tests.support.builders import add_tenant


@pytest.fixture
def tenant(data: Repositories) -> Tenant:
    """A tenant of `data`."""
    return add_tenant(data)


@pytest.fixture
def stranger(data: Repositories) -> Tenant:
    """Another tenant of `data`."""
    return add_tenant(data)
