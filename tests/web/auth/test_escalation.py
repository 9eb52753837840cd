"""Privilege escalation, through undeclared or allowed fields of a body, is rejected."""

from typing import Any

import httpx2
import pytest

from pixyproxy.core.models.principal import Role, Scope
from pixyproxy.web.app import create_app
from tests.support.identity import (
    EVERY_SCOPE,
    PASSWORD,
    Json,
    bearer,
    make_key,
    make_user,
    sign_in,
)
from tests.support.problems import assert_problem
from tests.support.server import TenantClient, make_settings
from tests.web.builders import ABSENT_GUID

ASSIGNED: Json = {
    "tenant_id": 1,
    "tenant_guid": ABSENT_GUID,
    "tenant": ABSENT_GUID,
    "role": "operator",
    "scopes": ["admin"],
    "scope": "admin",
    "id": 1,
    "guid": ABSENT_GUID,
    "is_admin": True,
    "status": "active",
    "subject": ABSENT_GUID,
    "created_at": "2026-11-21T00:00:00Z",
}
"""Fields worth assigning, in bodies that do not declare them."""


def json_bodies(document: Json) -> dict[str, Json]:
    """Return route → schema of its JSON body, except for ``/v1``, which passes fields on."""
    found = {}
    for path, methods in document["paths"].items():
        if path.startswith("/v1/"):
            continue
        for method, operation in methods.items():
            schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            if schema is not None:
                found[f"{method.upper()} {path}"] = resolved(schema, document)
    return found


def resolved(schema: Json, document: Json) -> Json:
    """Return the object schema behind a reference, or behind a choice between it and null."""
    reference: str = (schema.get("anyOf") or [schema])[0]["$ref"]
    found: Any = document["components"]["schemas"][reference.rpartition("/")[2]]
    return dict(found)


@pytest.fixture(scope="session")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    """Return the JSON bodies of the OpenAPI document."""
    return json_bodies(create_app(make_settings(tmp_path_factory.mktemp("document"))).openapi())


@pytest.mark.parametrize("field", ASSIGNED)
def test_undeclared_field_is_rejected(field: str, owner: TenantClient, bodies: dict[str, Json]) -> None:
    routes = [route for route, schema in bodies.items() if field not in schema["properties"]]
    assert len(routes) >= 7
    for route in routes:
        method, path = route.replace("{guid}", ABSENT_GUID).split()
        answer = owner.http.request(method, path, json={field: ASSIGNED[field]})
        problem = assert_problem(answer, 422, "invalid_request")
        assert (["body", field], "extra_forbidden") in [(each["loc"], each["type"]) for each in problem["errors"]], (
            route
        )


def test_all_bodies_are_known(bodies: dict[str, Json]) -> None:
    assert sorted(bodies) == [
        "PATCH /admin/tenant/{guid}",
        "PATCH /image/{guid}",
        "PATCH /user/{guid}",
        "POST /admin/generation/{guid}/resolve",
        "POST /admin/tenant",
        "POST /admin/token",
        "POST /generation",
        "POST /image",
        "POST /key",
        "POST /key/{guid}/rotate",
        "POST /user",
        "POST /webhook",
        "POST /webhook/{guid}/rotate",
    ]


@pytest.mark.parametrize("scope", sorted(set(Scope) - {Scope.KEY_MANAGE}))
def test_key_cannot_create_key_with_more_scopes(scope: Scope, owner: TenantClient) -> None:
    others = EVERY_SCOPE - {scope} | {Scope.KEY_MANAGE}
    maker = make_key(owner.http, *others)
    before = owner.http.get("/key").json()
    order = {"name": "more", "scopes": sorted({scope, Scope.IMAGE_READ})}
    answer = owner.http.post("/key", json=order, headers=bearer(maker["api_key"]))
    assert_problem(answer, 422, "grant_exceeds_caller")
    assert [key["guid"] for key in owner.http.get("/key").json()] == [key["guid"] for key in before]


def test_key_can_create_key_with_equal_scopes(owner: TenantClient) -> None:
    scopes = [Scope.IMAGE_READ, Scope.KEY_MANAGE]
    maker = make_key(owner.http, *scopes)
    answer = owner.http.post("/key", json={"name": "alike", "scopes": scopes}, headers=bearer(maker["api_key"]))
    assert (answer.status_code, answer.json()["scopes"]) == (201, scopes)


@pytest.mark.parametrize("credential", ["key", "user"])
def test_tenant_admin_cannot_create_operator(credential: str, owner: TenantClient) -> None:
    headers = tenant_admin(owner.http, credential)
    before = owner.http.get("/user").json()
    order = {"username": f"{credential}-{owner.guid}", "password": PASSWORD, "role": "operator"}
    assert_problem(owner.http.post("/user", json=order, headers=headers), 422, "grant_exceeds_caller")
    member = make_user(owner.http)
    change = owner.http.patch(f"/user/{member.guid}", json={"role": "operator"}, headers=headers)
    assert_problem(change, 422, "grant_exceeds_caller")
    users = owner.http.get("/user").json()
    assert len(users) == len(before) + 1
    assert "operator" not in {user["role"] for user in users}


@pytest.mark.parametrize("credential", ["key", "user"])
@pytest.mark.parametrize("change", [{"password": "a password of mine"}, {"role": "viewer"}, {"status": "disabled"}, {}])
def test_tenant_admin_cannot_change_operator(change: Json, credential: str, owner: TenantClient) -> None:
    operator = make_user(owner.http, Role.OPERATOR)
    before = owner.http.get("/user").json()
    headers = tenant_admin(owner.http, credential)
    path = f"/user/{operator.guid}"
    assert_problem(owner.http.patch(path, json=change, headers=headers), 403, "scope_missing")
    assert_problem(owner.http.delete(path, headers=headers), 403, "scope_missing")
    after = {user["guid"]: user for user in owner.http.get("/user").json()}
    assert [after[user["guid"]] for user in before] == before
    sign_in(owner.http, operator)


@pytest.mark.parametrize("credential", ["key", "user"])
def test_tenant_admin_cannot_get_administrator_key(credential: str, owner: TenantClient) -> None:
    administrators = make_key(owner.http, *EVERY_SCOPE)
    headers = tenant_admin(owner.http, credential)
    path = f"/key/{administrators['guid']}"
    answer = owner.http.post(f"{path}/rotate", json={"grace_seconds": 0}, headers=headers)
    assert_problem(answer, 403, "scope_missing")
    assert "api_key" not in answer.json()
    assert_problem(owner.http.delete(path, headers=headers), 403, "scope_missing")
    assert owner.http.get("/admin/tenant", headers=bearer(administrators["api_key"])).status_code == 200


def test_narrowed_token_grants_only_its_own_scopes(owner: TenantClient) -> None:
    admin = make_user(owner.http, Role.TENANT_ADMIN)
    narrow = bearer(sign_in(owner.http, admin, scope="key:manage")["access_token"])
    answer = owner.http.post("/key", json={"name": "default scopes"}, headers=narrow)
    assert_problem(answer, 422, "grant_exceeds_caller")
    order = {"name": "the same", "scopes": ["key:manage"]}
    assert owner.http.post("/key", json=order, headers=narrow).status_code == 201


def tenant_admin(owner: httpx2.Client, credential: str) -> dict[str, str]:
    """Return the header of a tenant_admin user, or of a key with the same permissions."""
    if credential == "user":
        return bearer(sign_in(owner, make_user(owner, Role.TENANT_ADMIN))["access_token"])
    return bearer(make_key(owner, *Role.TENANT_ADMIN.scopes)["api_key"])
