"""Authentication: the principal of each credential, and one error for all invalid credentials."""

import random
from datetime import timedelta

import pytest
from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import CredentialInvalidException, TenantSuspendedException
from pixyproxy.core.models.api_key import IssuedApiKey
from pixyproxy.core.models.principal import Scope, Subject, SubjectType
from pixyproxy.core.models.tenant import Tenant, TenantGuid, TenantStatus
from pixyproxy.core.models.token import TokenOrder
from pixyproxy.service.private.identity.key_format import ALPHABET
from pixyproxy.service.private.identity.oauth.access_tokens import AccessToken, Holder
from tests.service.private.identities import Identity, grantor_of
from tests.support.api_keys import forged_key, key_id_of, secret_of
from tests.support.builders import new_guid

pytestmark = pytest.mark.anyio
SCOPES = frozenset({Scope.IMAGE_READ, Scope.ADMIN})


@pytest.fixture
async def issued(identity: Identity, tenant: Tenant) -> IssuedApiKey:
    return await identity.issue_key(tenant, *SCOPES)


async def _assert_refused(identity: Identity, presented: SecretStr | str) -> None:
    """Assert that a credential is rejected with the common error and not cached."""
    known = len(identity.recognized.known)
    credential = SecretStr(presented) if isinstance(presented, str) else presented
    with pytest.raises(CredentialInvalidException) as caught:
        await identity.principal(credential)
    assert type(caught.value) is CredentialInvalidException
    assert caught.value.message == CredentialInvalidException.default_message
    assert not caught.value.context
    assert len(identity.recognized.known) == known
    assert identity.recognized.get(credential) is None


async def _set_status(identity: Identity, tenant: Tenant, status: TenantStatus) -> None:
    await identity.database.write(lambda data: data.tenants.update(tenant.model_copy(update={"status": status})))


def _token(identity: Identity, tenant: Tenant, **changes: object) -> AccessToken:
    """Return an access token for a tenant, as an operator would issue it."""
    holder = Holder(
        subject=Subject(new_guid()), subject_type=SubjectType.TOKEN, tenant_guid=tenant.guid, client_id="tests"
    )
    return identity.access_tokens.new(holder, scopes=SCOPES, seconds=60).model_copy(update=changes)


async def test_key_gives_its_tenant_and_scopes(identity: Identity, tenant: Tenant, issued: IssuedApiKey) -> None:
    principal = await identity.principal(issued.api_key)
    assert (principal.tenant_id, principal.tenant_guid, principal.tenant_name) == (tenant.id, tenant.guid, tenant.name)
    assert (principal.subject, principal.subject_type) == (Subject(issued.detail.guid), SubjectType.KEY)
    assert principal.scopes == SCOPES
    assert principal.default_visibility is tenant.default_visibility
    assert (principal.actor.subject, principal.actor.tenant_guid) == (issued.detail.guid, tenant.guid)


async def test_principal_has_the_limits_of_key_and_tenant(identity: Identity, tenant: Tenant) -> None:
    limited = tenant.model_copy(update={"images_per_minute": 9, "monthly_budget_usd": 0})
    await identity.database.write(lambda data: data.tenants.update(limited))
    key = await identity.issue_key(tenant, images_per_minute=7)
    principal = await identity.principal(key.api_key)
    assert (principal.tenant_images_per_minute, principal.key_images_per_minute) == (9, 7)
    assert principal.has_budget


@pytest.mark.parametrize(
    ("of_key", "of_tenant", "allowed"),
    [
        (None, None, None),
        ({"a", "b"}, None, {"a", "b"}),
        (None, {"a", "b"}, {"a", "b"}),
        ({"a", "b"}, {"b", "c"}, {"b"}),
        ({"a"}, {"b"}, set()),
    ],
    ids=["any", "the key's", "the tenant's", "what both allow", "none"],
)
async def test_key_may_use_models_allowed_by_both_key_and_tenant(
    identity: Identity, tenant: Tenant, of_key: set[str] | None, of_tenant: set[str] | None, allowed: set[str] | None
) -> None:
    models = None if of_tenant is None else frozenset(of_tenant)
    limited = tenant.model_copy(update={"allowed_models": models})
    await identity.database.write(lambda data: data.tenants.update(limited))
    key = await identity.issue_key(tenant, allowed_models=of_key)
    assert (await identity.principal(key.api_key)).allowed_models == allowed


