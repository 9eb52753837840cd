"""API keys: who may issue, rotate and revoke which keys, and the audit entries."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    ApiKeyLimitException,
    ApiKeyNotFoundException,
    ApiKeyRevokedException,
    CredentialInvalidException,
    DatabaseException,
    GrantException,
    InvalidRequestException,
    PermissionException,
)
from pixyproxy.core.models.api_key import MOST_KEYS, IssuedApiKey, NewApiKey, Rotation
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import Actor, Scope, SubjectType
from pixyproxy.core.models.tenant import Tenant, TenantGuid
from pixyproxy.data.repositories.api_keys import COLUMNS, to_row
from pixyproxy.data.rows import insert_statement, sql
from pixyproxy.service.private.identity.api_keys import find_key
from pixyproxy.service.private.identity.grants import Grantor
from pixyproxy.service.private.identity.key_format import PresentedKey, new_key_id, read_api_key
from tests.service.private.identities import Identity, grantor_of
from tests.support.api_keys import secret_of
from tests.support.builders import MOMENT, new_api_key, new_guid

pytestmark = pytest.mark.anyio
SCOPES = frozenset({Scope.IMAGE_READ, Scope.ADMIN})
LESSER = frozenset({Scope.IMAGE_READ, Scope.KEY_MANAGE})
ANN = Actor(type=SubjectType.USER, subject=new_guid(), tenant_guid=TenantGuid(new_guid()))


@pytest.fixture
async def issued(identity: Identity, tenant: Tenant) -> IssuedApiKey:
    return await identity.issue_key(tenant, *SCOPES)


async def _rotate(identity: Identity, tenant: Tenant, issued: IssuedApiKey, *, grace: int = 3600) -> SecretStr:
    rotated = await identity.api_keys.rotate_key(
        issued.detail.guid, Rotation(grace_seconds=grace), grantor=grantor_of(tenant)
    )
    return rotated.api_key


async def _act(identity: Identity, act: str, guid: str, grantor: Grantor) -> None:
    """Revoke a key, or rotate it without a grace period."""
    if act == "rotate":
        await identity.api_keys.rotate_key(guid, Rotation(grace_seconds=0), grantor=grantor)
    else:
        await identity.api_keys.revoke_key(guid, grantor=grantor)


async def _refused(identity: Identity, key: SecretStr) -> bool:
    try:
        await identity.principal(key)
    except CredentialInvalidException:
        return True
    return False


async def test_key_text_contains_the_key_id_of_its_details(issued: IssuedApiKey) -> None:
    prefix, key_id, rest = issued.api_key.get_secret_value().split("_")
    assert (prefix, key_id, len(rest)) == ("pxy", issued.detail.key_id, 49)


async def test_keys_are_unique(identity: Identity, tenant: Tenant) -> None:
    keys = [await identity.issue_key(tenant) for _ in range(5)]
    assert len({key.api_key.get_secret_value() for key in keys}) == 5
    assert len({key.detail.key_id for key in keys}) == 5


async def test_secret_is_returned_once_and_not_stored(identity: Identity, tenant: Tenant, issued: IssuedApiKey) -> None:
    secret = secret_of(issued.api_key.get_secret_value())
    stored = await identity.database.read(lambda data: data.api_keys.get_own(issued.detail.guid, tenant_id=tenant.id))
    shown = repr(issued) + repr(stored) + repr(await identity.entries())
    assert secret not in shown + repr((await identity.api_keys.list_keys(tenant_id=tenant.id)).items)
    assert secret[:43] not in shown


async def test_issued_key_has_the_ordered_properties(identity: Identity, tenant: Tenant) -> None:
    order = NewApiKey(
        name="naïve key 🦊", scopes=SCOPES, allowed_models=frozenset({"m", "n"}), images_per_minute=7, expires_at=None
    )
    issued = await identity.api_keys.issue_key(order, grantor=grantor_of(tenant))
    assert {name: getattr(issued.detail, name) for name in NewApiKey.model_fields} == dict(order)
    assert (await identity.api_keys.list_keys(tenant_id=tenant.id)).items == [issued.detail]


async def test_key_with_more_scopes_than_the_grantor_is_rejected(identity: Identity, tenant: Tenant) -> None:
    order = NewApiKey(name="k", scopes=LESSER | {Scope.ADMIN, Scope.USER_MANAGE})
    with pytest.raises(GrantException) as caught:
        await identity.api_keys.issue_key(order, grantor=grantor_of(tenant, LESSER))
    assert caught.value.context == {"scope": "admin user:manage"}
    assert (await identity.api_keys.list_keys(tenant_id=tenant.id)).items == []
    assert await identity.entries() == []


async def test_key_with_the_grantors_scopes_is_issued(identity: Identity, tenant: Tenant) -> None:
    issued = await identity.api_keys.issue_key(NewApiKey(name="k", scopes=LESSER), grantor=grantor_of(tenant, LESSER))
    assert (await identity.principal(issued.api_key)).scopes == LESSER


async def test_key_with_more_rights_cannot_be_rotated(identity: Identity, tenant: Tenant, issued: IssuedApiKey) -> None:
    with pytest.raises(PermissionException) as caught:
        await identity.api_keys.rotate_key(issued.detail.guid, Rotation(), grantor=grantor_of(tenant, LESSER))
    assert caught.value.context == {"scope": "admin"}
    assert await identity.principal(issued.api_key)
    assert await identity.entries(AuditAction.KEY_ROTATED) == []


async def test_key_with_more_rights_cannot_be_revoked(identity: Identity, tenant: Tenant, issued: IssuedApiKey) -> None:
    with pytest.raises(PermissionException):
        await identity.api_keys.revoke_key(issued.detail.guid, grantor=grantor_of(tenant, LESSER))
    assert await identity.principal(issued.api_key)
    assert await identity.entries(AuditAction.KEY_REVOKED) == []


@pytest.mark.parametrize("act", ["rotate", "revoke"])
async def test_key_of_another_tenant_is_reported_as_not_found(
    identity: Identity, stranger: Tenant, issued: IssuedApiKey, act: str
) -> None:
    told = set()
    for guid in (issued.detail.guid, new_guid()):
        with pytest.raises(ApiKeyNotFoundException) as caught:
            await _act(identity, act, guid, grantor_of(stranger))
        told.add((str(caught.value), str(caught.value.context)))
    assert len(told) == 1
    assert await identity.principal(issued.api_key)


async def test_tenant_lists_its_own_keys(
    identity: Identity, tenant: Tenant, stranger: Tenant, issued: IssuedApiKey
) -> None:
    assert (await identity.api_keys.list_keys(tenant_id=tenant.id)).items == [issued.detail]
    assert (await identity.api_keys.list_keys(tenant_id=stranger.id)).items == []


class _Digest(str):
    """A digest that may be compared only in constant time."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        """Fail: this comparison takes longer the more characters are equal."""
        pytest.fail(f"compared with {other!r} by ==")

    __ne__ = __eq__


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("secret", ["current", "former", "wrong", "unknown"])
async def test_digests_are_compared_in_constant_time(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey, secret: str
) -> None:
    keys = {"former": issued.api_key, "current": await _rotate(identity, tenant, issued)}
    presented = read_api_key(keys.get(secret, issued.api_key))
    assert presented is not None
    digest = _Digest("0" * 64 if secret == "wrong" else presented.secret_sha256)
    key_id = new_key_id() if secret == "unknown" else presented.key_id
    found = await identity.database.read(lambda data: find_key(data, PresentedKey(key_id, digest)))
    assert (found is not None) == (secret in keys)


async def test_revoked_key_is_rejected_immediately(identity: Identity, tenant: Tenant, issued: IssuedApiKey) -> None:
    await identity.principal(issued.api_key)
    await identity.api_keys.revoke_key(issued.detail.guid, grantor=grantor_of(tenant))
    assert identity.recognized.get(issued.api_key) is None
    assert await _refused(identity, issued.api_key)


async def test_both_secrets_are_valid_within_the_grace_period(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey
) -> None:
    second = await _rotate(identity, tenant, issued)
    assert second != issued.api_key
    former, current = [await identity.principal(each) for each in (issued.api_key, second)]
    assert former.model_copy(update={"expires_at": None}) == current


async def test_rotated_key_keeps_its_properties(identity: Identity, tenant: Tenant, issued: IssuedApiKey) -> None:
    before = clock.now()
    rotated = await identity.api_keys.rotate_key(
        issued.detail.guid, Rotation(grace_seconds=60), grantor=grantor_of(tenant)
    )
    until = rotated.detail.former_secret_until
    assert until is not None
    assert before + timedelta(seconds=60) <= until <= clock.now() + timedelta(seconds=60)
    assert rotated.detail == issued.detail.model_copy(update={"former_secret_until": until})
    assert (await identity.api_keys.list_keys(tenant_id=tenant.id)).items == [rotated.detail]


async def test_former_secret_expires_with_the_grace_period(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey
) -> None:
    second = await _rotate(identity, tenant, issued)
    await identity.run("UPDATE api_keys SET former_secret_until = :now", now=f"{clock.now():%Y-%m-%d %H:%M:%S}")
    assert await _refused(identity, issued.api_key)
    assert await identity.principal(second)


async def test_former_secret_is_not_cached_beyond_the_grace_period(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey
) -> None:
    await _rotate(identity, tenant, issued, grace=3600)
    await identity.principal(issued.api_key)
    (recognized,) = identity.recognized.known.values()
    (key,) = (await identity.api_keys.list_keys(tenant_id=tenant.id)).items
    assert recognized.expires_at == key.former_secret_until


async def test_second_rotation_invalidates_the_first_former_secret(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey
) -> None:
    second = await _rotate(identity, tenant, issued)
    third = await _rotate(identity, tenant, issued)
    assert await _refused(identity, issued.api_key)
    assert await identity.principal(second)
    assert await identity.principal(third)


async def test_former_secret_without_grace_period_is_invalid_immediately(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey
) -> None:
    await identity.principal(issued.api_key)
    second = await _rotate(identity, tenant, issued, grace=0)
    assert identity.recognized.get(issued.api_key) is None
    assert await _refused(identity, issued.api_key)
    assert await identity.principal(second)


async def test_revoked_key_cannot_be_rotated(identity: Identity, tenant: Tenant, issued: IssuedApiKey) -> None:
    await identity.api_keys.revoke_key(issued.detail.guid, grantor=grantor_of(tenant))
    with pytest.raises(ApiKeyRevokedException):
        await _rotate(identity, tenant, issued)
    assert await _refused(identity, issued.api_key)


async def test_expired_key_cannot_be_rotated(identity: Identity, tenant: Tenant, issued: IssuedApiKey) -> None:
    await identity.run("UPDATE api_keys SET expires_at = '2026-01-01 00:00:00'")
    with pytest.raises(ApiKeyRevokedException):
        await _rotate(identity, tenant, issued)
    assert await _refused(identity, issued.api_key)


async def test_rotation_does_not_extend_the_expiry(identity: Identity, tenant: Tenant) -> None:
    issued = await identity.issue_key(tenant, expires_at=clock.now() + timedelta(minutes=5))
    await _rotate(identity, tenant, issued)
    (key,) = (await identity.api_keys.list_keys(tenant_id=tenant.id)).items
    assert key.expires_at == issued.detail.expires_at


async def test_second_revocation_keeps_the_first_time(identity: Identity, tenant: Tenant, issued: IssuedApiKey) -> None:
    grantor = grantor_of(tenant)
    await identity.api_keys.revoke_key(issued.detail.guid, grantor=grantor)
    await identity.run("UPDATE api_keys SET revoked_at = '2026-01-01 00:00:00'")
    await identity.api_keys.revoke_key(issued.detail.guid, grantor=grantor)
    (key,) = (await identity.api_keys.list_keys(tenant_id=tenant.id)).items
    assert key.revoked_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("seconds", [0, -1, -1_000_000])
async def test_expiry_in_the_past_is_rejected(identity: Identity, tenant: Tenant, seconds: int) -> None:
    with pytest.raises(InvalidRequestException, match="expires_at"):
        await identity.issue_key(tenant, expires_at=clock.now() + timedelta(seconds=seconds))
    assert (await identity.api_keys.list_keys(tenant_id=tenant.id)).items == []


@pytest.mark.parametrize(
    "expires_at",
    [
        datetime(2099, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2039, 1, 19, 4, 14, 8, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ],
)
async def test_key_may_expire_in_the_far_future(identity: Identity, tenant: Tenant, expires_at: datetime) -> None:
    issued = await identity.issue_key(tenant, expires_at=expires_at)
    (key,) = (await identity.api_keys.list_keys(tenant_id=tenant.id)).items
    assert key.expires_at == expires_at
    assert await identity.principal(issued.api_key)


@pytest.mark.parametrize("hours", [14, 0])
async def test_key_may_expire_at_the_end_of_the_calendar(identity: Identity, tenant: Tenant, hours: int) -> None:
    expires_at = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=hours)))
    issued = await identity.issue_key(tenant, expires_at=expires_at)
    (key,) = (await identity.api_keys.list_keys(tenant_id=tenant.id)).items
    assert key.expires_at == expires_at
    assert await identity.principal(issued.api_key)


async def test_expiry_beyond_the_calendar_is_rejected(identity: Identity, tenant: Tenant) -> None:
    expires_at = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-14)))
    order = NewApiKey(name="k").model_copy(update={"expires_at": expires_at})
    with pytest.raises(InvalidRequestException, match="expires_at"):
        await identity.api_keys.issue_key(order, grantor=grantor_of(tenant))


async def test_invalid_order_is_rejected(identity: Identity, tenant: Tenant) -> None:
    order = NewApiKey.model_construct(name="a\nb", scopes=frozenset({Scope.IMAGE_READ}))
    with pytest.raises(InvalidRequestException):
        await identity.api_keys.issue_key(order, grantor=grantor_of(tenant))


@pytest.mark.parametrize("act", ["issue", "rotate", "revoke"])
async def test_each_action_has_one_audit_entry(identity: Identity, tenant: Tenant, act: str) -> None:
    grantor = grantor_of(tenant, actor=ANN)
    issued = await identity.api_keys.issue_key(NewApiKey(name="k", scopes=SCOPES), grantor=grantor)
    if act != "issue":
        await _act(identity, act, issued.detail.guid, grantor)
    action = {
        "issue": AuditAction.KEY_ISSUED, "rotate": AuditAction.KEY_ROTATED, "revoke": AuditAction.KEY_REVOKED,
    }[act]  # fmt: skip
    (entry,) = await identity.entries(action)
    assert (entry.actor_type, entry.actor, entry.actor_tenant_guid) == (ANN.type, ANN.subject, ANN.tenant_guid)
    assert (entry.tenant_guid, entry.target) == (tenant.guid, issued.detail.guid)
    assert entry.details == {"key_id": issued.detail.key_id, "scopes": "admin image:read"}
    assert len(await identity.entries()) == (1 if act == "issue" else 2)


async def test_key_without_audit_entry_is_not_issued(identity: Identity, tenant: Tenant) -> None:
    await identity.break_audit_log()
    with pytest.raises(DatabaseException):
        await identity.issue_key(tenant)
    assert await identity.count("api_keys") == 0


@pytest.mark.parametrize("act", ["rotate", "revoke"])
async def test_change_without_audit_entry_is_rolled_back(
    identity: Identity, tenant: Tenant, issued: IssuedApiKey, act: str
) -> None:
    await identity.break_audit_log()
    with pytest.raises(DatabaseException):
        await _act(identity, act, issued.detail.guid, grantor_of(tenant))
    assert (await identity.api_keys.list_keys(tenant_id=tenant.id)).items == [issued.detail]
    assert await identity.principal(issued.api_key)


async def test_limited_key_creates_only_keys_within_its_limits(identity: Identity, tenant: Tenant) -> None:
    ends = clock.now() + timedelta(days=1)
    wide = await identity.issue_key(tenant)
    limited = replace(grantor_of(tenant), allowed_models=frozenset({"cheap"}), images_per_minute=5, expires_at=ends)
    made = await identity.api_keys.issue_key(NewApiKey(name="heir"), grantor=limited)
    assert made.detail.allowed_models == frozenset({"cheap"})
    assert made.detail.images_per_minute == 5
    assert made.detail.expires_at == ends
    for wider in (
        NewApiKey(name="wider", allowed_models=frozenset({"cheap", "dear"})),
        NewApiKey(name="wider", images_per_minute=6),
        NewApiKey(name="wider", expires_at=ends + timedelta(days=1)),
    ):
        with pytest.raises(GrantException):
            await identity.api_keys.issue_key(wider, grantor=limited)
    for act in (
        identity.api_keys.rotate_key(wide.detail.guid, Rotation(), grantor=limited),
        identity.api_keys.revoke_key(wide.detail.guid, grantor=limited),
    ):
        with pytest.raises(GrantException):
            await act
    assert await identity.api_keys.rotate_key(made.detail.guid, Rotation(), grantor=limited)


async def test_number_of_active_keys_is_limited(identity: Identity, tenant: Tenant, stranger: Tenant) -> None:
    made = await identity.issue_key(tenant)
    keys = [new_api_key(tenant.id) for _ in range(MOST_KEYS)]
    keys[0] = keys[0].model_copy(update={"expires_at": MOMENT})
    statement = sql(insert_statement("api_keys", COLUMNS))
    await identity.database.write(lambda data: data.connection.execute(statement, list(map(to_row, keys))))
    with pytest.raises(ApiKeyLimitException):
        await identity.issue_key(tenant)
    assert await identity.issue_key(stranger)
    await identity.api_keys.revoke_key(made.detail.guid, grantor=grantor_of(tenant))
    assert await identity.issue_key(tenant)


async def test_pages_contain_every_key_once_despite_revocations(
    identity: Identity, tenant: Tenant, stranger: Tenant
) -> None:
    made = [(await identity.issue_key(tenant)).detail.guid for _ in range(5)]
    await identity.issue_key(stranger)
    pages: list[list[str]] = []
    cursor = None
    while not pages or cursor is not None:
        page = await identity.api_keys.list_keys(tenant_id=tenant.id, limit=2, cursor=cursor)
        pages.append([key.guid for key in page.items])
        await identity.api_keys.revoke_key(pages[-1][-1], grantor=grantor_of(tenant))
        cursor = page.next_cursor
    assert pages == [made[:2], made[2:4], made[4:]]
