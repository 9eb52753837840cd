"""Tenants: bootstrap, changes and suspension."""

from decimal import Decimal

import pytest

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    DatabaseException,
    InvalidRequestException,
    OwnTenantException,
    TenantExistsException,
    TenantNotFoundException,
    TenantSuspendedException,
)
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import Actor, Scope, SubjectType
from pixyproxy.core.models.tenant import NewTenant, Tenant, TenantChange, TenantStatus, Visibility
from pixyproxy.service.private.identity.tenants import TenantService, tenant_detail
from tests.service.private.identities import OPERATOR, Identity, grantor_of
from tests.support.builders import new_guid

pytestmark = pytest.mark.anyio
SUSPEND = TenantChange(status=TenantStatus.SUSPENDED)


@pytest.fixture
def service(identity: Identity) -> TenantService:
    return identity.tenants


async def _create(service: TenantService, name: str = "Acme", **order: object) -> Tenant:
    return await service.create_tenant(NewTenant.model_validate({"name": name} | order), actor=OPERATOR)


def _operator_of(tenant: Tenant) -> Actor:
    return Actor(type=SubjectType.USER, subject=new_guid(), tenant_guid=tenant.guid)


async def test_tenant_is_found_by_name_and_guid(service: TenantService) -> None:
    tenant = await _create(service, default_visibility=Visibility.PUBLIC)
    assert tenant.default_visibility is Visibility.PUBLIC
    assert await service.require_tenant("Acme") == await service.require_tenant(tenant.guid) == tenant
    assert await service.list_tenants() == [tenant_detail(tenant)]


async def test_tenant_gets_the_default_visibility_of_the_server(service: TenantService) -> None:
    assert (await _create(service)).default_visibility is Visibility.PRIVATE


async def test_created_tenant_has_the_ordered_properties(service: TenantService) -> None:
    order = {
        "name": "naïve 🦊",
        "status": TenantStatus.SUSPENDED,
        "default_visibility": Visibility.PUBLIC,
        "images_per_minute": 7,
        "monthly_budget_usd": Decimal("12.345678"),
        "allowed_models": frozenset({"m", "n"}),
    }
    tenant = await service.create_tenant(NewTenant.model_validate(order), actor=OPERATOR)
    assert tenant.model_dump(include=set(order)) == order
    assert await service.require_tenant(tenant.guid) == tenant


async def test_duplicate_name_is_rejected(service: TenantService) -> None:
    await _create(service)
    with pytest.raises(TenantExistsException):
        await _create(service)
    assert len(await service.list_tenants()) == 1


async def test_change_to_a_duplicate_name_is_rejected(service: TenantService) -> None:
    first, second = await _create(service, "first"), await _create(service, "second")
    with pytest.raises(TenantExistsException):
        await service.change_tenant(second.guid, TenantChange(name="first"), actor=OPERATOR)
    assert await service.list_tenants() == [tenant_detail(first), tenant_detail(second)]


async def test_unknown_tenant_is_rejected(service: TenantService) -> None:
    with pytest.raises(TenantNotFoundException):
        await service.require_tenant("nobody")
    with pytest.raises(TenantNotFoundException):
        await service.change_tenant(new_guid(), SUSPEND, actor=OPERATOR)
    with pytest.raises(TenantNotFoundException):
        await service.delete_tenant(new_guid(), actor=OPERATOR)


async def test_change_sets_only_the_given_fields(service: TenantService) -> None:
    tenant, other = await _create(service, images_per_minute=7), await _create(service, "other")
    change = TenantChange(name="Bcme", allowed_models=frozenset({"m"}))
    changed = await service.change_tenant(tenant.guid, change, actor=OPERATOR)
    assert changed == tenant.model_copy(update={"name": "Bcme", "allowed_models": frozenset({"m"})})
    assert await service.list_tenants() == [tenant_detail(changed), tenant_detail(other)]


async def test_null_removes_a_limit(service: TenantService) -> None:
    tenant = await _create(service, images_per_minute=7, monthly_budget_usd=1, allowed_models=["m"])
    change = TenantChange(images_per_minute=None, monthly_budget_usd=None, allowed_models=None)
    changed = await service.change_tenant(tenant.guid, change, actor=OPERATOR)
    assert (changed.images_per_minute, changed.monthly_budget_usd, changed.allowed_models) == (None, None, None)
    assert changed.name == tenant.name


async def test_invalid_change_is_rejected(service: TenantService) -> None:
    tenant = await _create(service)
    for values in ({"name": ""}, {"name": "a\nb"}, {"status": TenantStatus.DELETING}, {"images_per_minute": 0}):
        change = TenantChange.model_construct(_fields_set=set(values), **values)
        with pytest.raises(InvalidRequestException):
            await service.change_tenant(tenant.guid, change, actor=OPERATOR)
    assert await service.list_tenants() == [tenant_detail(tenant)]


async def test_change_takes_effect_immediately(identity: Identity, service: TenantService) -> None:
    tenant = await _create(service)
    key = await identity.issue_key(tenant)
    assert await identity.principal(key.api_key)
    await service.change_tenant(tenant.guid, TenantChange(images_per_minute=3), actor=OPERATOR)
    assert identity.recognized.get(key.api_key) is None
    assert (await identity.principal(key.api_key)).tenant_images_per_minute == 3