async def test_key_with_any_changed_character_is_rejected(identity: Identity, issued: IssuedApiKey) -> None:
    key = issued.api_key.get_secret_value()
    chosen = random.Random(1)
    for _ in range(100):
        position = chosen.randrange(len(key))
        other = chosen.choice([character for character in ALPHABET + "_" if character != key[position]])
        await _assert_refused(identity, key[:position] + other + key[position + 1 :])


@pytest.mark.parametrize("part", ["secret", "key_id"])
async def test_wrong_secret_or_key_id_with_a_valid_checksum_is_rejected(
    identity: Identity, issued: IssuedApiKey, part: str
) -> None:
    key = issued.api_key.get_secret_value()
    key_id, secret = key_id_of(key), secret_of(key)[:43]
    forged = {"secret": forged_key(key_id=key_id, secret=secret[::-1])}
    forged["key_id"] = forged_key(key_id=key_id[::-1], secret=secret)
    await _assert_refused(identity, forged[part])


async def test_digest_placeholder_never_matches(identity: Identity, issued: IssuedApiKey) -> None:
    """A key that was never rotated has no former secret, rather than one that is easy to match."""
    await identity.run("UPDATE api_keys SET former_secret_until = '2099-01-01 00:00:00'")
    key_id = key_id_of(issued.api_key.get_secret_value())
    for secret in ("0" * 43, "", "None"):
        await _assert_refused(identity, forged_key(key_id=key_id, secret=secret))


@pytest.mark.parametrize(
    "presented",
    [
        "",
        "pxy_",
        "pxy__",
        "Bearer x",
        "pxy_" + "a" * 62,
        "\0",
        "🦊",
        "é" * 66,
        "x" * 100_000,
        "\ud800",
        "pxr_x",
        "a.b.c",
    ],
    ids=lambda presented: repr(presented)[:16],
)
async def test_malformed_credential_is_rejected(identity: Identity, presented: str) -> None:
    await _assert_refused(identity, presented)


@pytest.mark.parametrize("around", [" {}", "{}\n", "{} ", "{0}{0}"])
async def test_key_with_surrounding_characters_is_rejected(
    identity: Identity, issued: IssuedApiKey, around: str
) -> None:
    await _assert_refused(identity, around.format(issued.api_key.get_secret_value()))


@pytest.mark.parametrize("end", ["revoked", "expired", "expires now"])
async def test_inactive_key_is_rejected(identity: Identity, tenant: Tenant, issued: IssuedApiKey, end: str) -> None:
    if end == "revoked":
        await identity.api_keys.revoke_key(issued.detail.guid, grantor=grantor_of(tenant))
    else:
        seconds = 0 if end == "expires now" else 3600
        at = clock.now() - timedelta(seconds=seconds)
        await identity.run("UPDATE api_keys SET expires_at = :at", at=f"{at:%Y-%m-%d %H:%M:%S}")
    await _assert_refused(identity, issued.api_key)


async def test_key_is_valid_before_its_expiry(identity: Identity, tenant: Tenant) -> None:
    key = await identity.issue_key(tenant, expires_at=clock.now() + timedelta(minutes=5))
    assert (await identity.principal(key.api_key)).subject == Subject(key.detail.guid)
    (recognized,) = identity.recognized.known.values()
    assert recognized.expires_at == key.detail.expires_at


async def test_credential_is_cached_until_a_revocation(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey
) -> None:
    principal = await identity.principal(issued.api_key)
    (recognized,) = identity.recognized.known.values()
    assert recognized.principal == principal
    await identity.api_keys.revoke_key((await identity.issue_key(tenant)).detail.guid, grantor=grantor_of(tenant))
    assert identity.recognized.known == {}


async def test_last_use_of_a_key_is_recorded(identity: Identity, tenant: Tenant, issued: IssuedApiKey) -> None:
    before = clock.now()
    await identity.principal(issued.api_key)
    await identity.tasks.drain(20)
    (key,) = (await identity.api_keys.list_keys(tenant_id=tenant.id)).items
    assert key.last_used_at is not None
    assert before <= key.last_used_at <= clock.now()


@pytest.mark.parametrize(("seconds", "noted"), [(30, False), (70, True)])
async def test_last_use_is_recorded_at_most_once_a_minute(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey, seconds: int, *, noted: bool
) -> None:
    last = clock.now() - timedelta(seconds=seconds)
    await identity.run("UPDATE api_keys SET last_used_at = :at", at=f"{last:%Y-%m-%d %H:%M:%S}")
    for _ in range(3):
        await identity.principal(issued.api_key)
        await identity.tasks.drain(20)
    (key,) = (await identity.api_keys.list_keys(tenant_id=tenant.id)).items
    assert key.last_used_at is not None
    assert (key.last_used_at > last) is noted


