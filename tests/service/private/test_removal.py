"""Removal of a tenant: everything it owns goes, nothing else does, and an interrupted removal is finished."""

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from pixyproxy.core.exceptions import (
    CredentialInvalidException,
    GenerationDeletedException,
    ImageStorageException,
    TenantNotFoundException,
)
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.generation import GenerationStatus, NewGeneration
from pixyproxy.core.models.image import ImageGuid, MediaType, StoredImage
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import NewTenant, Tenant
from pixyproxy.core.models.token import RevokedToken, TokenId
from pixyproxy.data.database import Repositories
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.private.identity.tenants import TenantService
from pixyproxy.service.private.removal import IMAGES_AT_ONCE
from tests.service.private.identities import OPERATOR, Identity
from tests.service.private.processes import Process
from tests.support.builders import (
    LATER,
    MOMENT,
    add_generation,
    add_image,
    find_picture,
    keep_picture,
    new_api_key,
    new_generation,
    new_guid,
    new_refresh_token,
    new_user,
    stored_outcome,
)
from tests.support.drawing import FakeDrawer
from tests.support.webhook_receiver import new_delivery, new_webhook

pytestmark = pytest.mark.anyio
TENANT_TABLES = (
    "images",
    "generations",
    "budgets",
    "webhook_deliveries",
    "webhooks",
    "api_keys",
    "users",
    "refresh_tokens",
    "revoked_tokens",
)


@dataclass(kw_only=True)
class _FailingStore(LocalStore):
    """A real store whose n-th deletion fails."""

    failing: int
    deleted: list[ImageGuid] = field(default_factory=list)

    async def delete(self, guid: ImageGuid, media_type: MediaType) -> None:
        self.deleted.append(guid)
        if len(self.deleted) == self.failing:
            raise ImageStorageException
        await super().delete(guid, media_type)


def _furnish(data: Repositories, tenant: Tenant) -> list[StoredImage]:
    """Give a tenant rows and files of every kind."""
    data.api_keys.insert(new_api_key(tenant.id))
    data.users.insert(new_user(tenant.id))
    data.refresh_tokens.insert(new_refresh_token(tenant.id))
    data.revoked_tokens.insert(
        RevokedToken(token_id=TokenId(new_guid()), tenant_id=tenant.id, expires_at=LATER, revoked_at=MOMENT)
    )
    for status in (GenerationStatus.FAILED, GenerationStatus.UNKNOWN):
        data.generations.claim(new_generation(tenant.id, status=status))
    data.budgets.reserve("2026-11", 1, tenant_id=tenant.id)
    data.webhooks.insert(webhook := new_webhook(tenant.id))
    data.webhook_deliveries.insert(new_delivery(webhook))
    images = [add_image(data, tenant) for _ in range(3)]
    for image in images:
        data.generations.settle(image.generation_id, stored_outcome(), tenant_id=tenant.id)
    return images


async def _furnished(identity: Identity, tenant: Tenant) -> list[StoredImage]:
    images = await identity.database.write(lambda data: _furnish(data, tenant))
    for image in images:
        await keep_picture(identity.removal.store, image.guid)
    return images


async def _owned(identity: Identity, tenant: Tenant) -> dict[str, int]:
    """Return the number of the tenant's rows by table."""

    def count(data: Repositories) -> dict[str, int]:
        run = data.connection.exec_driver_sql
        return {
            table: run(f"SELECT COUNT(*) FROM {table} WHERE tenant_id = {tenant.id}").scalar_one()
            for table in TENANT_TABLES
        }

    return await identity.database.read(count)


async def _files(identity: Identity, images: list[StoredImage]) -> int:
    return sum([find_picture(identity.removal.store, image.guid) is not None for image in images])


async def _exists(identity: Identity, tenant: Tenant) -> bool:
    """Return whether the tenant's row exists."""
    return await identity.database.read(lambda data: data.tenants.get_by_id(tenant.id)) is not None


def _with_store(identity: Identity, store: LocalStore) -> TenantService:
    return replace(identity.tenants, removal=replace(identity.tenants.removal, store=store))


async def test_tenant_is_removed_with_rows_and_files(identity: Identity, tenant: Tenant) -> None:
    images = await _furnished(identity, tenant)
    await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    assert await _owned(identity, tenant) == dict.fromkeys(TENANT_TABLES, 0)
    assert not await _exists(identity, tenant)
    assert await _files(identity, images) == 0


async def test_retained_answers_are_removed(identity: Identity, tenant: Tenant, stranger: Tenant) -> None:
    answers, guids = identity.removal.answers, {}
    for owner in (tenant, stranger):
        generation = new_generation(owner.id, status=GenerationStatus.UNKNOWN)
        await identity.database.write(partial(_claim, generation=generation))
        file = answers.begin(generation.guid)
        file.write(b"an answer")
        answers.commit(file, pictures=[])
        guids[owner.guid] = generation.guid
    await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    assert [kept.guid for kept in answers.list_all()] == [guids[stranger.guid]]


def _claim(data: Repositories, *, generation: NewGeneration) -> None:
    data.generations.claim(generation)


async def test_other_tenants_keep_everything(identity: Identity, tenant: Tenant, stranger: Tenant) -> None:
    await _furnished(identity, tenant)
    images = await _furnished(identity, stranger)
    before = await _owned(identity, stranger)
    await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    assert await _owned(identity, stranger) == before
    assert await _exists(identity, stranger)
    assert await _files(identity, images) == len(images)


