"""What tests of the HTTP layer make again and again, through HTTP."""

from typing import Any

from pixyproxy.core.models.principal import Scope
from tests.support.server import RunningServer, TenantClient

ABSENT_GUID = "00000000-0000-4000-8000-000000000000"


def make_image(tenant: TenantClient, prompt: str = "a red fox", **options: object) -> dict[str, Any]:
    """The ImageDetail of a picture that the tenant has just made."""
    made = tenant.http.post("/image", json={"prompt": prompt, **options})
    assert made.status_code == 201, made.text
    detail: dict[str, Any] = made.json()
    return detail


def tenant_with(server: RunningServer, name: str, *scopes: Scope) -> TenantClient:
    """A new tenant whose key carries these scopes alone."""
    return server.new_tenant(name, scopes=frozenset(scopes))
