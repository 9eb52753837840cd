"""Tenants, and the way in."""

import pytest

from pixyproxy.core import clock
from pixyproxy.core.exceptions import TenantExistsException, TenantNotFoundException
from pixyproxy.core.models.tenant import Scope, Visibility
from pixyproxy.data.database import Database
from pixyproxy.service.private.api_keys import ApiKeyService
from pixyproxy.service.private.tenants import TenantService

pytestmark = pytest.mark.anyio


@pytest.fixture
def service(database: Database) -> TenantService:
    return TenantService(database=database, default_visibility=Visibility.PRIVATE)


async def test_a_tenant_is_found_by_name_and_guid(service: TenantService) -> None:
    tenant = await service.create_tenant("Acme", default_visibility=Visibility.PUBLIC)
    assert tenant.default_visibility is Visibility.PUBLIC
    assert await service.require_tenant("Acme") == await service.require_tenant(tenant.guid) == tenant
    assert await service.list_tenants() == [tenant]


async def test_a_tenant_gets_the_servers_visibility(service: TenantService) -> None:
    assert (await service.create_tenant("Acme")).default_visibility is Visibility.PRIVATE


async def test_a_name_is_taken_once(service: TenantService) -> None:
    await service.create_tenant("Acme")
    with pytest.raises(TenantExistsException):
        await service.create_tenant("Acme")
    assert len(await service.list_tenants()) == 1


async def test_an_absent_tenant_is_told(service: TenantService) -> None:
    with pytest.raises(TenantNotFoundException):
        await service.require_tenant("nobody")


async def test_bootstrap_makes_the_first_tenant_and_an_administrator_once(
    service: TenantService, database: Database
) -> None:
    tenant, issued = await service.bootstrap()
    assert issued is not None
    principal = await ApiKeyService(database).authenticate(issued.api_key)
    assert (principal.tenant_id, principal.scopes) == (tenant.id, frozenset(Scope))
    assert await service.bootstrap() == (tenant, None)


async def test_bootstrap_makes_another_administrator_when_none_is_left(
    service: TenantService, database: Database
) -> None:
    tenant, first = await service.bootstrap()
    assert first is not None
    await ApiKeyService(database).revoke_key(first.detail.guid, tenant_id=tenant.id)
    again, second = await service.bootstrap()
    assert again == tenant
    assert second is not None
    assert second.detail.created_at <= clock.now()
    assert second.detail.guid != first.detail.guid
