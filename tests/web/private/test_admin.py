"""Administration over HTTP: tenants, their tokens, the audit log, and unknown outcomes."""

import hashlib
import uuid
from datetime import timedelta

import httpx2
import pytest

from pixyproxy.core import clock
from pixyproxy.core.models.generation import GenerationStatus
from pixyproxy.data.database import Repositories
from pixyproxy.service.composition import Services
from tests.conftest import on_both_databases
from tests.support.builders import new_generation
from tests.support.identity import EVERY_SCOPE, Json, audit_entries, bearer, make_tenant, make_user, order_token
from tests.support.problems import assert_problem
from tests.support.server import RunningServer, TenantClient
from tests.web.builders import ABSENT_GUID, make_image

pytestmark = on_both_databases

DETAIL = {
    *("guid", "name", "status", "created_at", "default_visibility", "images_per_minute", "monthly_budget_usd"),
    "allowed_models",
}


def test_tenant_is_created_with_every_field(owner: TenantClient) -> None:
    order = {
        "name": f"Größe 🦊 \u200fعرب {uuid.uuid4()}",
        "status": "suspended",
        "default_visibility": "private",
        "images_per_minute": 3,
        "monthly_budget_usd": 0.000001,
        "allowed_models": ["gpt-image-2"],
    }
    answer = owner.http.post("/admin/tenant", json=order)
    assert answer.status_code == 201
    made = answer.json()
    assert made.keys() == DETAIL
    assert {name: made[name] for name in order} == order
    assert answer.headers["location"] == f"/admin/tenant/{made['guid']}"
    assert owner.http.get(answer.headers["location"]).json() == made
    assert made in owner.http.get("/admin/tenant").json()
    assert_problem(owner.http.post("/admin/tenant", json=order), 409, "tenant_exists")


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"name": " "},
        {"name": "a\u2028b"},
        {"name": "a", "status": "deleting"},
        {"name": "a", "monthly_budget_usd": -1},
        {"name": "a", "monthly_budget_usd": 0.0000001},
        {"name": "a", "monthly_budget_usd": "NaN"},
        {"name": "a", "images_per_minute": "3"},
        {"name": "a", "allowed_models": [""]},
    ],
)
def test_invalid_tenant_is_rejected(order: Json, owner: TenantClient) -> None:
    assert_problem(owner.http.post("/admin/tenant", json=order), 422, "invalid_request")


def test_change_sets_given_fields_and_null_removes_limits(owner: TenantClient) -> None:
    limits = {"images_per_minute": 3, "monthly_budget_usd": 12.5, "allowed_models": ["a", "b"]}
    tenant = make_tenant(owner.http, default_visibility="private", **limits)
    path = f"/admin/tenant/{tenant['guid']}"
    assert owner.http.patch(path, json={}).json() == tenant
    name = f"renamed {uuid.uuid4()}"
    assert owner.http.patch(path, json={"name": name}).json() == {**tenant, "name": name}
    unset = dict.fromkeys(limits)
    assert owner.http.patch(path, json=unset).json() == {**tenant, "name": name, **unset}
    for field in ("name", "status", "default_visibility"):
        assert_problem(owner.http.patch(path, json={field: None}), 422, "invalid_request")
    assert_problem(owner.http.patch(path, json={"name": make_tenant(owner.http)["name"]}), 409, "tenant_exists")
    assert owner.http.get(path).json() == {**tenant, "name": name, **unset}


@pytest.mark.usefixtures("upstream")
def test_suspended_tenant_is_hidden_and_blocked_until_reactivated(
    owner: TenantClient, stranger: TenantClient, anonymous: httpx2.Client
) -> None:
    picture = make_image(stranger, visibility="public")
    paths = [f"/image/{picture['guid']}", f"/image/{picture['guid']}/content"]
    tenant = f"/admin/tenant/{stranger.guid}"
    assert owner.http.patch(tenant, json={"status": "suspended"}).status_code == 200
    for path in paths:
        assert_problem(anonymous.get(path), 404, "image_not_found")
        assert_problem(stranger.http.get(path), 403, "tenant_suspended")
    assert picture["guid"] not in anonymous.get("/image", params={"limit": "100"}).text
    assert_problem(owner.http.post("/admin/token", json={"tenant": stranger.guid}), 403, "tenant_suspended")
    assert owner.http.patch(tenant, json={"status": "active"}).status_code == 200
    assert [anonymous.get(path).status_code for path in paths] == [200, 200]
    assert stranger.http.get("/me").status_code == 200


