"""Tokens: each grant, its limits, and what invalidates it."""

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from passlib.context import CryptContext
from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    CredentialInvalidException,
    DatabaseException,
    GrantException,
    InvalidRequestException,
    OAuthClientException,
    OAuthException,
    OAuthGrantException,
    OAuthScopeException,
    OAuthUnauthorizedException,
    TenantNotFoundException,
    TenantSuspendedException,
)
from pixyproxy.core.fair_slots import FairSlots
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import Actor, Role, Scope, Subject, SubjectType
from pixyproxy.core.models.tenant import Tenant, TenantGuid, TenantStatus
from pixyproxy.core.models.token import IssuedTokens, TokenOrder
from pixyproxy.core.models.user import UserChange, UserDetail, UserStatus
from pixyproxy.service.private.identity.key_format import read_api_key, read_client
from pixyproxy.service.private.identity.oauth.clients import RefreshingClient
from pixyproxy.service.private.identity.oauth.token_status import INACTIVE
from pixyproxy.service.private.identity.oauth.tokens import FIRST_PARTY
from pixyproxy.service.private.identity.passwords import PasswordHasher
from tests.service.private.identities import CHEAP, OPERATOR, PASSWORD, Identity, grantor_of
from tests.support.api_keys import secret_of
from tests.support.builders import new_guid, principal_of

pytestmark = pytest.mark.anyio
MEMBER = Role.MEMBER.scopes


@pytest.fixture
async def user(identity: Identity, tenant: Tenant) -> UserDetail:
    return await identity.create_user(tenant, username="bob@example.org")


async def _refresh(
    identity: Identity, token: SecretStr, *, scope: str | None = None, client_id: str | None = None
) -> tuple[IssuedTokens, SecretStr]:
    issued = await identity.tokens.refresh(token, scope=scope, client=RefreshingClient(client_id))
    assert issued.refresh_token is not None
    return issued, issued.refresh_token


