"""PATCH /image/{guid}: a tenant changes only the changeable fields of its own images."""

import uuid

import httpx2
import pytest

from pixyproxy.core.models.principal import Scope
from tests.support.problems import assert_problem, without_request_id
from tests.support.server import RunningServer, TenantClient
from tests.web.builders import ABSENT_GUID, make_image, tenant_with

pytestmark = pytest.mark.usefixtures("upstream")

NOT_TO_BE_SET = {
    "id": 1,
    "guid": ABSENT_GUID,
    "tenant_id": 1,
    "tenant": "default",
    "sha256": "0" * 64,
    "byte_size": 1,
    "created_at": "2020-01-01T00:00:00Z",
    "prompt": "another",
    "role": "admin",
    "scopes": ["admin"],
    "content_url": "https://evil.test/",
}


def test_change_of_one_field_keeps_others(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    made = make_image(tenant, filename="fox.png", visibility="public")
    renamed = tenant.http.patch(f"/image/{made['guid']}", json={"filename": "dawn ü.png"})
    assert renamed.status_code == 200
    expected = made | {"filename": "dawn ü.png", "updated_at": renamed.json()["updated_at"]}
    assert renamed.json() == expected
    assert anonymous.get(f"/image/{made['guid']}").json() == expected


def test_visibility_changes_to_private_and_back(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    path = f"/image/{make_image(tenant, visibility='public')['guid']}"
    assert tenant.http.patch(path, json={"visibility": "private"}).json()["visibility"] == "private"
    assert anonymous.get(path).status_code == 404
    assert tenant.http.patch(path, json={"visibility": "public"}).json()["visibility"] == "public"
    assert anonymous.get(path).status_code == 200


def test_an_empty_change_changes_nothing(tenant: TenantClient) -> None:
    made = make_image(tenant)
    answer = tenant.http.patch(f"/image/{made['guid']}", json={})
    assert answer.json() | {"updated_at": made["updated_at"]} == made


@pytest.mark.parametrize("visibility", ["public", "private"])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_image_of_another_tenant_looks_absent(
    method: str, visibility: str, tenant: TenantClient, server: RunningServer
) -> None:
    made = make_image(tenant, visibility=visibility)
    other = tenant_with(server, str(uuid.uuid4()), *Scope)
    body = {"json": {"filename": "stolen.png"}} if method == "PATCH" else {}
    with other.http:
        foreign = other.http.request(method, f"/image/{made['guid']}", **body)  # type: ignore[arg-type]
        absent = other.http.request(method, f"/image/{ABSENT_GUID}", **body)  # type: ignore[arg-type]
    assert_problem(foreign, 404, "image_not_found")
    assert without_request_id(foreign) == without_request_id(absent)
    assert tenant.http.get(f"/image/{made['guid']}").json() == made
    assert tenant.http.get(f"/image/{made['guid']}/content").status_code == 200


@pytest.mark.parametrize("name", NOT_TO_BE_SET)
def test_change_rejects_fixed_fields(name: str, tenant: TenantClient) -> None:
    made = make_image(tenant)
    body = {"filename": "x.png", name: NOT_TO_BE_SET[name]}
    problem = assert_problem(tenant.http.patch(f"/image/{made['guid']}", json=body), 422, "invalid_request")
    assert problem["errors"] == [
        {"loc": ["body", name], "type": "extra_forbidden", "msg": "Extra inputs are not permitted"}
    ]
    assert tenant.http.get(f"/image/{made['guid']}").json() == made


@pytest.mark.parametrize("name", sorted(NOT_TO_BE_SET.keys() - {"prompt"}))
def test_order_rejects_fixed_fields(name: str, tenant: TenantClient) -> None:
    answer = tenant.http.post("/image", json={"prompt": "a fox", name: NOT_TO_BE_SET[name]})
    problem = assert_problem(answer, 422, "invalid_request")
    assert problem["errors"][0]["loc"] == ["body", name]
    assert tenant.http.get("/image", params={"mine": "true"}).json() == []


@pytest.mark.parametrize(
    "body", [{"visibility": "secret"}, {"visibility": 1}, {"filename": 5}, {"filename": "a/b"}, [], "x", 5, True]
)
def test_invalid_change_is_rejected(body: object, tenant: TenantClient) -> None:
    made = make_image(tenant)
    assert_problem(tenant.http.patch(f"/image/{made['guid']}", json=body), 422, "invalid_request")
    assert tenant.http.get(f"/image/{made['guid']}").json() == made


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_managing_requires_scope(method: str, server: RunningServer) -> None:
    owner = tenant_with(server, str(uuid.uuid4()), Scope.IMAGE_READ, Scope.IMAGE_GENERATE)
    with owner.http:
        path = f"/image/{make_image(owner)['guid']}"
        answer = owner.http.request(method, path, json={} if method == "PATCH" else None)
        problem = assert_problem(answer, 403, "scope_missing")
        assert problem["scope"] == "image:manage"
        challenge = 'Bearer realm="pixyproxy", error="insufficient_scope", scope="image:manage"'
        assert answer.headers["www-authenticate"] == challenge
        assert owner.http.get(path).status_code == 200


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_managing_requires_credential(method: str, tenant: TenantClient, anonymous: httpx2.Client) -> None:
    path = f"/image/{make_image(tenant)['guid']}"
    assert_problem(anonymous.request(method, path), 401, "credential_missing")
    assert anonymous.get(path).status_code == 200
