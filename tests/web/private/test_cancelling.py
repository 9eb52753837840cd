"""``DELETE /generation/{guid}``: cancels waiting generations, deletes finished ones."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.tenant import TenantChange
from tests.support.identity import EVERY_SCOPE
from tests.support.problems import assert_problem, without_request_id
from tests.support.process import wait_until
from tests.support.server import (
    ACTOR,
    UNLIMITED,
    RunningServer,
    TenantClient,
    make_settings,
    serving,
)
from tests.support.upstream import HANG, FakeUpstream
from tests.support.webhook_receiver import WebhookReceiver
from tests.web.builders import ABSENT_GUID, make_image, tenant_with
from tests.web.streams import following

UNDER_WAY = {"accepted", "calling"}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, session_upstream: FakeUpstream) -> Iterator[RunningServer]:
    """Yield a server whose upstream accepts one order at a time."""
    only = {
        "name": "only",
        "base_url": session_upstream.base_url,
        "api_key": session_upstream.api_key,
        "models": ["gpt-image-*"],
        "concurrency": 1,
    }
    settings = make_settings(
        tmp_path_factory.mktemp("narrow"), upstreams=[only], webhook_allowed_hosts="127.0.0.0/8", **UNLIMITED
    )
    with serving(settings) as server:
        yield server


@pytest.fixture
def tenant(narrow: RunningServer, upstream: FakeUpstream, request: pytest.FixtureRequest) -> Iterator[TenantClient]:
    """Yield a tenant whose first order hangs at the upstream."""
    tenant = narrow.new_tenant(request.node.name, scopes=EVERY_SCOPE)
    with tenant.http:
        upstream.behave_once(HANG)
        order(tenant, prompt="at the upstream")
        upstream.wait_for_requests(1)
        yield tenant
        upstream.release()
        wait_until(lambda: not [each for each in listed(tenant) if each["status"] in UNDER_WAY])


def order(tenant: TenantClient, *, key: str | None = None, **options: object) -> str:
    """Order a picture and return its generation."""
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = tenant.http.post("/generation", json={"prompt": "a red fox", **options}, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["guid"])


def listed(tenant: TenantClient) -> list[dict[str, Any]]:
    """Return the tenant's generations, newest first."""
    found: list[dict[str, Any]] = tenant.http.get("/generation").json()
    return found


def shown(tenant: TenantClient, guid: str) -> dict[str, Any]:
    """Return the current state of a generation."""
    found: dict[str, Any] = tenant.http.get(f"/generation/{guid}").json()
    return found


def waiting_one(tenant: TenantClient) -> str:
    """Wait until an order of the tenant waits in the queue, and return it."""
    found: list[str] = []

    def look() -> bool:
        found[:] = [each["guid"] for each in tenant.http.get("/generation?status=accepted").json()]
        return bool(found)

    wait_until(look)
    return found[0]


def test_waiting_order_is_cancelled(tenant: TenantClient, upstream: FakeUpstream) -> None:
    waiting = order(tenant)
    assert (shown(tenant, waiting)["status"], shown(tenant, waiting)["position"]) == ("accepted", 1)
    answer = tenant.http.delete(f"/generation/{waiting}")
    assert (answer.status_code, answer.content) == (204, b"")
    found = shown(tenant, waiting)
    assert (found["status"], found["cost_usd"], found["position"]) == ("cancelled", 0, None)
    assert found["error"]["code"] == "generation_cancelled"
    assert [each["guid"] for each in tenant.http.get("/generation?status=cancelled").json()] == [waiting]
    upstream.release()
    assert make_image(tenant, "another")
    assert [line.prompt for line in upstream.ledger] == ["at the upstream", "another"]


def test_later_orders_move_up(tenant: TenantClient) -> None:
    first, second = (order(tenant, prompt=prompt) for prompt in ("one", "two"))
    assert shown(tenant, second)["position"] == 2
    assert tenant.http.delete(f"/generation/{first}").status_code == 204
    assert shown(tenant, second)["position"] == 1


def test_cancelling_releases_reservation_and_key(tenant: TenantClient, narrow: RunningServer) -> None:
    change = TenantChange(monthly_budget_usd=0.25)
    narrow.call(lambda services: services.tenants.change_tenant(tenant.guid, change, actor=ACTOR))
    options: dict[str, Any] = {"size": "1024x1024", "quality": "high", "model": "gpt-image-1"}
    left = tenant.http.get("/me").json()["budget"]
    waiting = order(tenant, key="k", **options)
    reserved = tenant.http.get("/me").json()["budget"]
    assert reserved != left
    assert tenant.http.delete(f"/generation/{waiting}").status_code == 204
    assert tenant.http.get("/me").json()["budget"] == left
    assert order(tenant, key="k", **options) != waiting


