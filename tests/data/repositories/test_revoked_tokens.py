"""The ``revoked_tokens`` repository."""

import uuid
from datetime import timedelta

import pytest

from pixyproxy.core.models.tenant import Tenant
from pixyproxy.core.models.token import RevokedToken, TokenId
from pixyproxy.data.database import Repositories
from tests.support.builders import LATER, MOMENT

SECOND = timedelta(seconds=1)


def _add(data: Repositories, tenant: Tenant, **changes: object) -> RevokedToken:
    token = RevokedToken(token_id=TokenId(uuid.uuid4().hex), tenant_id=tenant.id, expires_at=LATER, revoked_at=MOMENT)
    token = token.model_copy(update=changes)
    data.revoked_tokens.insert(token)
    return token


@pytest.mark.parametrize("token_id", ["0123456789abcdef", "Az-_" * 16])
def test_every_column_round_trips(data: Repositories, tenant: Tenant, token_id: str) -> None:
    token = _add(data, tenant, token_id=token_id)
    assert data.revoked_tokens.find(token_id, tenant_id=tenant.id) == token


@pytest.mark.parametrize("other", ["", "ABC", "abc ", "ab_", "abc%", "äbc"])
def test_token_that_was_not_revoked_returns_none(data: Repositories, tenant: Tenant, other: str) -> None:
    _add(data, tenant, token_id="abc")
    assert data.revoked_tokens.find(other, tenant_id=tenant.id) is None


def test_another_tenants_revocation_is_not_found(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    token = _add(data, tenant)
    assert data.revoked_tokens.find(token.token_id, tenant_id=stranger.id) is None


def test_token_is_revoked_once(data: Repositories, tenant: Tenant) -> None:
    token = _add(data, tenant)
    assert data.revoked_tokens.insert(token) is False
    assert data.revoked_tokens.find(token.token_id, tenant_id=tenant.id) == token


def test_delete_expired_removes_expired_revocations_of_all_tenants(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    for owner in (tenant, stranger):
        expired = _add(data, owner, expires_at=LATER - SECOND)
        kept = _add(data, owner, expires_at=LATER)
        data.revoked_tokens.delete_expired(before=LATER)
        assert data.revoked_tokens.find(expired.token_id, tenant_id=owner.id) is None
        assert data.revoked_tokens.find(kept.token_id, tenant_id=owner.id) == kept


def test_delete_of_tenant_removes_only_its_revocations(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    own, others = _add(data, tenant), _add(data, stranger)
    data.revoked_tokens.delete_of_tenant(tenant_id=tenant.id)
    assert data.revoked_tokens.find(own.token_id, tenant_id=tenant.id) is None
    assert data.revoked_tokens.find(others.token_id, tenant_id=stranger.id) == others