async def test_credentials_are_rejected_while_the_tenant_is_suspended(
    identity: Identity, service: TenantService
) -> None:
    tenant = await _create(service)
    key = await identity.issue_key(tenant)
    assert await identity.principal(key.api_key)
    await service.change_tenant(tenant.guid, SUSPEND, actor=OPERATOR)
    assert identity.recognized.get(key.api_key) is None
    with pytest.raises(TenantSuspendedException):
        await identity.principal(key.api_key)
    await service.change_tenant(tenant.guid, TenantChange(status=TenantStatus.ACTIVE), actor=OPERATOR)
    assert await identity.principal(key.api_key)


async def test_own_tenant_cannot_be_suspended_or_deleted(service: TenantService) -> None:
    tenant = await _create(service)
    own = _operator_of(tenant)
    with pytest.raises(OwnTenantException):
        await service.change_tenant(tenant.guid, SUSPEND, actor=own)
    with pytest.raises(OwnTenantException):
        await service.delete_tenant(tenant.guid, actor=own)
    assert await service.list_tenants() == [tenant_detail(tenant)]


async def test_own_tenant_can_be_changed_otherwise(service: TenantService) -> None:
    tenant = await _create(service)
    change = TenantChange(name="Bcme", status=TenantStatus.ACTIVE)
    assert (await service.change_tenant(tenant.guid, change, actor=_operator_of(tenant))).name == "Bcme"


async def test_each_action_has_one_audit_entry(identity: Identity, service: TenantService) -> None:
    actor = Actor(type=SubjectType.USER, subject=new_guid())
    tenant = await service.create_tenant(NewTenant(name="Acme"), actor=actor)
    await service.change_tenant(tenant.guid, TenantChange(name="Bcme", images_per_minute=None), actor=actor)
    await service.delete_tenant(tenant.guid, actor=actor)
    entries = await identity.entries()
    assert [(entry.action, entry.details) for entry in entries[::-1]] == [
        (AuditAction.TENANT_CREATED, {"name": "Acme"}),
        (AuditAction.TENANT_CHANGED, {"name": "Bcme", "images_per_minute": "None"}),
        (AuditAction.TENANT_DELETED, {"name": "Bcme"}),
    ]
    for entry in entries:
        assert (entry.actor, entry.tenant_guid, entry.target) == (actor.subject, tenant.guid, tenant.guid)


async def test_change_without_audit_entry_is_rolled_back(identity: Identity, service: TenantService) -> None:
    tenant = await _create(service)
    await identity.break_audit_log()
    for attempt in (
        _create(service, "another"),
        service.change_tenant(tenant.guid, SUSPEND, actor=OPERATOR),
        service.delete_tenant(tenant.guid, actor=OPERATOR),
        service.bootstrap(actor=OPERATOR),
    ):
        with pytest.raises(DatabaseException):
            await attempt
    assert await service.list_tenants() == [tenant_detail(tenant)]
    assert await identity.count("api_keys") == 0


async def test_bootstrap_creates_tenant_and_administrator_key_once(identity: Identity, service: TenantService) -> None:
    tenant, issued = await service.bootstrap(actor=OPERATOR)
    assert issued is not None
    principal = await identity.principal(issued.api_key)
    assert (principal.tenant_id, principal.scopes) == (tenant.id, frozenset(Scope))
    assert await service.bootstrap(actor=OPERATOR) == (tenant, None)
    actions = [entry.action for entry in await identity.entries()]
    assert actions == [AuditAction.KEY_ISSUED, AuditAction.TENANT_CREATED]


async def test_bootstrap_creates_another_administrator_key_if_none_is_active(
    identity: Identity, service: TenantService
) -> None:
    tenant, first = await service.bootstrap(actor=OPERATOR)
    assert first is not None
    await identity.api_keys.revoke_key(first.detail.guid, grantor=grantor_of(tenant))
    again, second = await service.bootstrap(actor=OPERATOR)
    assert again == tenant
    assert second is not None
    assert second.detail.created_at <= clock.now()
    assert second.detail.guid != first.detail.guid


@pytest.mark.parametrize("status", [TenantStatus.SUSPENDED, TenantStatus.DELETING])
async def test_bootstrap_issues_no_key_for_an_inactive_tenant(
    identity: Identity, tenant: Tenant, status: TenantStatus
) -> None:
    idle = tenant.model_copy(update={"status": status})
    await identity.database.write(lambda data: data.tenants.update(idle))
    made, issued = await identity.tenants.bootstrap(actor=OPERATOR)
    assert made.id != tenant.id
    assert issued is not None
    assert await identity.principal(issued.api_key)


async def test_bootstrap_ignores_administrator_keys_of_inactive_tenants(
    identity: Identity, tenant: Tenant, stranger: Tenant
) -> None:
    _, first = await identity.tenants.bootstrap(actor=OPERATOR)
    assert first is not None
    await identity.tenants.change_tenant(tenant.guid, SUSPEND, actor=OPERATOR)
    owner, second = await identity.tenants.bootstrap(actor=OPERATOR)
    assert owner == stranger
    assert second is not None
    assert await identity.principal(second.api_key)