async def test_audit_entries_of_the_tenant_stay(identity: Identity, tenant: Tenant) -> None:
    key = await identity.issue_key(tenant)
    before = await identity.entries()
    await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    deleted, *rest = await identity.entries()
    assert rest == before
    assert rest[0].target == key.detail.guid
    assert (deleted.action, deleted.target) == (AuditAction.TENANT_DELETED, tenant.guid)


async def test_more_pictures_than_one_step_are_removed(identity: Identity, tenant: Tenant) -> None:
    await identity.database.write(lambda data: _add_images(data, tenant, 2 * IMAGES_AT_ONCE + 1))
    await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    assert not await _exists(identity, tenant)


def _add_images(data: Repositories, tenant: Tenant, count: int) -> None:
    for _ in range(count):
        image = add_image(data, tenant)
        data.generations.settle(image.generation_id, stored_outcome(), tenant_id=tenant.id)


async def test_name_is_free_immediately(identity: Identity, tenant: Tenant) -> None:
    await identity.database.write(lambda data: add_generation(data, tenant.id))
    await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    assert await _exists(identity, tenant)
    successor = await identity.tenants.create_tenant(NewTenant(name=tenant.name), actor=OPERATOR)
    assert await identity.tenants.require_tenant(tenant.name) == successor
    assert [found.guid for found in await identity.tenants.list_tenants()] == [successor.guid]


async def test_tenant_being_removed_does_not_exist_for_anyone(identity: Identity, tenant: Tenant) -> None:
    key = await identity.issue_key(tenant)
    await identity.database.write(lambda data: add_generation(data, tenant.id))
    assert await identity.principal(key.api_key)
    await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    assert await _exists(identity, tenant)
    assert identity.recognized.get(key.api_key) is None
    with pytest.raises(CredentialInvalidException):
        await identity.principal(key.api_key)
    with pytest.raises(TenantNotFoundException):
        await identity.tenants.require_tenant(tenant.guid)
    with pytest.raises(TenantNotFoundException):
        await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    assert await identity.tenants.list_tenants() == []


@pytest.mark.parametrize("failing", [1, 3])
async def test_interrupted_removal_is_finished_later(
    identity: Identity, tenant: Tenant, store: LocalStore, failing: int
) -> None:
    images = await _furnished(identity, tenant)
    broken = _FailingStore(store.folder, room_bytes=1, failing=failing)
    await _with_store(identity, broken).delete_tenant(tenant.guid, actor=OPERATOR)
    assert await _exists(identity, tenant)
    assert await _files(identity, images) == len(images) - failing + 1
    await identity.removal.remove_all()
    assert await _files(identity, images) == 0
    assert await _owned(identity, tenant) == dict.fromkeys(TENANT_TABLES, 0)
    assert not await _exists(identity, tenant)


async def test_picture_file_left_by_a_failure_still_has_its_row(
    identity: Identity, tenant: Tenant, store: LocalStore
) -> None:
    """A crash never leaves a file without a row."""
    images = await _furnished(identity, tenant)
    broken = _FailingStore(store.folder, room_bytes=1, failing=2)
    await _with_store(identity, broken).delete_tenant(tenant.guid, actor=OPERATOR)
    known = await identity.database.read(lambda data: data.images.list_some(tenant_id=tenant.id, limit=9))
    remaining = [image for image in images if find_picture(store, image.guid) is not None]
    assert len(remaining) == len(images) - 1
    assert [image for image in remaining if image not in known] == []


async def test_concurrent_removals_remove_one_tenant(identity: Identity, tenant: Tenant, stranger: Tenant) -> None:
    images = await _furnished(identity, tenant)
    deleting = identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    await asyncio.gather(deleting, identity.removal.remove_all(), identity.removal.remove_all())
    await identity.removal.remove_all()
    assert not await _exists(identity, tenant)
    assert await _exists(identity, stranger)
    assert await _files(identity, images) == 0


async def test_removal_waits_for_a_calling_generation_and_removes_its_picture(
    identity: Identity, process: Process, principal: Principal, tenant: Tenant, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    caller = asyncio.create_task(process.make(principal=principal))
    await drawer.drawing.wait()
    await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    await identity.removal.remove_all()
    assert await _exists(identity, tenant)
    drawer.open_gate()
    made = await caller
    await process.finish()
    assert await _files(identity, list(made.images)) == 1
    await identity.removal.remove_all()
    assert await _files(identity, list(made.images)) == 0
    assert not await _exists(identity, tenant)


async def test_late_picture_of_a_removed_generation_is_not_stored(
    identity: Identity, process: Process, principal: Principal, tenant: Tenant, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    caller = asyncio.create_task(process.make(principal=principal))
    await drawer.drawing.wait()
    await identity.run("UPDATE generations SET status = 'unknown'")
    await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    assert not await _exists(identity, tenant)
    drawer.open_gate()
    with pytest.raises(GenerationDeletedException):
        await caller
    await process.finish()
    assert list(process.store.folder.rglob("*.png")) == []
    assert process.spooled == []


async def test_active_tenant_is_not_removed(identity: Identity, tenant: Tenant) -> None:
    images = await _furnished(identity, tenant)
    await identity.removal.remove_all()
    assert await _files(identity, images) == len(images)
    assert (await identity.tenants.require_tenant(tenant.guid)).guid == tenant.guid
