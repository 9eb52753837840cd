"""Users: who may create, change and delete which users, and the effect on sign-ins."""

import logging

import pytest
from pydantic import SecretStr, ValidationError

from pixyproxy.core.exceptions import (
    CredentialInvalidException,
    DatabaseException,
    GrantException,
    InvalidRequestException,
    OAuthGrantException,
    PermissionException,
    UserExistsException,
    UserLimitException,
    UserNotFoundException,
)
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import Actor, Role, SubjectType
from pixyproxy.core.models.tenant import Tenant, TenantGuid
from pixyproxy.core.models.user import MOST_USERS, NewUser, UserChange, UserDetail, UserStatus
from pixyproxy.data.repositories.users import COLUMNS, to_row
from pixyproxy.data.rows import insert_statement, sql
from pixyproxy.service.private.identity.grants import Grantor
from pixyproxy.service.private.identity.oauth.clients import RefreshingClient
from tests.service.private.identities import PASSWORD, Identity, grantor_of
from tests.support.builders import new_guid, new_user

pytestmark = pytest.mark.anyio
ANN = Actor(type=SubjectType.USER, subject=new_guid(), tenant_guid=TenantGuid(new_guid()))
OTHER_PASSWORD = SecretStr("another horse battery staple")


@pytest.fixture
async def user(identity: Identity, tenant: Tenant) -> UserDetail:
    return await identity.create_user(tenant, username="bob@example.org")


def _administrator(tenant: Tenant) -> Grantor:
    return grantor_of(tenant, Role.TENANT_ADMIN.scopes, actor=ANN)


def _order(role: Role = Role.MEMBER, username: str = "carl") -> NewUser:
    return NewUser(username=username, password=PASSWORD, role=role)


async def _is_worthless(identity: Identity, credential: SecretStr) -> bool:
    try:
        await identity.principal(credential)
    except CredentialInvalidException:
        return True
    return False


async def _cannot_refresh(identity: Identity, refresh_token: SecretStr) -> bool:
    try:
        await identity.tokens.refresh(refresh_token, scope=None, client=RefreshingClient())
    except OAuthGrantException:
        return True
    return False


async def test_created_user_has_the_ordered_properties(identity: Identity, tenant: Tenant) -> None:
    user = await identity.users.create_user(_order(Role.VIEWER), grantor=_administrator(tenant))
    assert (user.username, user.role, user.status) == ("carl", Role.VIEWER, UserStatus.ACTIVE)
    assert user.last_sign_in_at is None
    assert (await identity.users.list_users(tenant_id=tenant.id)).items == [user]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.MEMBER, Role.TENANT_ADMIN])
async def test_tenant_administrator_grants_roles_up_to_their_own(
    identity: Identity, tenant: Tenant, role: Role
) -> None:
    assert (await identity.users.create_user(_order(role), grantor=_administrator(tenant))).role is role


async def test_tenant_administrator_cannot_create_an_operator(identity: Identity, tenant: Tenant) -> None:
    with pytest.raises(GrantException):
        await identity.users.create_user(_order(Role.OPERATOR), grantor=_administrator(tenant))
    assert await identity.count("users") == 0
    assert await identity.entries() == []


