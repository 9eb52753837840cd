"""The ``users`` repository."""

from datetime import timedelta

import pytest
from pydantic import SecretStr

from pixyproxy.core.exceptions import UserExistsException
from pixyproxy.core.models.principal import Role
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.core.models.user import StoredUser, UserGuid, UserStatus
from pixyproxy.data.database import Repositories
from tests.support.builders import LATER, MOMENT, new_guid, new_user

SECOND = timedelta(seconds=1)


def _add(data: Repositories, tenant: Tenant, **changes: object) -> StoredUser:
    user = new_user(tenant.id, **changes)
    data.users.insert(user)
    return user


def _listed(data: Repositories, tenant: Tenant) -> list[StoredUser]:
    """Return all users of a tenant."""
    return [each for _, each in data.users.list_of_tenant(tenant_id=tenant.id, after=0, limit=100)]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("status", UserStatus)
def test_every_column_round_trips(data: Repositories, tenant: Tenant, role: Role, status: UserStatus) -> None:
    user = _add(data, tenant, role=role, status=status, updated_at=LATER, last_sign_in_at=LATER + SECOND)
    assert data.users.get_own(user.guid, tenant_id=tenant.id) == user
    assert data.users.find_for_sign_in(user.username) == user


def test_longest_values_fit(data: Repositories, tenant: Tenant) -> None:
    user = _add(data, tenant, username="a" * 128, password_hash=SecretStr("h" * 255))
    assert data.users.find_for_sign_in("a" * 128) == user


def test_user_who_never_signed_in_has_no_last_sign_in(data: Repositories, tenant: Tenant) -> None:
    user = _add(data, tenant, last_sign_in_at=None)
    assert data.users.get_own(user.guid, tenant_id=tenant.id) == user


def test_unknown_user_returns_none(data: Repositories, tenant: Tenant) -> None:
    assert data.users.find_for_sign_in("nobody@example.org") is None
    assert data.users.get_own(new_guid(), tenant_id=tenant.id) is None


@pytest.mark.parametrize("name", ["ann@example.org ", "ann@example_org", "ann@example%", "", "ann@example.örg", "\0"])
def test_similar_name_is_not_found(data: Repositories, tenant: Tenant, name: str) -> None:
    _add(data, tenant, username="ann@example.org")
    assert data.users.find_for_sign_in(name) is None


def test_name_is_unique_on_the_server(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant)
    with pytest.raises(UserExistsException):
        _add(data, stranger, username=user.username)
    assert _listed(data, stranger) == []
    assert data.users.find_for_sign_in(user.username) == user


def test_name_of_a_deleted_user_is_available(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant)
    data.users.delete(user.guid, tenant_id=tenant.id)
    successor = _add(data, stranger, username=user.username)
    assert data.users.find_for_sign_in(user.username) == successor


def test_tenant_lists_its_own_users_oldest_first(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    users = [_add(data, tenant, username=name) for name in ("c", "a", "b")]
    _add(data, stranger)
    assert _listed(data, tenant) == users


def test_another_tenants_user_is_not_found(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant)
    assert data.users.get_own(user.guid, tenant_id=stranger.id) is None


def test_update_writes_only_changeable_columns_of_that_user(data: Repositories, tenant: Tenant) -> None:
    user, other = _add(data, tenant), _add(data, tenant)
    allowed = {
        "password_hash": SecretStr("another"),
        "role": Role.TENANT_ADMIN,
        "status": UserStatus.DISABLED,
        "updated_at": LATER,
    }
    refused = {"username": "other", "created_at": LATER, "last_sign_in_at": LATER}
    data.users.update(user.model_copy(update=allowed | refused), tenant_id=tenant.id)
    assert _listed(data, tenant) == [user.model_copy(update=allowed), other]


def test_another_tenant_cannot_update(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant)
    changed = user.model_copy(update={"role": Role.OPERATOR, "tenant_id": stranger.id})
    data.users.update(changed, tenant_id=stranger.id)
    assert data.users.get_own(user.guid, tenant_id=tenant.id) == user
    assert _listed(data, stranger) == []


def test_sign_in_is_recorded_only_for_that_user(data: Repositories, tenant: Tenant) -> None:
    user, other = _add(data, tenant), _add(data, tenant)
    data.users.note_sign_in(user.guid, tenant_id=tenant.id, at=LATER)
    noted = user.model_copy(update={"last_sign_in_at": LATER})
    assert _listed(data, tenant) == [noted, other]


def test_another_tenant_cannot_record_a_sign_in(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant, last_sign_in_at=MOMENT)
    data.users.note_sign_in(user.guid, tenant_id=stranger.id, at=LATER)
    assert data.users.get_own(user.guid, tenant_id=tenant.id) == user


def test_delete_removes_only_that_user(data: Repositories, tenant: Tenant) -> None:
    user, other = _add(data, tenant), _add(data, tenant)
    data.users.delete(user.guid, tenant_id=tenant.id)
    assert _listed(data, tenant) == [other]
    assert data.users.find_for_sign_in(user.username) is None


def test_another_tenant_cannot_delete(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant)
    data.users.delete(user.guid, tenant_id=stranger.id)
    data.users.delete(UserGuid(new_guid()), tenant_id=tenant.id)
    assert _listed(data, tenant) == [user]


def test_delete_of_tenant_removes_only_its_users(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    _add(data, tenant)
    _add(data, tenant)
    kept = _add(data, stranger)
    data.users.delete_of_tenant(tenant_id=tenant.id)
    assert _listed(data, tenant) == []
    assert _listed(data, stranger) == [kept]
