"""Builders for tests of the HTTP layer, through HTTP."""

from dataclasses import replace
from typing import Any

from pixyproxy.core.models.api_key import NewApiKey
from pixyproxy.core.models.principal import Scope
from pixyproxy.service.composition import Services
from pixyproxy.service.private.identity.tenants import command_grantor
from tests.support.server import ACTOR, EVERY_IMAGE_SCOPE, RunningServer, TenantClient

ABSENT_GUID = "00000000-0000-4000-8000-000000000000"


def make_image(tenant: TenantClient, prompt: str = "a red fox", **options: object) -> dict[str, Any]:
    """Generate a picture for the tenant and return its ImageDetail."""
    made = tenant.http.post("/image", json={"prompt": prompt, **options})
    assert made.status_code == 201, made.text
    detail: dict[str, Any] = made.json()
    return detail


def tenant_with(server: RunningServer, name: str, *scopes: Scope) -> TenantClient:
    """Return a new tenant whose key has only these scopes."""
    return server.new_tenant(name, scopes=frozenset(scopes))


def second_key(server: RunningServer, tenant: TenantClient, *, images_per_minute: int | None = None) -> TenantClient:
    """Return the tenant with another key."""

    async def issue(services: Services) -> str:
        owner = await services.tenants.require_tenant(tenant.guid)
        order = NewApiKey(name="second", scopes=EVERY_IMAGE_SCOPE, images_per_minute=images_per_minute)
        issued = await services.api_keys.issue_key(order, grantor=command_grantor(owner, ACTOR))
        return issued.api_key.get_secret_value()

    api_key = server.call(issue)
    return replace(tenant, api_key=api_key, http=server.client(api_key))