@pytest.mark.usefixtures("upstream")
def test_deleted_tenant_is_removed_with_its_pictures(
    owner: TenantClient, stranger: TenantClient, anonymous: httpx2.Client, server: RunningServer
) -> None:
    picture = make_image(stranger)
    make_user(stranger.http)
    files = list(server.settings.images.rglob(f"*{picture['guid']}*"))
    assert files
    path = f"/admin/tenant/{stranger.guid}"
    assert owner.http.delete(path).status_code == 204
    assert not any(file.exists() for file in files)
    assert_problem(anonymous.get(f"/image/{picture['guid']}"), 404, "image_not_found")
    assert_problem(stranger.http.get("/me"), 401, "credential_invalid")
    for answer in (owner.http.get(path), owner.http.delete(path), owner.http.patch(path, json={})):
        assert_problem(answer, 404, "tenant_not_found")
    assert stranger.guid not in owner.http.get("/admin/tenant").text

    async def rows(services: Services) -> object:
        return await services.database.read(lambda data: data.tenants.get_by_guid(stranger.guid))

    assert server.call(rows) is None
    actions = [entry["action"] for entry in audit_entries(owner.http, tenant=stranger.guid)]
    assert actions[0] == "tenant.deleted"
    assert "tenant.created" in actions


def test_operator_cannot_suspend_or_delete_own_tenant(owner: TenantClient) -> None:
    path = f"/admin/tenant/{owner.guid}"
    assert_problem(owner.http.delete(path), 409, "tenant_own")
    assert_problem(owner.http.patch(path, json={"status": "suspended"}), 409, "tenant_own")
    assert owner.http.get("/me").status_code == 200


def test_unknown_tenant_is_not_found(owner: TenantClient) -> None:
    for name in (ABSENT_GUID, "nonsense"):
        assert_problem(owner.http.get(f"/admin/tenant/{name}"), 404, "tenant_not_found")
    assert_problem(owner.http.post("/admin/token", json={"tenant": ABSENT_GUID}), 404, "tenant_not_found")


def test_tenant_token_acts_for_tenant_until_requested_expiry(owner: TenantClient) -> None:
    tenant = make_tenant(owner.http)
    order = {"tenant": tenant["name"], "scope": "image:read usage:read", "expires_in": 60}
    answer = owner.http.post("/admin/token", json=order)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    issued = answer.json()
    assert (issued["expires_in"], issued["scope"], issued["token_type"]) == (60, "image:read usage:read", "Bearer")
    assert issued["refresh_token"] is None
    me = owner.http.get("/me", headers=bearer(issued["access_token"])).json()
    assert (me["tenant"]["guid"], me["subject_type"]) == (tenant["guid"], "token")
    plain = owner.http.get("/me", headers=bearer(order_token(owner.http, tenant["guid"]))).json()
    assert plain["scopes"] == ["image:generate", "image:manage", "image:read"]
    for seconds in (0, -1, 86_401, "60"):
        answer = owner.http.post("/admin/token", json={"tenant": tenant["guid"], "expires_in": seconds})
        assert_problem(answer, 422, "invalid_request")


def test_audit_log_is_paged_newest_first(owner: TenantClient) -> None:
    tenant = make_tenant(owner.http)
    for number in range(4):
        owner.http.patch(f"/admin/tenant/{tenant['guid']}", json={"images_per_minute": number + 1})
    wanted = {"tenant": tenant["guid"], "action": "tenant.changed", "limit": "3"}
    first = owner.http.get("/admin/audit", params=wanted)
    assert [entry["details"]["images_per_minute"] for entry in first.json()] == ["4", "3", "2"]
    assert first.links["next"]["url"].startswith("/admin/audit?")
    second = owner.http.get(first.links["next"]["url"])
    assert [entry["details"]["images_per_minute"] for entry in second.json()] == ["1"]
    assert "link" not in second.headers
    stolen = {**wanted, "action": "tenant.created", "cursor": httpx2.URL(first.links["next"]["url"]).params["cursor"]}
    assert_problem(owner.http.get("/admin/audit", params=stolen), 400, "invalid_cursor")