async def test_role_above_the_grantors_is_rejected(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    with pytest.raises(GrantException):
        await identity.users.change_user(user.guid, UserChange(role=Role.OPERATOR), grantor=_administrator(tenant))
    assert (await identity.users.list_users(tenant_id=tenant.id)).items == [user]


@pytest.mark.parametrize(
    "change",
    [
        UserChange(password=OTHER_PASSWORD),
        UserChange(role=Role.VIEWER),
        UserChange(status=UserStatus.DISABLED),
        UserChange(),
    ],
    ids=["password", "role", "status", "nothing"],
)
async def test_tenant_administrator_cannot_change_an_operator(
    identity: Identity, tenant: Tenant, change: UserChange
) -> None:
    operator = await identity.create_user(tenant, Role.OPERATOR)
    with pytest.raises(PermissionException) as caught:
        await identity.users.change_user(operator.guid, change, grantor=_administrator(tenant))
    assert caught.value.context == {"scope": "admin"}
    assert (await identity.users.list_users(tenant_id=tenant.id)).items == [operator]
    assert await identity.sign_in(operator)


async def test_tenant_administrator_cannot_delete_an_operator(identity: Identity, tenant: Tenant) -> None:
    operator = await identity.create_user(tenant, Role.OPERATOR)
    with pytest.raises(PermissionException):
        await identity.users.delete_user(operator.guid, grantor=_administrator(tenant))
    assert (await identity.users.list_users(tenant_id=tenant.id)).items == [operator]


async def test_user_of_another_tenant_is_reported_as_not_found(
    identity: Identity, tenant: Tenant, stranger: Tenant, user: UserDetail
) -> None:
    told = set()
    for guid in (user.guid, new_guid()):
        for act in (
            identity.users.change_user(guid, UserChange(role=Role.VIEWER), grantor=grantor_of(stranger)),
            identity.users.delete_user(guid, grantor=grantor_of(stranger)),
        ):
            with pytest.raises(UserNotFoundException) as caught:
                await act
            told.add((str(caught.value), str(caught.value.context)))
    assert len(told) == 1
    assert (await identity.users.list_users(tenant_id=tenant.id)).items == [user]
    assert (await identity.users.list_users(tenant_id=stranger.id)).items == []


@pytest.mark.parametrize("name", ["bob@example.org", "BOB@example.org", "Bob@Example.ORG"])
async def test_user_name_is_unique_across_tenants_and_case_insensitive(
    identity: Identity, tenant: Tenant, stranger: Tenant, user: UserDetail, name: str
) -> None:
    for owner in (tenant, stranger):
        with pytest.raises(UserExistsException):
            await identity.create_user(owner, username=name)
    assert await identity.count("users") == 1
    assert user.username == "bob@example.org"
    assert len(await identity.entries(AuditAction.USER_CREATED)) == 1


@pytest.mark.parametrize("name", ["", " bob", "bob ", "bob\n", "b\0b", "böb", "-bob", "b" * 129, "bob/carl"])
def test_invalid_user_name_is_rejected(name: str) -> None:
    with pytest.raises(ValidationError):
        _order(username=name)


@pytest.mark.parametrize("password", ["x" * 11, "x" * 257, "\ud800" * 12])
def test_rejected_password_is_not_quoted(password: str) -> None:
    with pytest.raises(ValidationError) as caught:
        NewUser.model_validate({"username": "carl", "password": password})
    assert password not in str(caught.value)


@pytest.mark.parametrize("password", ["", "x" * 11, "x" * 257, "\ud800" * 12])
async def test_invalid_password_is_rejected(
    identity: Identity, tenant: Tenant, user: UserDetail, password: str
) -> None:
    with pytest.raises(ValidationError):
        NewUser.model_validate({"username": "carl", "password": password})
    unchecked = UserChange.model_construct(password=SecretStr(password), _fields_set={"password"})
    with pytest.raises(InvalidRequestException):
        await identity.users.change_user(user.guid, unchecked, grantor=grantor_of(tenant))


async def test_new_password_ends_every_sign_in(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    sessions = [await identity.sign_in(user) for _ in range(2)]
    for issued, _ in sessions:
        assert await identity.principal(issued.access_token)
    await identity.users.change_user(user.guid, UserChange(password=OTHER_PASSWORD), grantor=grantor_of(tenant))
    for issued, refresh_token in sessions:
        assert identity.recognized.get(issued.access_token) is None
        assert await _is_worthless(identity, issued.access_token)
        assert await _cannot_refresh(identity, refresh_token)
    with pytest.raises(OAuthGrantException):
        await identity.sign_in(user)
    again = await identity.tokens.sign_in(user.username, OTHER_PASSWORD, scope=None, client_id=None)
    assert await identity.principal(again.access_token)


async def test_disabling_a_user_ends_every_sign_in_permanently(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    issued, refresh_token = await identity.sign_in(user)
    grantor = grantor_of(tenant)
    disabled = await identity.users.change_user(user.guid, UserChange(status=UserStatus.DISABLED), grantor=grantor)
    assert disabled.status is UserStatus.DISABLED
    assert await _is_worthless(identity, issued.access_token)
    with pytest.raises(OAuthGrantException):
        await identity.sign_in(user)
    await identity.users.change_user(user.guid, UserChange(status=UserStatus.ACTIVE), grantor=grantor)
    assert await _is_worthless(identity, issued.access_token)
    assert await _cannot_refresh(identity, refresh_token)
    assert await identity.sign_in(user)


async def test_deleting_a_user_invalidates_every_token(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    issued, refresh_token = await identity.sign_in(user)
    await identity.users.delete_user(user.guid, grantor=grantor_of(tenant))
    assert (await identity.users.list_users(tenant_id=tenant.id)).items == []
    assert await _is_worthless(identity, issued.access_token)
    assert await _cannot_refresh(identity, refresh_token)
    with pytest.raises(OAuthGrantException):
        await identity.sign_in(user)


async def test_new_user_with_the_same_name_inherits_nothing(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    issued, refresh_token = await identity.sign_in(user)
    await identity.users.delete_user(user.guid, grantor=grantor_of(tenant))
    await identity.create_user(tenant, username=user.username)
    assert await _is_worthless(identity, issued.access_token)
    assert await _cannot_refresh(identity, refresh_token)


async def test_ending_the_sign_ins_of_one_user_keeps_others(
    identity: Identity, tenant: Tenant, user: UserDetail
) -> None:
    other = await identity.create_user(tenant)
    issued, _ = await identity.sign_in(other)
    await identity.users.change_user(user.guid, UserChange(password=OTHER_PASSWORD), grantor=grantor_of(tenant))
    await identity.users.delete_user(user.guid, grantor=grantor_of(tenant))
    assert await identity.principal(issued.access_token)


async def test_role_change_keeps_the_sign_in(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    issued, refresh_token = await identity.sign_in(user)
    await identity.users.change_user(user.guid, UserChange(role=Role.VIEWER), grantor=grantor_of(tenant))
    assert (await identity.principal(issued.access_token)).scopes == Role.VIEWER.scopes
    assert not await _cannot_refresh(identity, refresh_token)


async def test_change_sets_only_the_given_fields(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    changed = await identity.users.change_user(user.guid, UserChange(role=Role.VIEWER), grantor=_administrator(tenant))
    assert changed == user.model_copy(update={"role": Role.VIEWER, "updated_at": changed.updated_at})
    assert (await identity.users.list_users(tenant_id=tenant.id)).items == [changed]


async def test_each_action_has_one_audit_entry(identity: Identity, tenant: Tenant) -> None:
    grantor = _administrator(tenant)
    user = await identity.users.create_user(_order(), grantor=grantor)
    change = UserChange(password=OTHER_PASSWORD, role=Role.VIEWER, status=UserStatus.DISABLED)
    await identity.users.change_user(user.guid, change, grantor=grantor)
    await identity.users.delete_user(user.guid, grantor=grantor)
    deleted, changed, created = await identity.entries()
    for entry in (deleted, changed, created):
        assert (entry.actor_type, entry.actor, entry.actor_tenant_guid) == (ANN.type, ANN.subject, ANN.tenant_guid)
        assert (entry.tenant_guid, entry.target) == (tenant.guid, user.guid)
    assert (created.action, created.details) == (AuditAction.USER_CREATED, {"username": "carl", "role": "member"})
    assert changed.action is AuditAction.USER_CHANGED
    assert changed.details == {"username": "carl", "role": "viewer", "status": "disabled", "password": "changed"}
    assert (deleted.action, deleted.details) == (AuditAction.USER_DELETED, {"username": "carl"})


async def test_passwords_and_hashes_appear_in_no_log_audit_entry_or_repr(
    identity: Identity, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    order = _order()
    user = await identity.users.create_user(order, grantor=grantor_of(tenant))
    change = UserChange(password=OTHER_PASSWORD)
    changed = await identity.users.change_user(user.guid, change, grantor=grantor_of(tenant))
    with pytest.raises(OAuthGrantException):
        await identity.sign_in(user)
    stored = await identity.database.read(lambda data: data.users.get_own(user.guid, tenant_id=tenant.id))
    shown = caplog.text + repr((order, user, change, changed, stored)) + repr(await identity.entries())
    assert stored is not None
    shown += stored.model_dump_json() + order.model_dump_json() + changed.model_dump_json()
    for secret in (PASSWORD, OTHER_PASSWORD, stored.password_hash):
        assert secret.get_secret_value() not in shown
    assert "argon2" not in shown


async def test_change_without_audit_entry_is_rolled_back(identity: Identity, tenant: Tenant, user: UserDetail) -> None:
    issued, refresh_token = await identity.sign_in(user)
    await identity.break_audit_log()
    with pytest.raises(DatabaseException):
        await identity.create_user(tenant)
    with pytest.raises(DatabaseException):
        await identity.users.change_user(user.guid, UserChange(password=OTHER_PASSWORD), grantor=grantor_of(tenant))
    with pytest.raises(DatabaseException):
        await identity.users.delete_user(user.guid, grantor=grantor_of(tenant))
    (kept,) = (await identity.users.list_users(tenant_id=tenant.id)).items
    assert kept.model_copy(update={"last_sign_in_at": None}) == user
    assert await identity.principal(issued.access_token)
    assert await identity.count("refresh_tokens") == 1
    assert refresh_token


async def test_number_of_users_is_limited(identity: Identity, tenant: Tenant, stranger: Tenant) -> None:
    made = await identity.create_user(tenant)
    row = to_row(new_user(tenant.id))
    users = [row | {"guid": f"guid {number}", "username": f"user{number}"} for number in range(MOST_USERS - 1)]
    statement = sql(insert_statement("users", COLUMNS))
    await identity.database.write(lambda data: data.connection.execute(statement, users))
    with pytest.raises(UserLimitException):
        await identity.create_user(tenant)
    assert await identity.create_user(stranger)
    await identity.users.delete_user(made.guid, grantor=grantor_of(tenant))
    assert await identity.create_user(tenant)
