"""Revocation and introspection: who may revoke or inspect a token, and responses for all other tokens."""

import pytest
from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    CredentialInvalidException,
    DatabaseException,
    OAuthClientException,
    OAuthGrantException,
    TenantSuspendedException,
)
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import Principal, Role, Scope, SubjectType
from pixyproxy.core.models.tenant import Tenant, TenantStatus
from pixyproxy.core.models.token import IssuedTokens, TokenOrder
from pixyproxy.core.models.user import UserChange, UserDetail, UserStatus
from pixyproxy.service.private.identity.key_format import read_api_key, refresh_token_text
from pixyproxy.service.private.identity.oauth.clients import RefreshingClient
from pixyproxy.service.private.identity.oauth.token_status import INACTIVE
from tests.service.private.identities import ISSUER, Identity, grantor_of
from tests.support.builders import principal_of

pytestmark = pytest.mark.anyio
JUNK = [
    "",
    "x",
    "a.b.c",
    "pxr_x",
    "pxy_x",
    "🦊",
    "\ud800",
    "x" * 100_000,
    refresh_token_text("9" * 43).get_secret_value(),
]


@pytest.fixture
async def user(identity: Identity, tenant: Tenant) -> UserDetail:
    return await identity.create_user(tenant, username="bob@example.org")


def _caller(tenant: Tenant) -> Principal:
    """Return a principal of the tenant without any scope."""
    return principal_of(tenant).model_copy(update={"scopes": frozenset()})


async def _is_live(identity: Identity, issued: IssuedTokens) -> bool:
    try:
        await identity.principal(issued.access_token)
    except CredentialInvalidException:
        return False
    return True


async def _refreshes(identity: Identity, token: SecretStr) -> bool:
    try:
        await identity.tokens.refresh(token, scope=None, client=RefreshingClient())
    except OAuthGrantException:
        return False
    return True


async def test_revoked_access_token_is_invalid_immediately(identity: Identity, user: UserDetail) -> None:
    issued, _ = await identity.sign_in(user)
    assert await _is_live(identity, issued)
    await identity.token_status.revoke(issued.access_token, client=None)
    assert identity.recognized.get(issued.access_token) is None
    assert not await _is_live(identity, issued)


async def test_revoking_an_access_token_keeps_the_others_valid(identity: Identity, user: UserDetail) -> None:
    first, refresh_token = await identity.sign_in(user)
    second, _ = await identity.sign_in(user)
    await identity.token_status.revoke(first.access_token, client=None)
    assert await _is_live(identity, second)
    assert await _refreshes(identity, refresh_token)


async def test_revoking_a_refresh_token_ends_the_whole_sign_in(identity: Identity, user: UserDetail) -> None:
    first, token = await identity.sign_in(user)
    second = await identity.tokens.refresh(token, scope=None, client=RefreshingClient())
    other, other_token = await identity.sign_in(user)
    assert second.refresh_token is not None
    assert await _is_live(identity, second)
    await identity.token_status.revoke(second.refresh_token, client=None)
    assert identity.recognized.get(second.access_token) is None
    assert [await _is_live(identity, issued) for issued in (first, second, other)] == [False, False, True]
    assert not await _refreshes(identity, second.refresh_token)
    assert await _refreshes(identity, other_token)


async def test_client_revokes_tokens_of_its_tenant(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    for kind in ("access", "refresh"):
        issued, refresh_token = await identity.sign_in(user)
        token = issued.access_token if kind == "access" else refresh_token
        await identity.token_status.revoke(token, client=principal_of(tenant))
        assert not await _is_live(identity, issued)


async def test_client_of_another_tenant_revokes_nothing(identity: Identity, stranger: Tenant, user: UserDetail) -> None:
    issued, refresh_token = await identity.sign_in(user)
    for token in (issued.access_token, refresh_token):
        await identity.token_status.revoke(token, client=principal_of(stranger))
    assert await _is_live(identity, issued)
    assert await _refreshes(identity, refresh_token)
    assert await identity.entries(AuditAction.TOKEN_REVOKED) == []


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:20])
async def test_revoking_an_invalid_token_is_no_error(identity: Identity, tenant: Tenant, junk: str) -> None:
    for client in (None, principal_of(tenant)):
        await identity.token_status.revoke(SecretStr(junk), client=client)
    assert await identity.entries() == []


