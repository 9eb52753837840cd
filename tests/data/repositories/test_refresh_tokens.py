"""The ``refresh_tokens`` repository."""

import asyncio
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.core.models.token import RefreshToken, SessionGuid
from pixyproxy.core.models.user import UserGuid
from pixyproxy.data.database import Database, Repositories
from tests.support.builders import LATER, MOMENT, add_tenant, new_guid, new_refresh_token
from tests.support.databases import TestDatabases, opened_database

SECOND = timedelta(seconds=1)
CALLERS = 8


def _add(data: Repositories, tenant: Tenant, **changes: object) -> RefreshToken:
    token = new_refresh_token(tenant.id, **changes)
    data.refresh_tokens.insert(token)
    return token


def _revoked(token: RefreshToken) -> RefreshToken:
    return token.model_copy(update={"revoked_at": LATER})


@pytest.mark.parametrize("scopes", [frozenset(Scope), frozenset({Scope.IMAGE_READ}), frozenset()])
def test_every_column_round_trips(data: Repositories, tenant: Tenant, scopes: frozenset[Scope]) -> None:
    times = {"used_at": LATER - SECOND, "revoked_at": LATER + SECOND}
    token = _add(data, tenant, client_id="c" * 255, scopes=scopes, **times)
    assert data.refresh_tokens.find(token.token_sha256) == token


def test_none_round_trips(data: Repositories, tenant: Tenant) -> None:
    token = _add(data, tenant, client_id=None, used_at=None, revoked_at=None)
    assert data.refresh_tokens.find(token.token_sha256) == token


@pytest.mark.parametrize("unknown", ["", "0" * 64, "%", "A" * 64])
def test_unknown_token_returns_none(data: Repositories, tenant: Tenant, unknown: str) -> None:
    _add(data, tenant, token_sha256="a" * 64)
    assert data.refresh_tokens.find(unknown) is None