async def test_rejected_key_has_no_last_use(identity: Identity, tenant: Tenant, issued: IssuedApiKey) -> None:
    key = issued.api_key.get_secret_value()
    await _assert_refused(identity, forged_key(key_id=key_id_of(key), secret="B" * 43))
    await identity.tasks.drain(20)
    (detail,) = (await identity.api_keys.list_keys(tenant_id=tenant.id)).items
    assert detail.last_used_at is None


async def test_credentials_are_rejected_while_their_tenant_is_suspended(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey
) -> None:
    token = await identity.tokens.issue_for_tenant(TokenOrder(tenant=tenant.guid), grantor=grantor_of(tenant))
    await _set_status(identity, tenant, TenantStatus.SUSPENDED)
    for credential in (issued.api_key, token.access_token):
        with pytest.raises(TenantSuspendedException):
            await identity.principal(credential)
    assert identity.recognized.known == {}
    await _set_status(identity, tenant, TenantStatus.ACTIVE)
    for credential in (issued.api_key, token.access_token):
        assert (await identity.principal(credential)).tenant_id == tenant.id


async def test_suspension_is_revealed_only_to_keys_of_the_tenant(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey
) -> None:
    await _set_status(identity, tenant, TenantStatus.SUSPENDED)
    key_id = key_id_of(issued.api_key.get_secret_value())
    await _assert_refused(identity, forged_key(key_id=key_id, secret="B" * 43))


async def test_credentials_of_a_tenant_being_deleted_are_rejected(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey
) -> None:
    token = await identity.tokens.issue_for_tenant(TokenOrder(tenant=tenant.guid), grantor=grantor_of(tenant))
    await _set_status(identity, tenant, TenantStatus.DELETING)
    await _assert_refused(identity, issued.api_key)
    await _assert_refused(identity, token.access_token)


async def test_token_gives_its_subject_and_scopes(identity: Identity, tenant: Tenant) -> None:
    token = _token(identity, tenant)
    credential = identity.access_tokens.sign(token)
    principal = await identity.principal(credential)
    assert (principal.tenant_id, principal.subject, principal.scopes) == (tenant.id, token.subject, SCOPES)
    (recognized,) = identity.recognized.known.values()
    assert recognized.expires_at == token.expires_at


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant_guid": TenantGuid(new_guid())},
        {"subject_type": SubjectType.USER},
        {"subject_type": SubjectType.KEY},
        {"subject_type": SubjectType.FOREIGN},
        {"subject_type": SubjectType.COMMAND},
        {"expires_at": clock.now()},
        {"expires_at": clock.now() - timedelta(days=1)},
    ],
    ids=["no such tenant", "no such user", "no such key", "foreign", "a command", "expires now", "expired"],
)
async def test_token_without_a_valid_subject_is_rejected(
    identity: Identity, tenant: Tenant, changes: dict[str, object]
) -> None:
    await _assert_refused(identity, identity.access_tokens.sign(_token(identity, tenant, **changes)))


async def test_token_with_a_subject_of_another_tenant_is_rejected(
    identity: Identity, tenant: Tenant, stranger: Tenant
) -> None:
    key, user = await identity.issue_key(stranger), await identity.create_user(stranger)
    for subject, subject_type in ((key.detail.guid, SubjectType.KEY), (user.guid, SubjectType.USER)):
        token = _token(identity, tenant, subject=Subject(subject), subject_type=subject_type)
        await _assert_refused(identity, identity.access_tokens.sign(token))


async def test_token_is_limited_by_its_key(identity: Identity, tenant: Tenant) -> None:
    key = await identity.issue_key(tenant, Scope.IMAGE_READ)
    token = _token(identity, tenant, subject=Subject(key.detail.guid), subject_type=SubjectType.KEY)
    principal = await identity.principal(identity.access_tokens.sign(token))
    assert principal.scopes == {Scope.IMAGE_READ}


async def test_altered_token_is_rejected(identity: Identity, tenant: Tenant) -> None:
    text = identity.access_tokens.sign(_token(identity, tenant)).get_secret_value()
    header, claims, signature = text.split(".")
    for altered in (
        f"{header}.{claims}.{signature[::-1]}",
        f"{header}.{claims}.",
        f"{header}.{claims[:-4]}AAAA.{signature}",
        f"{header}.{claims}",
        text + "A",
        f" {text}",
    ):
        await _assert_refused(identity, altered)
