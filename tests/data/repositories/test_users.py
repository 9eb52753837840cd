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
    """All of a tenant's, as its lists have them."""
    return [each for _, each in data.users.list_of_tenant(tenant_id=tenant.id, after=0, limit=100)]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("status", UserStatus)
def test_every_column_comes_back_as_it_went_in(
    data: Repositories, tenant: Tenant, role: Role, status: UserStatus
) -> None:
    user = _add(data, tenant, role=role, status=status, updated_at=LATER, last_sign_in_at=LATER + SECOND)
    assert data.users.get_own(user.guid, tenant_id=tenant.id) == user
    assert data.users.find_for_sign_in(user.username) == user


def test_the_longest_values_fit(data: Repositories, tenant: Tenant) -> None:
    user = _add(data, tenant, username="a" * 128, password_hash=SecretStr("h" * 255))
    assert data.users.find_for_sign_in("a" * 128) == user


def test_who_never_signed_in_has_no_such_time(data: Repositories, tenant: Tenant) -> None:
    user = _add(data, tenant, last_sign_in_at=None)
    assert data.users.get_own(user.guid, tenant_id=tenant.id) == user


def test_an_unknown_user_is_none(data: Repositories, tenant: Tenant) -> None:
    assert data.users.find_for_sign_in("nobody@example.org") is None
    assert data.users.get_own(new_guid(), tenant_id=tenant.id) is None


@pytest.mark.parametrize("name", ["ann@example.org ", "ann@example_org", "ann@example%", "", "ann@example.örg", "\0"])
def test_a_name_that_is_only_like_it_finds_nobody(data: Repositories, tenant: Tenant, name: str) -> None:
    _add(data, tenant, username="ann@example.org")
    assert data.users.find_for_sign_in(name) is None


def test_a_name_is_taken_on_the_whole_server(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant)
    with pytest.raises(UserExistsException):
        _add(data, stranger, username=user.username)
    assert _listed(data, stranger) == []
    assert data.users.find_for_sign_in(user.username) == user


def test_a_name_is_free_again_after_its_user_is_gone(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant)
    data.users.delete(user.guid, tenant_id=tenant.id)
    successor = _add(data, stranger, username=user.username)
    assert data.users.find_for_sign_in(user.username) == successor


def test_a_tenant_lists_its_own_users_oldest_first(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    users = [_add(data, tenant, username=name) for name in ("c", "a", "b")]
    _add(data, stranger)
    assert _listed(data, tenant) == users


def test_another_tenants_user_is_not_found(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant)
    assert data.users.get_own(user.guid, tenant_id=stranger.id) is None


def test_an_update_writes_what_may_change_and_touches_no_other(data: Repositories, tenant: Tenant) -> None:
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


def test_another_tenant_updates_nothing(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant)
    changed = user.model_copy(update={"role": Role.OPERATOR, "tenant_id": stranger.id})
    data.users.update(changed, tenant_id=stranger.id)
    assert data.users.get_own(user.guid, tenant_id=tenant.id) == user
    assert _listed(data, stranger) == []


def test_a_sign_in_is_noted_of_the_user_and_no_other(data: Repositories, tenant: Tenant) -> None:
    user, other = _add(data, tenant), _add(data, tenant)
    data.users.note_sign_in(user.guid, tenant_id=tenant.id, at=LATER)
    noted = user.model_copy(update={"last_sign_in_at": LATER})
    assert _listed(data, tenant) == [noted, other]


def test_another_tenant_notes_no_sign_in(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant, last_sign_in_at=MOMENT)
    data.users.note_sign_in(user.guid, tenant_id=stranger.id, at=LATER)
    assert data.users.get_own(user.guid, tenant_id=tenant.id) == user


def test_deleting_removes_the_user_and_no_other(data: Repositories, tenant: Tenant) -> None:
    user, other = _add(data, tenant), _add(data, tenant)
    data.users.delete(user.guid, tenant_id=tenant.id)
    assert _listed(data, tenant) == [other]
    assert data.users.find_for_sign_in(user.username) is None


def test_another_tenant_deletes_nothing(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    user = _add(data, tenant)
    data.users.delete(user.guid, tenant_id=stranger.id)
    data.users.delete(UserGuid(new_guid()), tenant_id=tenant.id)
    assert _listed(data, tenant) == [user]


def test_a_tenant_that_goes_takes_its_own_users_alone(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    _add(data, tenant)
    _add(data, tenant)
    kept = _add(data, stranger)
    data.users.delete_of_tenant(tenant_id=tenant.id)
    assert _listed(data, tenant) == []
    assert _listed(data, stranger) == [kept]
