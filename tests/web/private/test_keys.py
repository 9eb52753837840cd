"""The tenant's API keys over HTTP."""

from datetime import UTC, datetime

import pytest

from pixyproxy.core.models.principal import Scope
from tests.support.identity import Json, audit_entries, bearer, make_key
from tests.support.problems import assert_problem, without_request_id
from tests.support.server import TenantClient
from tests.web.builders import ABSENT_GUID
from tests.web.public.test_image_cursors import next_of

LISTED = {
    *("guid", "key_id", "name", "scopes", "allowed_models", "images_per_minute", "created_at", "expires_at"),
    *("last_used_at", "former_secret_until", "revoked_at"),
}


def test_new_key_is_shown_once_and_listed_without_secret(owner: TenantClient) -> None:
    order: Json = {
        "name": " Ключ für 🦊 \u202ereversed\u202c ",
        "scopes": ["image:read", "image:generate"],
        "expires_at": "2099-12-31T23:59:59Z",
        "allowed_models": ["gpt-image-2", "a/b:c"],
        "images_per_minute": 7,
    }
    answer = owner.http.post("/key", json=order)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert made.keys() == LISTED | {"api_key"}
    assert made["name"] == order["name"].strip()
    assert made["scopes"] == ["image:generate", "image:read"]
    assert datetime.fromisoformat(made["expires_at"]) == datetime(2099, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert (made["allowed_models"], made["images_per_minute"]) == (["a/b:c", "gpt-image-2"], 7)
    listed = owner.http.get("/key")
    assert made["api_key"] not in listed.text
    assert made["api_key"].split("_")[2][:43] not in listed.text
    found = {key["guid"]: key for key in listed.json()}[made["guid"]]
    assert found == {name: value for name, value in made.items() if name != "api_key"}
    me = owner.http.get("/me", headers=bearer(made["api_key"])).json()
    assert (me["subject"], me["scopes"], me["allowed_models"]) == (made["guid"], made["scopes"], made["allowed_models"])


def test_keys_are_listed_in_pages(owner: TenantClient, stranger: TenantClient) -> None:
    guids = [key["guid"] for key in owner.http.get("/key").json()]
    guids += [make_key(owner.http, Scope.IMAGE_READ)["guid"] for _ in range(5)]
    owner.http.delete(f"/key/{guids[2]}")
    first = owner.http.get("/key", params={"limit": 4})
    following = next_of(first)
    assert following is not None
    second = owner.http.get(following)
    assert [key["guid"] for page in (first, second) for key in page.json()] == guids
    assert (len(first.json()), next_of(second), next_of(owner.http.get("/key"))) == (4, None, None)
    # A cursor is only valid for its own list and tenant.
    query = following.partition("?")[2]
    assert_problem(owner.http.get(f"/user?{query}"), 400, "invalid_cursor")
    assert_problem(stranger.http.get(f"/key?{query}"), 400, "invalid_cursor")
    for limit in (0, 101):
        assert_problem(owner.http.get("/key", params={"limit": limit}), 422, "invalid_request")


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"name": ""},
        {"name": "  "},
        {"name": "a\nb"},
        {"name": "a" * 256},
        {"name": "a", "scopes": []},
        {"name": "a", "scopes": ["everything"]},
        {"name": "a", "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "a", "expires_at": "2099-01-01T00:00:00"},
        {"name": "a", "images_per_minute": 0},
        {"name": "a", "allowed_models": []},
    ],
)
def test_invalid_key_order_is_rejected(order: dict[str, object], owner: TenantClient) -> None:
    assert_problem(owner.http.post("/key", json=order), 422, "invalid_request")
    assert len(owner.http.get("/key").json()) == 1


def test_rotated_key_accepts_both_secrets_during_grace_period(owner: TenantClient) -> None:
    key = make_key(owner.http, Scope.IMAGE_READ)
    answer = owner.http.post(f"/key/{key['guid']}/rotate")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    rotated = answer.json()
    assert (rotated["guid"], rotated["key_id"]) == (key["guid"], key["key_id"])
    assert rotated["former_secret_until"] is not None
    for secret in (key["api_key"], rotated["api_key"]):
        assert owner.http.get("/me", headers=bearer(secret)).json()["subject"] == key["guid"]
    again = owner.http.post(f"/key/{key['guid'].upper()}/rotate", json={"grace_seconds": 60}).json()
    secrets = (key["api_key"], rotated["api_key"], again["api_key"])
    assert [owner.http.get("/me", headers=bearer(secret)).status_code for secret in secrets] == [401, 200, 200]


def test_rotation_without_grace_revokes_old_secret_at_once(owner: TenantClient) -> None:
    key = make_key(owner.http, Scope.IMAGE_READ)
    owner.http.get("/me", headers=bearer(key["api_key"]))
    rotated = owner.http.post(f"/key/{key['guid']}/rotate", json={"grace_seconds": 0}).json()
    secrets = (key["api_key"], rotated["api_key"])
    assert [owner.http.get("/me", headers=bearer(secret)).status_code for secret in secrets] == [401, 200]


@pytest.mark.parametrize("grace", [-1, 30 * 86_400 + 1, "60", True, 1.5])
def test_grace_period_out_of_bounds_is_rejected(grace: object, owner: TenantClient) -> None:
    key = make_key(owner.http, Scope.IMAGE_READ)
    answer = owner.http.post(f"/key/{key['guid']}/rotate", json={"grace_seconds": grace})
    assert_problem(answer, 422, "invalid_request")


def test_revoked_key_stays_listed_and_cannot_be_rotated(owner: TenantClient) -> None:
    key = make_key(owner.http, Scope.IMAGE_READ)
    for _ in range(2):
        assert owner.http.delete(f"/key/{key['guid']}").status_code == 204
    assert_problem(owner.http.get("/me", headers=bearer(key["api_key"])), 401, "credential_invalid")
    found = {each["guid"]: each for each in owner.http.get("/key").json()}[key["guid"]]
    assert found["revoked_at"] is not None
    assert_problem(owner.http.post(f"/key/{key['guid']}/rotate"), 409, "api_key_revoked")


def test_invalid_guid_is_not_found(owner: TenantClient) -> None:
    absent = owner.http.delete(f"/key/{ABSENT_GUID}")
    assert_problem(absent, 404, "api_key_not_found")
    for name in ("nonsense", "1", "%00", "' OR 1=1 --"):
        assert without_request_id(owner.http.delete(f"/key/{name}"))[1] == without_request_id(absent)[1]


def test_every_key_action_is_audited(owner: TenantClient) -> None:
    key = make_key(owner.http, Scope.IMAGE_READ)
    owner.http.post(f"/key/{key['guid']}/rotate")
    owner.http.delete(f"/key/{key['guid']}")
    entries = audit_entries(owner.http, target=key["guid"])
    assert [entry["action"] for entry in entries] == ["key.revoked", "key.rotated", "key.issued"]
    assert {entry["details"]["key_id"] for entry in entries} == {key["key_id"]}
    assert key["api_key"].split("_")[2] not in str(entries)