async def test_client_with_a_secret_must_authenticate_to_refresh(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    key = await identity.issue_key(tenant)
    issued = await identity.tokens.sign_in(
        user.username, PASSWORD, scope=None, client_id=key.detail.key_id, client=principal_of(tenant)
    )
    assert issued.refresh_token is not None
    for client in (RefreshingClient(), RefreshingClient(key.detail.key_id)):
        with pytest.raises(OAuthGrantException):
            await identity.tokens.refresh(issued.refresh_token, scope=None, client=client)
    shown = RefreshingClient(key.detail.key_id, is_authenticated=True)
    assert await identity.tokens.refresh(issued.refresh_token, scope=None, client=shown)


async def test_sign_in_with_a_key_id_requires_its_secret(
    identity: Identity, tenant: Tenant, stranger: Tenant, user: UserDetail
) -> None:
    key = await identity.issue_key(tenant)
    for client in (None, principal_of(stranger)):
        with pytest.raises(OAuthClientException):
            await identity.tokens.sign_in(
                user.username, PASSWORD, scope=None, client_id=key.detail.key_id, client=client
            )


async def test_operator_issued_token_cannot_issue_tokens(identity: Identity, tenant: Tenant) -> None:
    ordered = Actor(type=SubjectType.TOKEN, subject=new_guid(), tenant_guid=tenant.guid)
    with pytest.raises(GrantException):
        await identity.tokens.issue_for_tenant(
            TokenOrder(tenant=tenant.guid), grantor=grantor_of(tenant, actor=ordered)
        )


async def _assert_not_refreshed(identity: Identity, token: SecretStr) -> None:
    with pytest.raises(OAuthGrantException):
        await _refresh(identity, token)


async def _is_dead(identity: Identity, issued: IssuedTokens) -> None:
    with pytest.raises(CredentialInvalidException):
        await identity.principal(issued.access_token)


async def _set_status(identity: Identity, tenant: Tenant, status: TenantStatus) -> None:
    await identity.database.write(lambda data: data.tenants.update(tenant.model_copy(update={"status": status})))


async def _change(identity: Identity, tenant: Tenant, user: UserDetail, change: UserChange) -> None:
    await identity.users.change_user(user.guid, change, grantor=grantor_of(tenant))


async def test_password_grant_gives_the_scopes_of_the_role(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    issued, _ = await identity.sign_in(user)
    principal = await identity.principal(issued.access_token)
    assert (principal.tenant_id, principal.subject_type) == (tenant.id, SubjectType.USER)
    assert principal.subject == Subject(user.guid)
    assert principal.scopes == issued.scopes == MEMBER
    assert issued.expires_in == 900


async def test_sign_in_time_is_recorded(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    before = clock.now()
    await identity.sign_in(user)
    (noted,) = (await identity.users.list_users(tenant_id=tenant.id)).items
    assert noted.last_sign_in_at is not None
    assert before <= noted.last_sign_in_at <= clock.now()


async def test_user_name_is_case_insensitive(identity: Identity, user: UserDetail) -> None:
    issued = await identity.tokens.sign_in(user.username.upper(), PASSWORD, scope=None, client_id=None)
    assert (await identity.principal(issued.access_token)).subject == Subject(user.guid)


@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        (None, MEMBER),
        ("", MEMBER),
        ("  ", MEMBER),
        ("image:read", {Scope.IMAGE_READ}),
        (" image:manage  image:read image:read", {Scope.IMAGE_READ, Scope.IMAGE_MANAGE}),
    ],
)
async def test_requested_scope_narrows_the_grant(
    identity: Identity, user: UserDetail, scope: str | None, granted: frozenset[Scope]
) -> None:
    issued, _ = await identity.sign_in(user, scope=scope)
    assert (await identity.principal(issued.access_token)).scopes == issued.scopes == granted


@pytest.mark.parametrize("scope", ["admin", "image:read admin", "image:write", "IMAGE:READ", "image:read,admin", "\0"])
async def test_scope_beyond_the_role_is_rejected_by_every_grant(
    identity: Identity, tenant: Tenant, user: UserDetail, scope: str
) -> None:
    key = await identity.issue_key(tenant, *MEMBER)
    _, refresh_token = await identity.sign_in(user)
    with pytest.raises(OAuthScopeException):
        await identity.sign_in(user, scope=scope)
    with pytest.raises(OAuthScopeException):
        await identity.tokens.issue_to_client(read_api_key(key.api_key), scope=scope)
    with pytest.raises(OAuthScopeException):
        await _refresh(identity, refresh_token, scope=scope)
    assert await _refresh(identity, refresh_token)


async def test_wrong_name_and_wrong_password_give_the_same_error(identity: Identity, user: UserDetail) -> None:
    told = set()
    for username, password in ((user.username, "wrong password"), ("nobody", PASSWORD.get_secret_value()), ("\0", "")):
        with pytest.raises(OAuthGrantException) as caught:
            await identity.tokens.sign_in(username, SecretStr(password), scope=None, client_id=None)
        told.add((type(caught.value), str(caught.value), str(caught.value.context)))
    assert len(told) == 1
    assert await identity.count("refresh_tokens") == 0


async def test_failed_sign_in_is_audited_without_an_unknown_name(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    for username in (user.username, "hunter2"):
        with pytest.raises(OAuthGrantException):
            await identity.tokens.sign_in(username, SecretStr("wrong password"), scope=None, client_id=None)
    unknown, known = await identity.entries(AuditAction.SIGN_IN_FAILED)
    assert (known.target, known.tenant_guid, known.actor_type) == (user.guid, tenant.guid, SubjectType.ANONYMOUS)
    assert (unknown.target, unknown.tenant_guid) == (None, None)
    assert "hunter2" not in repr((unknown, known))
    assert "wrong password" not in repr((unknown, known))


async def test_password_sign_in_can_be_disabled(identity: Identity, user: UserDetail) -> None:
    _, refresh_token = await identity.sign_in(user)
    service = replace(identity.tokens, password_sign_in=False)
    with pytest.raises(OAuthUnauthorizedException):
        await service.sign_in(user.username, PASSWORD, scope=None, client_id=None)
    assert await service.refresh(refresh_token, scope=None, client=RefreshingClient())


async def test_disabled_user_cannot_sign_in(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    await _change(identity, tenant, user, UserChange(status=UserStatus.DISABLED))
    with pytest.raises(OAuthGrantException):
        await identity.sign_in(user)


@dataclass
class _SlowContext(CryptContext):
    """Verifies when its gate opens; the password hash was read before."""

    asked: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)

    def verify(self, secret: str, hash: str, **_: object) -> bool:  # type: ignore[override]  # noqa: A002  (the library's names; this takes fewer arguments)
        self.asked.set()
        assert self.gate.wait(20)
        return CHEAP.verify(secret, hash)

    def dummy_verify(self, elapsed: int = 0) -> bool:  # noqa: ARG002  (the library's)
        """Return immediately."""
        return False


@pytest.mark.parametrize(
    "change",
    [UserChange(password=SecretStr("another password")), UserChange(status=UserStatus.DISABLED), None],
    ids=["password", "status", "deleted"],
)
async def test_user_changed_during_the_password_check_is_not_signed_in(
    identity: Identity, tenant: Tenant, user: UserDetail, change: UserChange | None
) -> None:
    context = _SlowContext()
    slow = replace(identity.tokens, passwords=PasswordHasher(FairSlots(1, wait_seconds=20), context=context))
    signing_in = asyncio.create_task(slow.sign_in(user.username, PASSWORD, scope=None, client_id=None))
    try:
        assert await asyncio.to_thread(context.asked.wait, 20)
        if change is None:
            await identity.users.delete_user(user.guid, grantor=grantor_of(tenant))
        else:
            await _change(identity, tenant, user, change)
    finally:
        context.gate.set()
    with pytest.raises(OAuthGrantException):
        await signing_in
    assert await identity.count("refresh_tokens") == 0


async def test_client_credentials_give_no_refresh_token(identity: Identity, tenant: Tenant) -> None:
    key = await identity.issue_key(tenant, *MEMBER, images_per_minute=7, allowed_models=frozenset({"m"}))
    issued = await identity.tokens.issue_to_client(read_api_key(key.api_key), scope="image:read")
    principal = await identity.principal(issued.access_token)
    assert issued.refresh_token is None
    assert (principal.subject, principal.subject_type) == (Subject(key.detail.guid), SubjectType.KEY)
    assert principal.scopes == issued.scopes == {Scope.IMAGE_READ}
    assert (principal.key_images_per_minute, principal.allowed_models) == (7, frozenset({"m"}))


@pytest.mark.parametrize("form", ["whole", "part"])
async def test_client_secret_is_the_whole_key_or_the_part_after_the_id(
    identity: Identity, tenant: Tenant, form: str
) -> None:
    key = await identity.issue_key(tenant)
    text = key.api_key.get_secret_value()
    secret = SecretStr(text if form == "whole" else secret_of(text))
    issued = await identity.tokens.issue_to_client(read_client(key.detail.key_id, secret), scope=None)
    assert (await identity.principal(issued.access_token)).scopes == frozenset(Scope)


@pytest.mark.parametrize("wrong", ["no key", "another's secret", "revoked", "expired"])
async def test_unknown_client_is_rejected(identity: Identity, tenant: Tenant, wrong: str) -> None:
    key, other = await identity.issue_key(tenant), await identity.issue_key(tenant)
    presented = read_api_key(key.api_key)
    assert presented is not None
    if wrong == "no key":
        presented = None
    elif wrong == "another's secret":
        presented = replace(presented, key_id=other.detail.key_id)
    elif wrong == "revoked":
        await identity.api_keys.revoke_key(key.detail.guid, grantor=grantor_of(tenant))
    else:
        await identity.run("UPDATE api_keys SET expires_at = '2026-01-01 00:00:00'")
    with pytest.raises(OAuthClientException):
        await identity.tokens.issue_to_client(presented, scope=None)
    assert await identity.entries(AuditAction.TOKEN_ISSUED) == []


async def test_revoking_a_key_invalidates_its_tokens(identity: Identity, tenant: Tenant) -> None:
    key = await identity.issue_key(tenant)
    issued = await identity.tokens.issue_to_client(read_api_key(key.api_key), scope=None)
    assert await identity.principal(issued.access_token)
    await identity.api_keys.revoke_key(key.detail.guid, grantor=grantor_of(tenant))
    assert identity.recognized.get(issued.access_token) is None
    await _is_dead(identity, issued)


async def test_refresh_gives_new_tokens_of_the_same_sign_in(identity: Identity, user: UserDetail) -> None:
    first, refresh_token = await identity.sign_in(user)
    second, successor = await _refresh(identity, refresh_token)
    assert successor.get_secret_value() != refresh_token.get_secret_value()
    before, after = [await identity.access_tokens.read(issued.access_token) for issued in (first, second)]
    assert (after.subject, after.session, after.scopes) == (before.subject, before.session, before.scopes)
    assert after.token_id != before.token_id
    assert await identity.principal(first.access_token) == await identity.principal(second.access_token)


async def test_refresh_may_narrow_one_access_token_but_not_the_sign_in(identity: Identity, user: UserDetail) -> None:
    _, refresh_token = await identity.sign_in(user)
    narrow, successor = await _refresh(identity, refresh_token, scope="image:read")
    wide, _ = await _refresh(identity, successor)
    assert narrow.scopes == {Scope.IMAGE_READ}
    assert wide.scopes == MEMBER


async def test_refresh_never_widens_the_granted_scopes(identity: Identity, user: UserDetail) -> None:
    _, refresh_token = await identity.sign_in(user, scope="image:read")
    with pytest.raises(OAuthScopeException):
        await _refresh(identity, refresh_token, scope="image:read image:manage")
    issued, _ = await _refresh(identity, refresh_token)
    assert issued.scopes == {Scope.IMAGE_READ}


async def test_reused_refresh_token_ends_the_whole_sign_in(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    first, stolen = await identity.sign_in(user)
    second, successor = await _refresh(identity, stolen)
    assert await identity.principal(second.access_token)
    await _assert_not_refreshed(identity, stolen)
    assert identity.recognized.get(second.access_token) is None
    await _assert_not_refreshed(identity, successor)
    await _is_dead(identity, first)
    await _is_dead(identity, second)
    (entry,) = await identity.entries(AuditAction.TOKEN_REUSED)
    assert (entry.target, entry.tenant_guid) == (user.guid, tenant.guid)


async def test_reused_refresh_token_keeps_other_sign_ins(identity: Identity, user: UserDetail) -> None:
    _, stolen = await identity.sign_in(user)
    other, other_token = await identity.sign_in(user)
    await _refresh(identity, stolen)
    await _assert_not_refreshed(identity, stolen)
    assert await identity.principal(other.access_token)
    assert await _refresh(identity, other_token)


async def test_one_of_twenty_concurrent_refreshes_succeeds_and_the_sign_in_ends(
    identity: Identity, user: UserDetail
) -> None:
    first, refresh_token = await identity.sign_in(user)
    ends = await asyncio.gather(*(_refresh(identity, refresh_token) for _ in range(20)), return_exceptions=True)
    assert Counter(map(type, ends)) == {tuple: 1, OAuthGrantException: 19}
    ((issued, successor),) = [end for end in ends if not isinstance(end, BaseException)]
    await _assert_not_refreshed(identity, successor)
    await _is_dead(identity, issued)
    await _is_dead(identity, first)
    assert len(await identity.entries(AuditAction.TOKEN_REUSED)) == 1


async def test_refresh_token_of_another_client_is_rejected(identity: Identity, user: UserDetail) -> None:
    _, refresh_token = await identity.sign_in(user, client_id="studio")
    with pytest.raises(OAuthGrantException):
        await _refresh(identity, refresh_token, client_id="another")
    assert await _refresh(identity, refresh_token, client_id="studio")


async def test_client_cannot_use_a_refresh_token_issued_without_a_client(identity: Identity, user: UserDetail) -> None:
    _, refresh_token = await identity.sign_in(user)
    with pytest.raises(OAuthGrantException):
        await _refresh(identity, refresh_token, client_id="studio")
    assert await _refresh(identity, refresh_token)


async def test_token_contains_its_client_id(identity: Identity, user: UserDetail) -> None:
    for client_id in (None, "studio"):
        first, refresh_token = await identity.sign_in(user, client_id=client_id)
        second, _ = await _refresh(identity, refresh_token, client_id=client_id)
        for issued in (first, second):
            assert (await identity.access_tokens.read(issued.access_token)).client_id == (client_id or FIRST_PARTY)


@pytest.mark.parametrize("presented", ["", "pxr_", "🦊", "\ud800", "pxr_" + "a" * 49])
async def test_invalid_refresh_token_is_rejected(identity: Identity, presented: str) -> None:
    await _assert_not_refreshed(identity, SecretStr(presented))


async def test_access_token_or_key_is_rejected_as_refresh_token(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    issued, _ = await identity.sign_in(user)
    await _assert_not_refreshed(identity, issued.access_token)
    await _assert_not_refreshed(identity, (await identity.issue_key(tenant)).api_key)


async def test_expired_refresh_token_is_rejected_without_ending_the_sign_in(
    identity: Identity, user: UserDetail
) -> None:
    issued, refresh_token = await identity.sign_in(user)
    await identity.run("UPDATE refresh_tokens SET expires_at = '2026-01-01 00:00:00'")
    await _assert_not_refreshed(identity, refresh_token)
    assert await identity.principal(issued.access_token)


async def test_refresh_token_is_invalid_in_the_second_of_its_expiry(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    _, refresh_token = await identity.sign_in(user)
    for _ in range(100):
        expiry = clock.now()
        await identity.run("UPDATE refresh_tokens SET expires_at = :at", at=f"{expiry:%Y-%m-%d %H:%M:%S}")
        await _assert_not_refreshed(identity, refresh_token)
        assert await identity.token_status.introspect(refresh_token, caller=principal_of(tenant)) == INACTIVE
        # The second may have passed before the token was used.
        if clock.now() == expiry:
            break
    else:
        pytest.fail("no second was long enough")


async def test_only_the_digest_of_a_refresh_token_is_stored(
    identity: Identity, user: UserDetail, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    issued, refresh_token = await identity.sign_in(user)
    statement = "SELECT token_sha256 FROM refresh_tokens"
    kept = await identity.database.read(lambda data: data.connection.exec_driver_sql(statement).scalar_one())
    assert len(kept) == 64
    shown = repr(issued) + repr(await identity.entries()) + caplog.text + kept
    assert refresh_token.get_secret_value()[4:47] not in shown
    assert issued.access_token.get_secret_value() not in shown


async def test_lowered_role_narrows_existing_tokens(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    issued, refresh_token = await identity.sign_in(user)
    await _change(identity, tenant, user, UserChange(role=Role.VIEWER))
    assert (await identity.principal(issued.access_token)).scopes == Role.VIEWER.scopes
    again, _ = await _refresh(identity, refresh_token)
    assert again.scopes == Role.VIEWER.scopes


async def test_raised_role_does_not_widen_existing_tokens(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    issued, refresh_token = await identity.sign_in(user)
    await _change(identity, tenant, user, UserChange(role=Role.OPERATOR))
    assert (await identity.principal(issued.access_token)).scopes == MEMBER
    again, _ = await _refresh(identity, refresh_token)
    assert again.scopes == MEMBER


async def test_suspended_tenant_gets_no_token_by_any_grant(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    key = await identity.issue_key(tenant)
    issued, refresh_token = await identity.sign_in(user)
    await _set_status(identity, tenant, TenantStatus.SUSPENDED)
    for attempt in (
        identity.sign_in(user),
        _refresh(identity, refresh_token),
        identity.tokens.issue_to_client(read_api_key(key.api_key), scope=None),
        identity.tokens.issue_for_tenant(TokenOrder(tenant=tenant.guid), grantor=grantor_of(tenant)),
        identity.principal(issued.access_token),
    ):
        with pytest.raises(TenantSuspendedException):
            await attempt
    await _set_status(identity, tenant, TenantStatus.ACTIVE)
    assert await _refresh(identity, refresh_token)


async def test_tenant_being_deleted_gets_no_token_by_any_grant(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    key = await identity.issue_key(tenant)
    issued, refresh_token = await identity.sign_in(user)
    await _set_status(identity, tenant, TenantStatus.DELETING)
    for attempt in (
        identity.sign_in(user),
        _refresh(identity, refresh_token),
        identity.tokens.issue_to_client(read_api_key(key.api_key), scope=None),
        identity.principal(issued.access_token),
    ):
        with pytest.raises((OAuthException, CredentialInvalidException)):
            await attempt
    with pytest.raises(TenantNotFoundException):
        await identity.tokens.issue_for_tenant(TokenOrder(tenant=tenant.guid), grantor=grantor_of(tenant))


@pytest.mark.parametrize("by", ["guid", "name"])
async def test_operator_issues_a_token_for_a_tenant(identity: Identity, tenant: Tenant, by: str) -> None:
    order = TokenOrder(tenant=getattr(tenant, by), scope="image:read admin", expires_in=60)
    issued = await identity.tokens.issue_for_tenant(order, grantor=grantor_of(tenant))
    principal = await identity.principal(issued.access_token)
    assert (principal.tenant_id, principal.subject_type) == (tenant.id, SubjectType.TOKEN)
    assert principal.scopes == issued.scopes == {Scope.IMAGE_READ, Scope.ADMIN}
    assert (issued.expires_in, issued.refresh_token) == (60, None)


async def test_operator_issued_token_has_member_scopes_by_default(identity: Identity, tenant: Tenant) -> None:
    issued = await identity.tokens.issue_for_tenant(TokenOrder(tenant=tenant.guid), grantor=grantor_of(tenant))
    assert issued.scopes == MEMBER


async def test_invalid_token_order_is_rejected(identity: Identity, tenant: Tenant) -> None:
    with pytest.raises(TenantNotFoundException):
        await identity.tokens.issue_for_tenant(TokenOrder(tenant=new_guid()), grantor=grantor_of(tenant))
    for values in ({"scope": "everything"}, {"scope": ""}, {"expires_in": 86_401}, {"expires_in": 0}):
        order = TokenOrder(tenant=tenant.guid).model_copy(update=values)
        with pytest.raises(InvalidRequestException):
            await identity.tokens.issue_for_tenant(order, grantor=grantor_of(tenant))
    assert await identity.entries() == []


async def test_every_grant_has_one_audit_entry(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    key = await identity.issue_key(tenant)
    operator = Actor(type=SubjectType.USER, subject=Subject(new_guid()), tenant_guid=TenantGuid(new_guid()))
    signed_in, refresh_token = await identity.sign_in(user)
    refreshed, _ = await _refresh(identity, refresh_token)
    by_key = await identity.tokens.issue_to_client(read_api_key(key.api_key), scope=None)
    by_operator = await identity.tokens.issue_for_tenant(
        TokenOrder(tenant=tenant.guid), grantor=grantor_of(tenant, actor=operator)
    )
    actions = (AuditAction.TOKEN_ISSUED, AuditAction.TOKEN_REFRESHED, AuditAction.SIGNED_IN)
    entries = (await identity.entries(*actions))[::-1]
    assert [entry.action for entry in entries] == [actions[2], actions[1], actions[0], actions[0]]
    assert [(entry.actor_type, entry.actor) for entry in entries] == [
        (SubjectType.USER, user.guid),
        (SubjectType.USER, user.guid),
        (SubjectType.KEY, key.detail.guid),
        (SubjectType.USER, operator.subject),
    ]
    for entry, issued in zip(entries, (signed_in, refreshed, by_key, by_operator), strict=True):
        token = await identity.access_tokens.read(issued.access_token)
        assert (entry.tenant_guid, entry.target) == (tenant.guid, token.subject)
        assert entry.details["token_id"] == token.token_id
        assert entry.details["scope"] == " ".join(sorted(token.scopes))


async def test_token_without_audit_entry_is_neither_stored_nor_returned(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    key = await identity.issue_key(tenant)
    _, refresh_token = await identity.sign_in(user)
    await identity.break_audit_log()
    for attempt in (
        identity.sign_in(user),
        identity.tokens.issue_to_client(read_api_key(key.api_key), scope=None),
        identity.tokens.issue_for_tenant(TokenOrder(tenant=tenant.guid), grantor=grantor_of(tenant)),
        _refresh(identity, refresh_token),
        identity.tokens.sign_in("nobody", PASSWORD, scope=None, client_id=None),
        identity.tokens.rotate_signing_keys(actor=OPERATOR, at_once=False),
    ):
        with pytest.raises(DatabaseException):
            await attempt
    assert await identity.count("refresh_tokens") == 1
    assert len(identity.access_tokens.keys.jwks(clock.now())["keys"]) == 1
    await identity.run("DELETE FROM audit_log WHERE actor = 'meddler'")
    assert await _refresh(identity, refresh_token)


async def test_rotation_keeps_issued_tokens_valid(identity: Identity, user: UserDetail) -> None:
    issued, _ = await identity.sign_in(user)
    key = await identity.tokens.rotate_signing_keys(actor=OPERATOR, at_once=False)
    assert key.signs_from > clock.now()
    assert await identity.principal(issued.access_token)
    (entry,) = await identity.entries(AuditAction.SIGNING_KEYS_ROTATED)
    assert (entry.actor, entry.details) == (OPERATOR.subject, {"at_once": "false"})


async def test_rotation_at_once_invalidates_every_access_token(identity: Identity, user: UserDetail) -> None:
    issued, refresh_token = await identity.sign_in(user)
    assert await identity.principal(issued.access_token)
    await identity.tokens.rotate_signing_keys(actor=OPERATOR, at_once=True)
    assert identity.recognized.get(issued.access_token) is None
    await _is_dead(identity, issued)
    again, _ = await _refresh(identity, refresh_token)
    assert await identity.principal(again.access_token)


async def test_access_token_expires_after_its_lifetime(identity: Identity, user: UserDetail) -> None:
    issued, _ = await identity.sign_in(user)
    token = await identity.access_tokens.read(issued.access_token)
    assert token.expires_at - token.issued_at == timedelta(seconds=900)
    ended = token.model_copy(update={"issued_at": token.issued_at - timedelta(seconds=900), "expires_at": clock.now()})
    with pytest.raises(CredentialInvalidException):
        await identity.principal(identity.access_tokens.sign(ended))
