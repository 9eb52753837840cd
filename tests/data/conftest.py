"""Tenants shared by the repository tests."""

import pytest

from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Repositories
from tests.support.builders import add_tenant


@pytest.fixture
def tenant(data: Repositories) -> Tenant:
    """Add a tenant to ``data``."""
    return add_tenant(data)


@pytest.fixture
def stranger(data: Repositories) -> Tenant:
    """Add another tenant to ``data``."""
    return add_tenant(data)
