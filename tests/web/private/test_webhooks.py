"""The tenant's webhooks over HTTP."""

import time
from collections.abc import Iterator

import pytest

from pixyproxy.core import clock
from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.webhook import MOST_WEBHOOKS
from pixyproxy.service.composition import Services
from pixyproxy.service.private.webhooks.subscriptions import enqueue
from tests.support.identity import Json, audit_entries
from tests.support.problems import assert_problem, without_request_id
from tests.support.process import wait_until
from tests.support.server import RunningServer, TenantClient, make_settings, serving
from tests.support.webhook_receiver import WebhookReceiver, new_outcome
from tests.web.builders import ABSENT_GUID

LISTED = {"guid", "url", "events", "created_at", "former_secret_until", "disabled_at"}
URL = "https://93.184.216.34/hook"
"""An IP address, which avoids name lookups; nothing is posted there."""


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server whose operator allows webhooks to the tests' receivers."""
    with serving(make_settings(tmp_path_factory.mktemp("webhooks"), webhook_allowed_hosts="127.0.0.0/8")) as server:
        yield server


def _make(owner: TenantClient, **order: object) -> Json:
    made = owner.http.post("/webhook", json={"url": URL, **order})
    assert made.status_code == 201, made.text
    webhook: Json = made.json()
    return webhook


def _tell(server: RunningServer, tenant_guid: str) -> None:
    """Record an event as a finished generation does."""

    async def told(services: Services) -> None:
        tenant = await services.database.read(lambda data: data.tenants.get_by_guid(tenant_guid))
        assert tenant is not None
        outcome = new_outcome(tenant.id, at=clock.now())
        await services.database.write(lambda data: enqueue(data, outcome))

    server.call(told)


def test_new_webhook_is_shown_once_and_listed_without_secret(owner: TenantClient) -> None:
    answer = owner.http.post("/webhook", json={"url": URL, "events": ["generation.failed"]})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert made.keys() == LISTED | {"secret"}
    assert (made["url"], made["events"], made["disabled_at"]) == (URL, ["generation.failed"], None)
    listed = owner.http.get("/webhook")
    assert listed.json() == [{name: value for name, value in made.items() if name != "secret"}]
    assert made["secret"][6:] not in listed.text


def test_webhook_gets_all_events_by_default(owner: TenantClient) -> None:
    assert _make(owner)["events"] == ["generation.failed", "generation.stored"]


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"url": ""},
        {"url": 1},
        {"url": "https://example.com/" + "a" * 2000},
        {"url": URL, "events": []},
        {"url": URL, "events": ["generation.stored", "generation.stored"]},
        {"url": URL, "events": ["everything"]},
        {"url": URL, "secret": "mine"},
    ],
)
def test_invalid_webhook_is_rejected(order: Json, owner: TenantClient) -> None:
    assert_problem(owner.http.post("/webhook", json=order), 422, "invalid_request")
    assert owner.http.get("/webhook").json() == []


@pytest.mark.parametrize(
    "url", ["http://93.184.216.34/", "https://127.0.0.1/", "https://169.254.169.254/latest", "https://2130706433/"]
)
def test_forbidden_target_is_rejected_and_not_repeated(url: str, owner: TenantClient) -> None:
    answer = owner.http.post("/webhook", json={"url": url})
    assert_problem(answer, 422, "webhook_target_refused")
    assert url not in answer.text
    assert owner.http.get("/webhook").json() == []


def test_webhooks_per_tenant_are_limited(owner: TenantClient) -> None:
    for _ in range(MOST_WEBHOOKS):
        _make(owner)
    assert_problem(owner.http.post("/webhook", json={"url": URL}), 409, "webhook_limit")
    guid = owner.http.get("/webhook").json()[0]["guid"]
    assert owner.http.delete(f"/webhook/{guid}").status_code == 204
    _make(owner)


def test_rotation_shows_new_secret_once(owner: TenantClient) -> None:
    made = _make(owner)
    answer = owner.http.post(f"/webhook/{made['guid'].upper()}/rotate")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    rotated = answer.json()
    assert rotated["secret"] != made["secret"]
    assert rotated["former_secret_until"] is not None
    assert rotated["secret"][6:] not in owner.http.get("/webhook").text


@pytest.mark.parametrize("grace", [-1, 30 * 86_400 + 1, "60", True, 1.5])
def test_grace_period_out_of_bounds_is_rejected(grace: object, owner: TenantClient) -> None:
    answer = owner.http.post(f"/webhook/{_make(owner)['guid']}/rotate", json={"grace_seconds": grace})
    assert_problem(answer, 422, "invalid_request")


def test_invalid_and_foreign_guids_are_not_found(owner: TenantClient, stranger: TenantClient) -> None:
    absent = owner.http.delete(f"/webhook/{ABSENT_GUID}")
    assert_problem(absent, 404, "webhook_not_found")
    for name in ("nonsense", "1", "%00", "' OR 1=1 --", _make(stranger)["guid"]):
        assert without_request_id(owner.http.delete(f"/webhook/{name}"))[1] == without_request_id(absent)[1]
        assert_problem(owner.http.get(f"/webhook/{name}/delivery"), 404, "webhook_not_found")
        assert_problem(owner.http.post(f"/webhook/{name}/rotate"), 404, "webhook_not_found")
    assert len(stranger.http.get("/webhook").json()) == 1


def test_every_webhook_action_is_audited(owner: TenantClient) -> None:
    made = _make(owner)
    owner.http.post(f"/webhook/{made['guid']}/rotate")
    owner.http.delete(f"/webhook/{made['guid']}")
    entries = audit_entries(owner.http, target=made["guid"])
    assert [entry["action"] for entry in entries] == ["webhook.deleted", "webhook.rotated", "webhook.created"]
    assert made["secret"][6:] not in str(entries)


def test_server_delivers_event_and_lists_delivery(open_server: RunningServer) -> None:
    owner = open_server.new_tenant(
        f"told {time.monotonic_ns()}", scopes=frozenset({Scope.KEY_MANAGE, Scope.IMAGE_READ})
    )
    with owner.http, WebhookReceiver() as receiver:
        receiver.statuses = [500]
        webhook = _make(owner, url=receiver.url())
        _tell(open_server, owner.guid)
        wait_until(lambda: bool(owner.http.get(f"/webhook/{webhook['guid']}/delivery").json()[0]["response_status"]))
        (delivery,) = owner.http.get(f"/webhook/{webhook['guid']}/delivery").json()
        (received,) = receiver.received
        assert received.verified(webhook["secret"])["type"] == delivery["event"] == "generation.stored"
    assert (delivery["guid"], delivery["status"], delivery["attempts"]) == (received.id, "pending", 1)
    assert (delivery["response_status"], delivery["problem"], delivery["finished_at"]) == (500, None, None)
    assert delivery["next_attempt_at"] > delivery["created_at"]
    assert delivery.keys().isdisjoint({"payload", "tenant_id"})