def test_audit_entry_has_actor_action_and_address_and_follows_previous(owner: TenantClient) -> None:
    answer = owner.http.post("/admin/tenant", json={"name": f"audited {uuid.uuid4()}"})
    (entry,) = audit_entries(owner.http, target=answer.json()["guid"])
    me = owner.http.get("/me").json()
    assert (entry["actor"], entry["actor_type"], entry["actor_tenant_guid"]) == (me["subject"], "key", owner.guid)
    assert (entry["action"], entry["address"]) == ("tenant.created", "127.0.0.1")
    assert entry["request_id"] == answer.headers["x-request-id"]
    entries = {each["sequence"]: each for each in audit_entries(owner.http)}
    assert entry["previous_sha256"] == entries[entry["sequence"] - 1]["entry_sha256"]
    assert len(entry["entry_sha256"]) == hashlib.sha256().digest_size * 2


def test_audit_log_is_filtered_by_time(owner: TenantClient) -> None:
    tenant = make_tenant(owner.http)
    hour = timedelta(hours=1)
    for bound, sign, count in (("since", -1, 1), ("since", 1, 0), ("until", 1, 1), ("until", -1, 0)):
        moment = (clock.now() + sign * hour).isoformat()
        assert len(audit_entries(owner.http, target=tenant["guid"], **{bound: moment})) == count, (bound, sign)
    for query in ({"limit": "0"}, {"limit": "101"}, {"action": "nonsense"}, {"since": "yesterday"}, {"nonsense": "1"}):
        assert_problem(owner.http.get("/admin/audit", params=query), 422, "invalid_request")


@pytest.fixture
def unknown(server: RunningServer, owner: TenantClient) -> str:
    """Return a generation of the owner's tenant with an unknown outcome."""

    async def claim(services: Services) -> str:
        tenant = await services.tenants.require_tenant(owner.guid)

        def insert(data: Repositories) -> str:
            order = new_generation(
                tenant.id, idempotency_key="once", status=GenerationStatus.UNKNOWN, created_at=clock.now()
            )
            made = data.generations.claim(order)
            assert made is not None
            return made.guid

        return await services.database.write(insert)

    return server.call(claim)


@pytest.mark.parametrize("bought", [True, False])
def test_unknown_outcome_is_resolved_once(bought: bool, unknown: str, owner: TenantClient) -> None:  # noqa: FBT001
    listed = owner.http.get("/admin/generation", params={"status": "unknown", "limit": "100"}).json()
    assert {generation["guid"]: generation["tenant"] for generation in listed}[unknown] == owner.guid
    path = f"/admin/generation/{unknown}/resolve"
    assert_problem(owner.http.post(path, json={"bought": "yes"}), 422, "invalid_request")
    resolved = owner.http.post(path, json={"bought": bought})
    assert resolved.status_code == 200, resolved.text
    assert resolved.json()["resolved_at"] is not None
    assert_problem(owner.http.post(path, json={"bought": bought}), 409, "generation_resolved")
    listed = owner.http.get("/admin/generation", params={"status": "unknown", "limit": "100"}).json()
    assert unknown not in {generation["guid"] for generation in listed}
    (entry,) = audit_entries(owner.http, target=unknown)
    assert (entry["action"], entry["details"]) == ("generation.resolved", {"bought": str(bought).lower()})


def test_unknown_guid_is_not_resolved(owner: TenantClient) -> None:
    assert owner.http.get("/me").json()["scopes"] == sorted(EVERY_SCOPE)
    answer = owner.http.post(f"/admin/generation/{ABSENT_GUID}/resolve", json={"bought": True})
    assert_problem(answer, 404, "generation_not_found")
    assert_problem(owner.http.get("/admin/generation"), 422, "invalid_request")
