"""The ``api_keys`` repository."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.models.api_key import ApiKeyGuid, StoredApiKey
from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.tenant import Tenant, TenantStatus
from pixyproxy.data.database import Repositories
from tests.support.builders import LATER, MOMENT, new_api_key, new_guid

SECOND = timedelta(seconds=1)
ADMINISTRATOR = frozenset({Scope.ADMIN, Scope.IMAGE_READ})


def _add(data: Repositories, tenant: Tenant, **changes: object) -> StoredApiKey:
    key = new_api_key(tenant.id, **changes)
    data.api_keys.insert(key)
    return key


def _listed(data: Repositories, tenant: Tenant) -> list[StoredApiKey]:
    """Return all keys of a tenant."""
    return [each for _, each in data.api_keys.list_of_tenant(tenant_id=tenant.id, after=0, limit=100)]


@pytest.mark.parametrize("scopes", [frozenset(Scope), frozenset({Scope.IMAGE_READ}), frozenset()])
def test_every_column_round_trips(data: Repositories, tenant: Tenant, scopes: frozenset[Scope]) -> None:
    key = _add(data, tenant, name="naïve 🦊 'key'", scopes=scopes, expires_at=LATER, revoked_at=LATER + SECOND)
    assert data.api_keys.get_own(key.guid, tenant_id=tenant.id) == key
    assert data.api_keys.find_for_authentication(key.key_id) == key


def test_key_without_expiry_round_trips(data: Repositories, tenant: Tenant) -> None:
    key = _add(data, tenant, expires_at=None, revoked_at=None)
    assert data.api_keys.get_own(key.guid, tenant_id=tenant.id) == key


def test_unknown_key_id_returns_none(data: Repositories) -> None:
    assert data.api_keys.find_for_authentication("unknown") is None


def test_key_id_with_trailing_space_is_not_found(data: Repositories, tenant: Tenant) -> None:
    key = _add(data, tenant)
    assert data.api_keys.find_for_authentication(f"{key.key_id} ") is None


def test_key_ids_are_case_sensitive(data: Repositories, tenant: Tenant) -> None:
    lower = _add(data, tenant, key_id="abcdefghijkl")
    upper = _add(data, tenant, key_id="ABCDEFGHIJKL")
    assert data.api_keys.find_for_authentication(lower.key_id) == lower
    assert data.api_keys.find_for_authentication(upper.key_id) == upper


def test_key_id_is_unique(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    key = _add(data, tenant)
    with pytest.raises(IntegrityError):
        _add(data, stranger, key_id=key.key_id)


def test_tenant_lists_its_own_keys_oldest_first(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    keys = [_add(data, tenant, revoked_at=revoked_at) for revoked_at in (None, LATER, None)]
    _add(data, stranger)
    assert _listed(data, tenant) == keys


def test_another_tenants_key_is_not_found(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    key = _add(data, tenant)
    assert data.api_keys.get_own(key.guid, tenant_id=stranger.id) is None


def test_revoke_changes_only_that_key(data: Repositories, tenant: Tenant) -> None:
    key, other = _add(data, tenant), _add(data, tenant)
    data.api_keys.revoke(key.guid, tenant_id=tenant.id, at=LATER)
    revoked = key.model_copy(update={"revoked_at": LATER})
    assert _listed(data, tenant) == [revoked, other]


def test_earlier_revocation_is_kept(data: Repositories, tenant: Tenant) -> None:
    key = _add(data, tenant, revoked_at=MOMENT)
    data.api_keys.revoke(key.guid, tenant_id=tenant.id, at=LATER)
    assert data.api_keys.get_own(key.guid, tenant_id=tenant.id) == key


def test_another_tenant_cannot_revoke(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    key = _add(data, tenant)
    data.api_keys.revoke(key.guid, tenant_id=stranger.id, at=LATER)
    data.api_keys.revoke(ApiKeyGuid(new_guid()), tenant_id=tenant.id, at=LATER)
    assert data.api_keys.get_own(key.guid, tenant_id=tenant.id) == key


@pytest.mark.parametrize(
    ("changes", "active"),
    [
        ({"scopes": ADMINISTRATOR}, True),
        ({"scopes": ADMINISTRATOR, "expires_at": LATER + SECOND}, True),
        ({"scopes": ADMINISTRATOR, "expires_at": LATER}, False),
        ({"scopes": ADMINISTRATOR, "expires_at": MOMENT}, False),
        ({"scopes": ADMINISTRATOR, "revoked_at": MOMENT}, False),
        ({"scopes": frozenset(Scope) - {Scope.ADMIN}}, False),
    ],
    ids=["for ever", "not expired yet", "expires now", "expired", "revoked", "no administrator"],
)
def test_only_valid_admin_key_counts_as_administrator(
    data: Repositories, tenant: Tenant, changes: dict[str, object], *, active: bool
) -> None:
    assert not data.api_keys.active_administrator_exists(at=LATER)
    _add(data, tenant, **changes)
    assert data.api_keys.active_administrator_exists(at=LATER) is active


def test_rotation_and_limit_columns_round_trip(data: Repositories, tenant: Tenant) -> None:
    key = _add(
        data,
        tenant,
        former_sha256="c" * 64,
        former_secret_until=LATER,
        allowed_models=frozenset({"gpt-image-2", "vendor/model:2@x"}),
        images_per_minute=1_000_000,
        last_used_at=LATER + SECOND,
    )
    assert data.api_keys.get_own(key.guid, tenant_id=tenant.id) == key


@pytest.mark.parametrize("year", [2037, 2038, 2039, 2099, 9999])
def test_key_may_expire_after_2038(data: Repositories, tenant: Tenant, year: int) -> None:
    key = _add(data, tenant, expires_at=datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert data.api_keys.get_own(key.guid, tenant_id=tenant.id) == key


def test_rotate_changes_only_the_digests(data: Repositories, tenant: Tenant) -> None:
    key, other = _add(data, tenant), _add(data, tenant)
    digests = {"secret_sha256": "d" * 64, "former_sha256": key.secret_sha256, "former_secret_until": LATER}
    refused = {"name": "another", "scopes": frozenset(Scope), "revoked_at": LATER, "expires_at": LATER}
    data.api_keys.rotate(key.model_copy(update=digests | refused), tenant_id=tenant.id)
    assert _listed(data, tenant) == [key.model_copy(update=digests), other]


def test_another_tenant_cannot_rotate(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    key = _add(data, tenant)
    rotated = key.model_copy(update={"secret_sha256": "d" * 64, "tenant_id": stranger.id})
    data.api_keys.rotate(rotated, tenant_id=stranger.id)
    assert data.api_keys.get_own(key.guid, tenant_id=tenant.id) == key


@pytest.mark.parametrize(
    ("last", "noted"),
    [(None, True), (MOMENT - SECOND, True), (MOMENT, True), (MOMENT + SECOND, False)],
    ids=["never", "before", "just then", "since"],
)
def test_use_is_recorded_unless_a_recent_one_is(
    data: Repositories, tenant: Tenant, last: datetime | None, *, noted: bool
) -> None:
    key, other = _add(data, tenant, last_used_at=last), _add(data, tenant)
    data.api_keys.note_use(key.guid, tenant_id=tenant.id, at=LATER, unless_since=MOMENT)
    expected = key.model_copy(update={"last_used_at": LATER if noted else last})
    assert _listed(data, tenant) == [expected, other]


def test_another_tenant_cannot_record_a_use(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    key = _add(data, tenant)
    data.api_keys.note_use(key.guid, tenant_id=stranger.id, at=LATER, unless_since=MOMENT)
    assert data.api_keys.get_own(key.guid, tenant_id=tenant.id) == key


def test_delete_of_tenant_removes_only_its_keys(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    _add(data, tenant)
    kept = _add(data, stranger)
    data.api_keys.delete_of_tenant(tenant_id=tenant.id)
    assert _listed(data, tenant) == []
    assert _listed(data, stranger) == [kept]


@pytest.mark.parametrize("status", [TenantStatus.SUSPENDED, TenantStatus.DELETING])
def test_key_of_inactive_tenant_is_no_administrator(data: Repositories, tenant: Tenant, status: TenantStatus) -> None:
    _add(data, tenant, scopes=ADMINISTRATOR)
    data.tenants.update(tenant.model_copy(update={"status": status}))
    assert not data.api_keys.active_administrator_exists(at=LATER)