def test_order_at_upstream_is_not_cancelled(tenant: TenantClient) -> None:
    (calling,) = tenant.http.get("/generation?status=calling").json()
    refused = tenant.http.delete(f"/generation/{calling['guid']}")
    assert assert_problem(refused, 409, "generation_in_flight")["generation"] == calling["guid"]
    assert shown(tenant, calling["guid"])["status"] == "calling"


def test_finished_generation_is_deleted_with_its_pictures(tenant: TenantClient, upstream: FakeUpstream) -> None:
    waiting = order(tenant, n=2)
    upstream.release()
    over = tenant.http.get(f"/generation/{waiting}", headers={"Prefer": "wait=30"}).json()
    pictures = [image["guid"] for image in over["images"]]
    assert len(pictures) == 2
    assert tenant.http.delete(f"/generation/{waiting}").status_code == 204
    assert [tenant.http.get(f"/image/{guid}").status_code for guid in pictures] == [404, 404]
    assert [tenant.http.get(f"/image/{guid}/content").status_code for guid in pictures] == [404, 404]
    found = shown(tenant, waiting)
    assert (found["status"], found["prompt"], found["images"]) == ("stored", "", [])
    assert tenant.http.delete(f"/generation/{waiting}").status_code == 204


def test_cancelled_generation_is_deleted_by_next_delete(tenant: TenantClient) -> None:
    waiting = order(tenant)
    for prompt in ("a red fox", ""):
        assert tenant.http.delete(f"/generation/{waiting}").status_code == 204
        assert (shown(tenant, waiting)["status"], shown(tenant, waiting)["prompt"]) == ("cancelled", prompt)


def test_order_of_another_tenant_looks_absent(tenant: TenantClient, narrow: RunningServer) -> None:
    waiting = order(tenant)
    other = narrow.new_tenant(f"other than {tenant.guid}")
    with other.http:
        theirs, absent = (other.http.delete(f"/generation/{guid}") for guid in (waiting, ABSENT_GUID))
    assert_problem(theirs, 404, "generation_not_found")
    assert without_request_id(theirs) == without_request_id(absent)
    assert shown(tenant, waiting)["status"] == "accepted"


def test_cancelling_requires_scope(tenant: TenantClient, narrow: RunningServer) -> None:
    maker = tenant_with(narrow, f"maker of {tenant.guid}", Scope.IMAGE_GENERATE, Scope.IMAGE_READ)
    with maker.http:
        waiting = order(maker)
        assert_problem(maker.http.delete(f"/generation/{waiting}"), 403, "scope_missing")


def test_cancelling_counts_as_a_change(tenant: TenantClient) -> None:
    answer = tenant.http.delete(f"/generation/{order(tenant)}")
    assert answer.headers["ratelimit"].startswith('"change";')


@pytest.mark.parametrize("path", ["/image", "/v1/images/generations"])
def test_waiting_client_gets_error_when_order_is_cancelled(
    path: str, tenant: TenantClient, narrow: RunningServer
) -> None:
    with ThreadPoolExecutor(1) as pool, narrow.client(tenant.api_key) as client:
        sent = pool.submit(client.post, path, json={"prompt": "a fox that waits"})
        waiting = waiting_one(tenant)
        assert tenant.http.delete(f"/generation/{waiting}").status_code == 204
        answer = sent.result()
    assert answer.status_code == 409
    assert "generation_cancelled" in answer.text


def test_webhooks_are_notified_of_cancelling(tenant: TenantClient) -> None:
    with WebhookReceiver() as receiver:
        assert tenant.http.post("/webhook", json={"url": receiver.url()}).status_code == 201
        waiting = order(tenant)
        assert tenant.http.delete(f"/generation/{waiting}").status_code == 204
        wait_until(lambda: len(receiver.received) == 1)
    told = json.loads(receiver.received[0].body)
    assert told["type"] == "generation.failed"
    assert (told["data"]["generation"], told["data"]["status"]) == (waiting, "cancelled")
    assert told["data"]["error"] == "generation_cancelled"


def test_event_stream_ends_when_order_is_cancelled(tenant: TenantClient, narrow: RunningServer) -> None:
    waiting = order(tenant)
    with narrow.client(tenant.api_key) as client, following(client, waiting) as events:
        assert next(events).data["status"] == "accepted"
        assert tenant.http.delete(f"/generation/{waiting}").status_code == 204
        (end,) = events
    assert (end.name, end.data) == ("failed", shown(tenant, waiting))
