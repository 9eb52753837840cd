"""Fixtures of the identity tests over HTTP."""

import uuid
from collections.abc import Iterator

import pytest

from tests.support.identity import EVERY_SCOPE
from tests.support.server import RunningServer, TenantClient


@pytest.fixture
def owner(server: RunningServer) -> Iterator[TenantClient]:
    """Yield a new tenant with an operator's key."""
    owner = server.new_tenant(f"owner {uuid.uuid4()}", scopes=EVERY_SCOPE)
    with owner.http:
        yield owner


@pytest.fixture
def stranger(server: RunningServer) -> Iterator[TenantClient]:
    """Another tenant, whose key has every scope except administration."""
    stranger = server.new_tenant(f"stranger {uuid.uuid4()}", scopes=EVERY_SCOPE - {"admin"})
    with stranger.http:
        yield stranger
