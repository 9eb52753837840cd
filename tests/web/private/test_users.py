"""The tenant's users over HTTP."""

import uuid

import pytest

from pixyproxy.core.models.principal import Role
from tests.conftest import on_both_databases
from tests.support.identity import PASSWORD, Account, Json, audit_entries, bearer, make_user, sign_in
from tests.support.problems import assert_problem
from tests.support.server import TenantClient
from tests.web.builders import ABSENT_GUID
from tests.web.public.test_image_cursors import next_of

pytestmark = on_both_databases

NEW_PASSWORD = "passwörter haben 🦊 darin"


def listed(owner: TenantClient, account: Account) -> Json:
    """Return a user from the list."""
    users: list[Json] = owner.http.get("/user").json()
    return {user["guid"]: user for user in users}[account.guid]


def test_user_is_created_and_listed_without_password(owner: TenantClient) -> None:
    username = f"{uuid.uuid4()}@Example.ORG"
    made = owner.http.post("/user", json={"username": username, "password": NEW_PASSWORD})
    assert made.status_code == 201
    user = made.json()
    assert user.keys() == {"guid", "username", "role", "status", "created_at", "updated_at", "last_sign_in_at"}
    assert (user["username"], user["role"], user["status"]) == (username.lower(), "member", "active")
    answer = owner.http.get("/user")
    assert answer.json() == [user]
    assert "argon2" not in answer.text
    account = Account(user["guid"], username, NEW_PASSWORD)
    sign_in(owner.http, account)
    assert listed(owner, account)["last_sign_in_at"] is not None


def test_users_are_listed_in_pages(owner: TenantClient, stranger: TenantClient) -> None:
    guids = [make_user(owner.http).guid for _ in range(3)]
    first = owner.http.get("/user", params={"limit": 2})
    following = next_of(first)
    assert following is not None
    second = owner.http.get(following)
    assert [user["guid"] for page in (first, second) for user in page.json()] == guids
    assert (len(first.json()), next_of(second)) == (2, None)
    query = following.partition("?")[2]
    assert_problem(owner.http.get(f"/key?{query}"), 400, "invalid_cursor")
    assert_problem(stranger.http.get(f"/user?{query}"), 400, "invalid_cursor")
    assert_problem(owner.http.get("/user", params={"limit": 101}), 422, "invalid_request")


def test_username_is_unique_on_the_server(owner: TenantClient, stranger: TenantClient) -> None:
    account = make_user(owner.http)
    for http in (owner.http, stranger.http):
        order = {"username": account.username.upper(), "password": PASSWORD}
        assert_problem(http.post("/user", json=order), 409, "user_exists")
    assert stranger.http.get("/user").json() == []


@pytest.mark.parametrize(
    "order",
    [
        {"username": "a"},
        {"username": "", "password": PASSWORD},
        {"username": "with space", "password": PASSWORD},
        {"username": "ünïcode", "password": PASSWORD},
        {"username": "a\n", "password": PASSWORD},
        {"username": "a" * 129, "password": PASSWORD},
        {"username": "a", "password": "too short"},
        {"username": "a", "password": "a" * 257},
        {"username": "a", "password": PASSWORD, "role": "root"},
    ],
)
def test_invalid_user_is_rejected(order: Json, owner: TenantClient) -> None:
    answer = owner.http.post("/user", json=order)
    assert_problem(answer, 422, "invalid_request")
    assert order.get("password", "nothing") not in answer.text
    assert owner.http.get("/user").json() == []


def test_new_role_applies_at_once_to_issued_tokens(owner: TenantClient) -> None:
    account = make_user(owner.http, Role.TENANT_ADMIN)
    token = sign_in(owner.http, account)["access_token"]
    assert owner.http.get("/user", headers=bearer(token)).status_code == 200
    changed = owner.http.patch(f"/user/{account.guid}", json={"role": "viewer"})
    assert (changed.status_code, changed.json()["role"]) == (200, "viewer")
    assert_problem(owner.http.get("/user", headers=bearer(token)), 403, "scope_missing")


def test_new_password_ends_existing_sign_ins(owner: TenantClient) -> None:
    account = make_user(owner.http)
    tokens = sign_in(owner.http, account)
    changed = owner.http.patch(f"/user/{account.guid}", json={"password": NEW_PASSWORD})
    assert changed.status_code == 200
    assert NEW_PASSWORD not in changed.text
    assert owner.http.get("/me", headers=bearer(tokens["access_token"])).status_code == 401
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert owner.http.post("/auth/token", data=form).status_code == 400
    assert owner.http.post("/auth/token", data=account.password_form).status_code == 400
    sign_in(owner.http, Account(account.guid, account.username, NEW_PASSWORD))


def test_disabled_user_cannot_sign_in_until_enabled(owner: TenantClient) -> None:
    account = make_user(owner.http)
    token = sign_in(owner.http, account)["access_token"]
    assert owner.http.patch(f"/user/{account.guid}", json={"status": "disabled"}).json()["status"] == "disabled"
    assert owner.http.get("/me", headers=bearer(token)).status_code == 401
    assert owner.http.post("/auth/token", data=account.password_form).status_code == 400
    owner.http.patch(f"/user/{account.guid}", json={"status": "active"})
    assert owner.http.get("/me", headers=bearer(token)).status_code == 401
    sign_in(owner.http, account)


def test_deleted_user_is_removed_and_name_is_available(owner: TenantClient) -> None:
    account = make_user(owner.http)
    token = sign_in(owner.http, account)["access_token"]
    assert owner.http.delete(f"/user/{account.guid}").status_code == 204
    assert owner.http.get("/me", headers=bearer(token)).status_code == 401
    assert_problem(owner.http.delete(f"/user/{account.guid}"), 404, "user_not_found")
    again = owner.http.post("/user", json={"username": account.username, "password": PASSWORD})
    assert again.status_code == 201
    assert again.json()["guid"] != account.guid


def test_unknown_user_is_not_changed(owner: TenantClient) -> None:
    for name in (ABSENT_GUID, "nonsense"):
        assert_problem(owner.http.patch(f"/user/{name}", json={}), 404, "user_not_found")


def test_every_user_action_is_audited(owner: TenantClient) -> None:
    account = make_user(owner.http)
    sign_in(owner.http, account)
    owner.http.post("/auth/token", data={**account.password_form, "password": NEW_PASSWORD})
    owner.http.patch(f"/user/{account.guid}", json={"password": NEW_PASSWORD, "role": "viewer"})
    owner.http.delete(f"/user/{account.guid}")
    entries = audit_entries(owner.http, target=account.guid)
    assert [entry["action"] for entry in entries] == [
        *("user.deleted", "user.changed", "sign_in.failed", "sign_in.succeeded", "user.created")
    ]
    assert entries[1]["details"] == {"username": account.username, "role": "viewer", "password": "changed"}
    assert NEW_PASSWORD not in str(entries)