@pytest.mark.parametrize("kind", ["access", "refresh"])
async def test_revocation_has_one_audit_entry(identity: Identity, tenant: Tenant, user: UserDetail, kind: str) -> None:
    issued, refresh_token = await identity.sign_in(user)
    client = principal_of(tenant)
    for _ in range(2):
        await identity.token_status.revoke(issued.access_token if kind == "access" else refresh_token, client=client)
    (entry,) = await identity.entries(AuditAction.TOKEN_REVOKED)
    assert (entry.actor_type, entry.actor, entry.actor_tenant_guid) == (SubjectType.KEY, client.subject, tenant.guid)
    assert (entry.tenant_guid, entry.target) == (tenant.guid, user.guid)


async def test_revocation_by_a_bearer_is_audited_as_anonymous(identity: Identity, user: UserDetail) -> None:
    issued, _ = await identity.sign_in(user)
    await identity.token_status.revoke(issued.access_token, client=None)
    (entry,) = await identity.entries(AuditAction.TOKEN_REVOKED)
    assert (entry.actor_type, entry.actor_tenant_guid) == (SubjectType.ANONYMOUS, None)


async def test_revocation_without_audit_entry_is_rolled_back(identity: Identity, user: UserDetail) -> None:
    issued, refresh_token = await identity.sign_in(user)
    await identity.break_audit_log()
    for token in (issued.access_token, refresh_token):
        with pytest.raises(DatabaseException):
            await identity.token_status.revoke(token, client=None)
    assert await _is_live(identity, issued)
    assert await identity.count("revoked_tokens") == 0


async def test_introspection_describes_an_access_token_of_the_tenant(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    issued, _ = await identity.sign_in(user, scope="image:read", client_id="studio")
    told = await identity.token_status.introspect(issued.access_token, caller=_caller(tenant))
    token = await identity.access_tokens.read(issued.access_token)
    assert told.model_dump() == {
        "active": True,
        "scope": "image:read",
        "client_id": "studio",
        "username": "bob@example.org",
        "token_type": "Bearer",
        "exp": int(token.expires_at.timestamp()),
        "iat": int(token.issued_at.timestamp()),
        "sub": user.guid,
        "aud": ISSUER,
        "iss": ISSUER,
        "jti": token.token_id,
        "tenant": tenant.guid,
    }


async def test_introspection_describes_a_refresh_token_of_the_tenant(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    _, refresh_token = await identity.sign_in(user, scope="image:read", client_id="studio")
    told = await identity.token_status.introspect(refresh_token, caller=_caller(tenant))
    assert (told.active, told.scope, told.client_id, told.sub) == (True, "image:read", "studio", user.guid)
    assert (told.username, told.tenant, told.iss) == ("bob@example.org", tenant.guid, ISSUER)
    assert told.exp is not None
    assert told.exp > clock.now().timestamp()
    assert (told.token_type, told.jti) == (None, None)


async def test_introspected_token_of_a_key_has_no_username(identity: Identity, tenant: Tenant) -> None:
    key = await identity.issue_key(tenant, Scope.IMAGE_READ)
    issued = await identity.tokens.issue_to_client(read_api_key(key.api_key), scope=None)
    told = await identity.token_status.introspect(issued.access_token, caller=_caller(tenant))
    assert (told.active, told.sub, told.client_id) == (True, key.detail.guid, key.detail.key_id)
    assert told.username is None


@pytest.mark.parametrize("kind", ["access", "refresh"])
async def test_tokens_of_another_tenant_are_inactive_except_for_operators(
    identity: Identity, tenant: Tenant, stranger: Tenant, user: UserDetail, kind: str
) -> None:
    issued, refresh_token = await identity.sign_in(user)
    token = issued.access_token if kind == "access" else refresh_token
    every_scope_but_admin = principal_of(stranger).model_copy(update={"scopes": frozenset(Scope) - {Scope.ADMIN}})
    assert await identity.token_status.introspect(token, caller=every_scope_but_admin) == INACTIVE
    told = await identity.token_status.introspect(token, caller=principal_of(stranger))
    assert (told.active, told.tenant) == (True, tenant.guid)


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:20])
async def test_invalid_token_is_inactive(identity: Identity, tenant: Tenant, junk: str) -> None:
    assert await identity.token_status.introspect(SecretStr(junk), caller=principal_of(tenant)) == INACTIVE
    assert INACTIVE.model_dump(exclude_none=True) == {"active": False}


