"""Concurrent changes: none undoes what another has ended.

An uncommitted change holds a row; ours starts, waits for it, and must then see what it committed.
SQLite has one writer at a time, so these tests run on the other database.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, text

from pixyproxy.core.exceptions import ApiKeyRevokedException, TenantNotFoundException
from pixyproxy.core.models.api_key import Rotation
from pixyproxy.core.models.principal import Role
from pixyproxy.core.models.tenant import Tenant, TenantChange, TenantStatus
from pixyproxy.core.models.user import UserChange, UserStatus
from pixyproxy.data.database import Database
from tests.service.private.identities import OPERATOR, Identity, grantor_of

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("backend", ["mysql"])]
Result = TypeVar("Result")
WAITING = """
    SELECT COUNT(*) FROM information_schema.processlist
     WHERE db = DATABASE() AND id <> CONNECTION_ID() AND info LIKE '%UPDATE %'
"""
"""Running updates in this test's database: none finishes while the row is locked."""


async def _wait_for(database: Database, statement: str, ours: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of ``ours``, which waited for a change that was committed meanwhile."""
    connection = await asyncio.to_thread(database.engine.connect)
    try:
        await asyncio.to_thread(connection.execute, text(statement))
        task = asyncio.create_task(ours)
        await _until_somebody_waits(database)
        await asyncio.to_thread(connection.commit)
        return await task
    finally:
        await asyncio.to_thread(connection.close)


async def _until_somebody_waits(database: Database) -> None:
    async with asyncio.timeout(20):
        while not await database.read(lambda data: _waiting(data.connection)):  # noqa: ASYNC110  (a lock has no event to wait for)
            await asyncio.sleep(0.05)


def _waiting(connection: Connection) -> bool:
    return bool(connection.execute(text(WAITING)).scalar_one())


async def test_role_change_does_not_reenable_a_user_disabled_meanwhile(identity: Identity, tenant: Tenant) -> None:
    user = await identity.create_user(tenant)
    change = identity.users.change_user(user.guid, UserChange(role=Role.VIEWER), grantor=grantor_of(tenant))
    changed = await _wait_for(identity.database, "UPDATE users SET status = 'disabled'", change)
    assert (changed.role, changed.status) == (Role.VIEWER, UserStatus.DISABLED)
    assert (await identity.users.list_users(tenant_id=tenant.id)).items == [changed]


async def test_role_change_does_not_restore_an_old_password(identity: Identity, tenant: Tenant) -> None:
    user = await identity.create_user(tenant)
    change = identity.users.change_user(user.guid, UserChange(role=Role.VIEWER), grantor=grantor_of(tenant))
    await _wait_for(identity.database, "UPDATE users SET password_hash = 'new'", change)
    stored = await identity.database.read(lambda data: data.users.get_own(user.guid, tenant_id=tenant.id))
    assert stored is not None
    assert stored.password_hash == SecretStr("new")


async def test_limit_change_does_not_lift_a_suspension(identity: Identity, tenant: Tenant) -> None:
    change = identity.tenants.change_tenant(tenant.guid, TenantChange(images_per_minute=7), actor=OPERATOR)
    await _wait_for(identity.database, "UPDATE tenants SET status = 'suspended'", change)
    found = await identity.tenants.require_tenant(tenant.guid)
    assert (found.status, found.images_per_minute) == (TenantStatus.SUSPENDED, 7)


async def test_change_does_not_restore_a_tenant_deleted_meanwhile(identity: Identity, tenant: Tenant) -> None:
    change = identity.tenants.change_tenant(tenant.guid, TenantChange(images_per_minute=7), actor=OPERATOR)
    with pytest.raises(TenantNotFoundException):
        await _wait_for(identity.database, "UPDATE tenants SET status = 'deleting'", change)
    assert await identity.tenants.list_tenants() == []


async def test_key_revoked_meanwhile_is_not_rotated(identity: Identity, tenant: Tenant) -> None:
    key = await identity.issue_key(tenant)
    rotation = identity.api_keys.rotate_key(key.detail.guid, Rotation(), grantor=grantor_of(tenant))
    with pytest.raises(ApiKeyRevokedException):
        await _wait_for(identity.database, "UPDATE api_keys SET revoked_at = '2026-01-01 00:00:00'", rotation)