def test_token_is_unique(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    token = _add(data, tenant)
    with pytest.raises(IntegrityError):
        _add(data, stranger, token_sha256=token.token_sha256)


def test_token_is_used_once(data: Repositories, tenant: Tenant) -> None:
    token, other = _add(data, tenant), _add(data, tenant)
    assert data.refresh_tokens.use(token.token_sha256, tenant_id=tenant.id, at=LATER)
    assert not data.refresh_tokens.use(token.token_sha256, tenant_id=tenant.id, at=LATER + SECOND)
    assert data.refresh_tokens.find(token.token_sha256) == token.model_copy(update={"used_at": LATER})
    assert data.refresh_tokens.find(other.token_sha256) == other


def test_revoked_token_cannot_be_used(data: Repositories, tenant: Tenant) -> None:
    token = _add(data, tenant, revoked_at=MOMENT)
    assert not data.refresh_tokens.use(token.token_sha256, tenant_id=tenant.id, at=LATER)
    assert data.refresh_tokens.find(token.token_sha256) == token


def test_another_tenant_cannot_use_a_token(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    token = _add(data, tenant)
    assert not data.refresh_tokens.use(token.token_sha256, tenant_id=stranger.id, at=LATER)
    assert not data.refresh_tokens.use("0" * 64, tenant_id=tenant.id, at=LATER)
    assert data.refresh_tokens.find(token.token_sha256) == token


@pytest.mark.anyio
async def test_exactly_one_of_many_concurrent_callers_uses_the_token(
    databases: TestDatabases, backend: str, database: Database, tmp_path: Path
) -> None:
    """Where concurrent, all read the token unused before the first one uses it."""
    tenant = await database.write(add_tenant)
    token = await database.write(lambda data: _add(data, tenant))
    readers_at_once = {"sqlite": 1, "mysql": CALLERS}[backend]
    all_have_read = Barrier(readers_at_once)
    seen: list[datetime | None] = []

    def use(number: int, data: Repositories) -> bool:
        found = data.refresh_tokens.find(token.token_sha256)
        assert found is not None
        all_have_read.wait(20)
        seen.append(found.used_at)
        at = LATER + number * SECOND
        return data.refresh_tokens.use(token.token_sha256, tenant_id=tenant.id, at=at)

    async with opened_database(databases.migrated(backend), tmp_path, pool_size=CALLERS) as wide:
        used = await asyncio.gather(*(wide.write(partial(use, number)) for number in range(CALLERS)))
    assert used.count(True) == 1
    assert seen.count(None) == readers_at_once
    found = await database.read(lambda data: data.refresh_tokens.find(token.token_sha256))
    assert found == token.model_copy(update={"used_at": LATER + used.index(True) * SECOND})


def test_revoking_a_session_revokes_only_its_tokens(data: Repositories, tenant: Tenant) -> None:
    session = SessionGuid(new_guid())
    used = _add(data, tenant, session_guid=session, used_at=MOMENT)
    current = _add(data, tenant, session_guid=session)
    other = _add(data, tenant, user_guid=current.user_guid)
    assert data.refresh_tokens.revoke_session(session, tenant_id=tenant.id, at=LATER)
    assert data.refresh_tokens.find(used.token_sha256) == _revoked(used)
    assert data.refresh_tokens.find(current.token_sha256) == _revoked(current)
    assert data.refresh_tokens.find(other.token_sha256) == other
    assert not data.refresh_tokens.use(current.token_sha256, tenant_id=tenant.id, at=LATER)


def test_earlier_revocation_is_kept(data: Repositories, tenant: Tenant) -> None:
    token = _add(data, tenant)
    assert data.refresh_tokens.revoke_session(token.session_guid, tenant_id=tenant.id, at=LATER)
    assert not data.refresh_tokens.revoke_session(token.session_guid, tenant_id=tenant.id, at=LATER + SECOND)
    assert data.refresh_tokens.find(token.token_sha256) == _revoked(token)


def test_another_tenant_cannot_revoke_a_session(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    token = _add(data, tenant)
    assert not data.refresh_tokens.revoke_session(token.session_guid, tenant_id=stranger.id, at=LATER)
    assert not data.refresh_tokens.revoke_session(SessionGuid(new_guid()), tenant_id=tenant.id, at=LATER)
    assert data.refresh_tokens.find(token.token_sha256) == token


def test_revoking_a_user_revokes_only_that_users_sessions(data: Repositories, tenant: Tenant) -> None:
    user = UserGuid(new_guid())
    own = [_add(data, tenant, user_guid=user) for _ in range(2)]
    other = _add(data, tenant)
    data.refresh_tokens.revoke_sessions_of_user(user, tenant_id=tenant.id, at=LATER)
    assert [data.refresh_tokens.find(token.token_sha256) for token in own] == [_revoked(token) for token in own]
    assert data.refresh_tokens.find(other.token_sha256) == other


def test_another_tenant_cannot_revoke_a_users_sessions(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    token = _add(data, tenant)
    data.refresh_tokens.revoke_sessions_of_user(token.user_guid, tenant_id=stranger.id, at=LATER)
    assert data.refresh_tokens.find(token.token_sha256) == token


def test_session_is_revoked_only_for_its_tenant(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    revoked, open_ = _add(data, tenant, revoked_at=LATER), _add(data, tenant)
    assert data.refresh_tokens.is_session_revoked(revoked.session_guid, tenant_id=tenant.id)
    assert not data.refresh_tokens.is_session_revoked(revoked.session_guid, tenant_id=stranger.id)
    assert not data.refresh_tokens.is_session_revoked(open_.session_guid, tenant_id=tenant.id)
    assert not data.refresh_tokens.is_session_revoked(new_guid(), tenant_id=tenant.id)


def test_delete_expired_removes_expired_tokens_of_all_tenants(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    expired = [_add(data, owner, expires_at=LATER - SECOND) for owner in (tenant, stranger)]
    kept = [_add(data, owner, expires_at=LATER) for owner in (tenant, stranger)]
    data.refresh_tokens.delete_expired(before=LATER)
    assert [data.refresh_tokens.find(token.token_sha256) for token in expired] == [None, None]
    assert [data.refresh_tokens.find(token.token_sha256) for token in kept] == kept


def test_delete_of_tenant_removes_only_its_tokens(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    own, others = _add(data, tenant), _add(data, stranger)
    data.refresh_tokens.delete_of_tenant(tenant_id=tenant.id)
    assert data.refresh_tokens.find(own.token_sha256) is None
    assert data.refresh_tokens.find(others.token_sha256) == others