async def test_api_key_is_inactive_as_a_token(identity: Identity, tenant: Tenant) -> None:
    key = await identity.issue_key(tenant)
    assert await identity.token_status.introspect(key.api_key, caller=principal_of(tenant)) == INACTIVE


@pytest.mark.parametrize("end", ["revoked", "expired", "disabled", "suspended"])
async def test_no_longer_valid_token_is_inactive(
    identity: Identity, tenant: Tenant, user: UserDetail, end: str
) -> None:
    issued, refresh_token = await identity.sign_in(user)
    access_token = issued.access_token
    if end == "revoked":
        await identity.token_status.revoke(refresh_token, client=None)
    elif end == "expired":
        await identity.run("UPDATE refresh_tokens SET expires_at = '2026-01-01 00:00:00'")
        read = await identity.access_tokens.read(access_token)
        expired = read.model_copy(update={"expires_at": clock.now()})
        access_token = identity.access_tokens.sign(expired)
    elif end == "disabled":
        change = UserChange(status=UserStatus.DISABLED)
        await identity.users.change_user(user.guid, change, grantor=grantor_of(tenant))
        await identity.run("UPDATE refresh_tokens SET revoked_at = NULL")
    else:
        suspended = tenant.model_copy(update={"status": TenantStatus.SUSPENDED})
        await identity.database.write(lambda data: data.tenants.update(suspended))
    for token in (access_token, refresh_token):
        assert await identity.token_status.introspect(token, caller=principal_of(tenant)) == INACTIVE


async def test_used_refresh_token_is_inactive(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    _, refresh_token = await identity.sign_in(user)
    await identity.tokens.refresh(refresh_token, scope=None, client=RefreshingClient())
    assert await identity.token_status.introspect(refresh_token, caller=principal_of(tenant)) == INACTIVE


async def test_introspected_scope_is_limited_by_the_current_role(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    issued, refresh_token = await identity.sign_in(user)
    await identity.users.change_user(user.guid, UserChange(role=Role.VIEWER), grantor=grantor_of(tenant))
    for token in (issued.access_token, refresh_token):
        assert (await identity.token_status.introspect(token, caller=_caller(tenant))).scope == "image:read"


async def test_introspection_changes_nothing_and_is_not_audited(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    issued, refresh_token = await identity.sign_in(user)
    before = await identity.entries()
    for token in (issued.access_token, refresh_token):
        await identity.token_status.introspect(token, caller=principal_of(tenant))
    assert await identity.entries() == before
    assert await _refreshes(identity, refresh_token)


async def test_operator_issued_token_can_be_revoked(identity: Identity, tenant: Tenant) -> None:
    issued = await identity.tokens.issue_for_tenant(TokenOrder(tenant=tenant.guid), grantor=grantor_of(tenant))
    assert await _is_live(identity, issued)
    await identity.token_status.revoke(issued.access_token, client=None)
    assert not await _is_live(identity, issued)


async def test_client_is_recognized_by_its_key(identity: Identity, tenant: Tenant) -> None:
    key = await identity.issue_key(tenant, Scope.IMAGE_READ)
    client = await identity.token_status.recognize_client(read_api_key(key.api_key))
    assert client == await identity.principal(key.api_key)


async def test_unknown_or_suspended_client_is_rejected(identity: Identity, tenant: Tenant) -> None:
    key = await identity.issue_key(tenant)
    with pytest.raises(OAuthClientException):
        await identity.token_status.recognize_client(None)
    suspended = tenant.model_copy(update={"status": TenantStatus.SUSPENDED})
    await identity.database.write(lambda data: data.tenants.update(suspended))
    with pytest.raises(TenantSuspendedException):
        await identity.token_status.recognize_client(read_api_key(key.api_key))
