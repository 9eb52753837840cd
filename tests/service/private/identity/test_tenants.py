"""Tenants: the way in, and what being changed or suspended means."""

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


async def test_a_tenant_is_found_by_name_and_guid(service: TenantService) -> None:
    tenant = await _create(service, default_visibility=Visibility.PUBLIC)
    assert tenant.default_visibility is Visibility.PUBLIC
    assert await service.require_tenant("Acme") == await service.require_tenant(tenant.guid) == tenant
    assert await service.list_tenants() == [tenant_detail(tenant)]


async def test_a_tenant_gets_the_servers_visibility(service: TenantService) -> None:
    assert (await _create(service)).default_visibility is Visibility.PRIVATE


async def test_a_tenant_is_what_was_ordered(service: TenantService) -> None:
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


async def test_a_name_is_taken_once(service: TenantService) -> None:
    await _create(service)
    with pytest.raises(TenantExistsException):
        await _create(service)
    assert len(await service.list_tenants()) == 1


async def test_a_name_that_is_taken_is_not_changed_to(service: TenantService) -> None:
    first, second = await _create(service, "first"), await _create(service, "second")
    with pytest.raises(TenantExistsException):
        await service.change_tenant(second.guid, TenantChange(name="first"), actor=OPERATOR)
    assert await service.list_tenants() == [tenant_detail(first), tenant_detail(second)]


async def test_an_absent_tenant_is_told(service: TenantService) -> None:
    with pytest.raises(TenantNotFoundException):
        await service.require_tenant("nobody")
    with pytest.raises(TenantNotFoundException):
        await service.change_tenant(new_guid(), SUSPEND, actor=OPERATOR)
    with pytest.raises(TenantNotFoundException):
        await service.delete_tenant(new_guid(), actor=OPERATOR)


async def test_a_change_sets_what_it_names_and_leaves_the_rest(service: TenantService) -> None:
    tenant, other = await _create(service, images_per_minute=7), await _create(service, "other")
    change = TenantChange(name="Bcme", allowed_models=frozenset({"m"}))
    changed = await service.change_tenant(tenant.guid, change, actor=OPERATOR)
    assert changed == tenant.model_copy(update={"name": "Bcme", "allowed_models": frozenset({"m"})})
    assert await service.list_tenants() == [tenant_detail(changed), tenant_detail(other)]


async def test_null_takes_a_limit_away(service: TenantService) -> None:
    tenant = await _create(service, images_per_minute=7, monthly_budget_usd=1, allowed_models=["m"])
    change = TenantChange(images_per_minute=None, monthly_budget_usd=None, allowed_models=None)
    changed = await service.change_tenant(tenant.guid, change, actor=OPERATOR)
    assert (changed.images_per_minute, changed.monthly_budget_usd, changed.allowed_models) == (None, None, None)
    assert changed.name == tenant.name


async def test_a_change_that_is_not_valid_changes_nothing(service: TenantService) -> None:
    tenant = await _create(service)
    for values in ({"name": ""}, {"name": "a\nb"}, {"status": TenantStatus.DELETING}, {"images_per_minute": 0}):
        change = TenantChange.model_construct(_fields_set=set(values), **values)
        with pytest.raises(InvalidRequestException):
            await service.change_tenant(tenant.guid, change, actor=OPERATOR)
    assert await service.list_tenants() == [tenant_detail(tenant)]


async def test_a_change_counts_at_once(identity: Identity, service: TenantService) -> None:
    tenant = await _create(service)
    key = await identity.issue_key(tenant)
    assert await identity.principal(key.api_key)
    await service.change_tenant(tenant.guid, TenantChange(images_per_minute=3), actor=OPERATOR)
    assert identity.recognized.recall(key.api_key) is None
    assert (await identity.principal(key.api_key)).tenant_images_per_minute == 3


async def test_a_suspended_tenants_credentials_are_refused_until_it_is_active_again(
    identity: Identity, service: TenantService
) -> None:
    tenant = await _create(service)
    key = await identity.issue_key(tenant)
    assert await identity.principal(key.api_key)
    await service.change_tenant(tenant.guid, SUSPEND, actor=OPERATOR)
    assert identity.recognized.recall(key.api_key) is None
    with pytest.raises(TenantSuspendedException):
        await identity.principal(key.api_key)
    await service.change_tenant(tenant.guid, TenantChange(status=TenantStatus.ACTIVE), actor=OPERATOR)
    assert await identity.principal(key.api_key)


async def test_nobody_suspends_or_deletes_their_own_tenant(service: TenantService) -> None:
    tenant = await _create(service)
    own = _operator_of(tenant)
    with pytest.raises(OwnTenantException):
        await service.change_tenant(tenant.guid, SUSPEND, actor=own)
    with pytest.raises(OwnTenantException):
        await service.delete_tenant(tenant.guid, actor=own)
    assert await service.list_tenants() == [tenant_detail(tenant)]


async def test_anything_else_of_ones_own_tenant_may_be_changed(service: TenantService) -> None:
    tenant = await _create(service)
    change = TenantChange(name="Bcme", status=TenantStatus.ACTIVE)
    assert (await service.change_tenant(tenant.guid, change, actor=_operator_of(tenant))).name == "Bcme"


async def test_each_act_is_written_down_once_with_who_and_what(identity: Identity, service: TenantService) -> None:
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


async def test_what_cannot_be_written_down_is_not_done(identity: Identity, service: TenantService) -> None:
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


async def test_bootstrap_makes_the_first_tenant_and_an_administrator_once(
    identity: Identity, service: TenantService
) -> None:
    tenant, issued = await service.bootstrap(actor=OPERATOR)
    assert issued is not None
    principal = await identity.principal(issued.api_key)
    assert (principal.tenant_id, principal.scopes) == (tenant.id, frozenset(Scope))
    assert await service.bootstrap(actor=OPERATOR) == (tenant, None)
    actions = [entry.action for entry in await identity.entries()]
    assert actions == [AuditAction.KEY_ISSUED, AuditAction.TENANT_CREATED]


async def test_bootstrap_makes_another_administrator_when_none_is_left(
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
async def test_bootstrap_gives_no_key_of_a_tenant_that_may_not_act(
    identity: Identity, tenant: Tenant, status: TenantStatus
) -> None:
    idle = tenant.model_copy(update={"status": status})
    await identity.database.write(lambda data: data.tenants.update(idle))
    made, issued = await identity.tenants.bootstrap(actor=OPERATOR)
    assert made.id != tenant.id
    assert issued is not None
    assert await identity.principal(issued.api_key)


async def test_an_administrator_of_a_tenant_that_may_not_act_is_none(
    identity: Identity, tenant: Tenant, stranger: Tenant
) -> None:
    _, first = await identity.tenants.bootstrap(actor=OPERATOR)
    assert first is not None
    await identity.tenants.change_tenant(tenant.guid, SUSPEND, actor=OPERATOR)
    owner, second = await identity.tenants.bootstrap(actor=OPERATOR)
    assert owner == stranger
    assert second is not None
    assert await identity.principal(second.api_key)
