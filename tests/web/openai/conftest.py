"""The SDK in both of its forms, with a tenant's key."""

from collections.abc import Iterator

import pytest

from tests.support.server import RunningServer, TenantClient
from tests.web.openai.sdk import FORMS, Sdk, connected


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Which of the SDK's clients."""
    return str(request.param)


@pytest.fixture
def sdk(form: str, server: RunningServer, tenant: TenantClient) -> Iterator[Sdk]:
    """The SDK with its defaults and the tenant's key; what it asks reaches ``upstream``."""
    with connected(server.url, tenant.api_key, form=form) as sdk:
        yield sdk
