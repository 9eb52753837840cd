"""The SDK's two clients, with a tenant's key."""

from collections.abc import Iterator

import pytest

from tests.support.server import RunningServer, TenantClient
from tests.web.openai.sdk import FORMS, Sdk, connected


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Return which of the SDK's clients to use."""
    return str(request.param)


@pytest.fixture
def sdk(form: str, server: RunningServer, tenant: TenantClient) -> Iterator[Sdk]:
    """Yield the SDK with its defaults and the tenant's key; its requests reach ``upstream``."""
    with connected(server.url, tenant.api_key, form=form) as sdk:
        yield sdk
