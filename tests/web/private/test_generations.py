"""Asynchronous orders, and every way to follow their progress."""

import base64
import io
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from pixyproxy.core.models.tenant import TenantChange
from tests.support.problems import assert_problem, without_request_id
from tests.support.process import wait_until
from tests.support.server import (
    ACTOR,
    UNLIMITED,
    RunningServer,
    TenantClient,
    make_settings,
    serving,
    upstream_settings,
)
from tests.support.upstream import (
    CUT,
    HANG,
    HTML,
    MODERATED,
    STREAM_CUT,
    STREAM_ERROR,
    STREAM_HANG,
    Behaviour,
    Exchange,
    FakeUpstream,
    StreamBehaviour,
)
from tests.web.builders import ABSENT_GUID, make_image
from tests.web.public.test_image_cursors import next_of
from tests.web.streams import followed_to_the_end, following

Json = dict[str, Any]
UNDER_WAY = {"accepted", "calling"}
MEMBERS = {
    "guid", "status", "prompt", "prompt_truncated", "model", "n", "images", "error", "cost_usd", "created_at",
    "finished_at", "position", "estimate_seconds",
}  # fmt: skip


@dataclass(frozen=True)
class HangBeforeTheLast(StreamBehaviour):
    """Send every partial picture at once, and nothing more before the release."""

    async def stream(self, exchange: Exchange) -> None:
        """Send, wait, send the rest."""
        events = exchange.buy_events()
        await exchange.send_head(None, content_type="text/event-stream")
        for event in events:
            if event.completes:
                await exchange.wait_for_release()
            await exchange.write(*event.parts)
        await exchange.end()


@pytest.fixture
def other(server: RunningServer) -> Iterator[TenantClient]:
    """Yield another tenant."""
    other = server.new_tenant(f"other {uuid.uuid4()}")
    with other.http:
        yield other


def order(tenant: TenantClient, *, key: str | None = None, **options: object) -> Json:
    """Order pictures and return the generation."""
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = tenant.http.post("/generation", json={"prompt": "a red fox", **options}, headers=headers)
    assert answer.status_code == 202, answer.text
    generation: Json = answer.json()
    assert answer.headers["location"] == f"/generation/{generation['guid']}"
    return generation


def finished(tenant: TenantClient, guid: str) -> Json:
    """Wait until a generation finishes, and return it."""
    found: Json = tenant.http.get(f"/generation/{guid}", headers={"Prefer": "wait=25"}).json()
    assert found["status"] not in UNDER_WAY
    return found


def picture_in(data: Json) -> Image.Image:
    """Return the picture in an event."""
    picture = Image.open(io.BytesIO(base64.b64decode(data["b64_json"], validate=True)))
    picture.load()
    return picture


def own_images(tenant: TenantClient) -> list[Json]:
    """Return the tenant's images, newest first."""
    listed: list[Json] = tenant.http.get("/image", params={"mine": "true"}).json()
    return listed


def test_order_is_accepted_and_completed_later(tenant: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    taken = order(tenant, n=2, size="512x512")
    assert taken.keys() == MEMBERS
    assert taken["status"] in UNDER_WAY
    assert (taken["n"], taken["images"], taken["error"], taken["finished_at"]) == (2, [], None, None)
    assert tenant.http.get(f"/generation/{taken['guid']}").json()["status"] in UNDER_WAY
    upstream.wait_for_requests(1)
    upstream.release()
    found = finished(tenant, taken["guid"])
    assert (found["status"], found["error"], found["prompt"]) == ("stored", None, "a red fox")
    assert found["finished_at"] is not None
    assert len({image["guid"] for image in found["images"]}) == 2
    for image in found["images"]:
        assert tenant.http.get(f"/image/{image['guid']}").json() == image
        content = tenant.http.get(f"/image/{image['guid']}/content").content
        assert Image.open(io.BytesIO(content)).size == (512, 512)
    assert [(line.n, line.bought) for line in upstream.ledger] == [(2, True)]


def test_idempotency_key_returns_same_generation(tenant: TenantClient, upstream: FakeUpstream) -> None:
    taken = order(tenant, key="k", n=2)
    again = tenant.http.post("/generation", json={"prompt": "a red fox", "n": 2}, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["guid"]) == (202, taken["guid"])
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == f"/generation/{taken['guid']}"
    more = tenant.http.post("/generation", json={"prompt": "a red fox", "n": 3}, headers={"Idempotency-Key": "k"})
    assert_problem(more, 422, "idempotency_mismatch")
    assert finished(tenant, taken["guid"])["status"] == "stored"
    assert len(upstream.ledger) == 1


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "cost"),
    [
        (MODERATED, "failed", "prompt_refused", 0),
        (HTML, "failed", "upstream_answer_invalid", 0),
        (CUT, "unknown", "upstream_silent", None),
    ],
)
def test_failed_generation_has_its_error(  # noqa: PLR0913, PLR0917  (one row of a table)
    behaviour: Behaviour, status: str, code: str, cost: int | None, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.behave(behaviour)
    found = finished(tenant, order(tenant)["guid"])
    assert (found["status"], found["error"]["code"], found["cost_usd"]) == (status, code, cost)
    assert found["error"]["detail"]
    assert (found["images"], own_images(tenant)) == ([], [])
    assert found["finished_at"] is not None


@pytest.mark.usefixtures("upstream")
def test_generations_are_paged_newest_first(tenant: TenantClient) -> None:
    made = [finished(tenant, order(tenant, prompt=f"fox {number}")["guid"]) for number in range(5)]
    assert tenant.http.get("/generation").json() == made[::-1]
    pages: list[list[str]] = []
    target: str | None = "/generation?limit=2"
    while target is not None:
        answer = tenant.http.get(target)
        pages.append([each["prompt"] for each in answer.json()])
        target = next_of(answer)
    assert pages == [["fox 4", "fox 3"], ["fox 2", "fox 1"], ["fox 0"]]


def test_generations_are_filtered_by_status(tenant: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave_once(MODERATED)
    refused = finished(tenant, order(tenant)["guid"])
    stored = [finished(tenant, order(tenant)["guid"]) for _ in range(2)]
    listed = {
        status: tenant.http.get("/generation", params={"status": status}).json()
        for status in ("accepted", "calling", "stored", "failed", "unknown")
    }
    assert listed == {"accepted": [], "calling": [], "stored": stored[::-1], "failed": [refused], "unknown": []}
    following_page = next_of(tenant.http.get("/generation?status=stored&limit=1"))
    assert following_page is not None
    bent = tenant.http.get(following_page.replace("status=stored", "status=failed"))
    assert_problem(bent, 400, "invalid_cursor")


@pytest.mark.usefixtures("upstream")
def test_synchronous_images_are_listed_as_generations(tenant: TenantClient) -> None:
    image = make_image(tenant)
    (generation,) = tenant.http.get("/generation").json()
    assert (generation["status"], generation["images"]) == ("stored", [image])


@pytest.mark.usefixtures("upstream")
def test_generation_of_another_tenant_looks_absent(tenant: TenantClient, other: TenantClient) -> None:
    guid = order(tenant)["guid"]
    for path in ("/generation/{}", "/generation/{}/events"):
        theirs, absent = (other.http.get(path.format(each)) for each in (guid, ABSENT_GUID))
        assert_problem(theirs, 404, "generation_not_found")
        assert without_request_id(theirs) == without_request_id(absent)
    assert other.http.get("/generation").json() == []
    assert finished(tenant, guid)["status"] == "stored"


@pytest.mark.usefixtures("upstream")
def test_deleted_image_is_removed_from_its_generation(tenant: TenantClient) -> None:
    found = finished(tenant, order(tenant, n=2)["guid"])
    first, second = found["images"]
    assert tenant.http.delete(f"/image/{first['guid']}").status_code == 204
    assert tenant.http.get(f"/generation/{found['guid']}").json()["images"] == [second]


def test_get_responds_after_preferred_wait(tenant: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    guid = order(tenant)["guid"]
    found = tenant.http.get(f"/generation/{guid}", headers={"Prefer": "wait=1"})
    assert (found.status_code, found.json()["status"]) == (200, "calling")
    upstream.wait_for_requests(1)
    upstream.release()
    assert finished(tenant, guid)["status"] == "stored"


def test_head_does_not_wait_for_events(tenant: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    guid = order(tenant)["guid"]
    head = tenant.http.head(f"/generation/{guid}/events")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")
    upstream.wait_for_requests(1)
    upstream.release()
    assert finished(tenant, guid)["status"] == "stored"


@pytest.mark.parametrize("prefer", ["respond-async", "respond-async, wait=1", 'RESPOND-ASYNC; foo="bar", wait=0'])
def test_create_image_can_respond_asynchronously(prefer: str, tenant: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    answer = tenant.http.post("/image", json={"prompt": "a fox"}, headers={"Prefer": prefer})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    generation = answer.json()
    assert generation.keys() == MEMBERS
    assert generation["status"] == "calling"
    assert answer.headers["location"] == f"/generation/{generation['guid']}"
    upstream.wait_for_requests(1)
    upstream.release()
    assert finished(tenant, generation["guid"])["images"] == own_images(tenant)


@pytest.mark.usefixtures("upstream")
@pytest.mark.parametrize("prefer", ["", "wait=25", "respond-async, wait=25", "wait=never", "handling=lenient"])
def test_picture_within_preferred_wait_is_returned(prefer: str, tenant: TenantClient) -> None:
    answer = tenant.http.post("/image", json={"prompt": "a fox"}, headers={"Prefer": prefer})
    assert (answer.status_code, answer.json()) == (201, own_images(tenant)[0])
    assert answer.headers["location"] == f"/image/{answer.json()['guid']}"


def test_picture_after_preferred_wait_is_still_generated(tenant: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    answer = tenant.http.post("/image", json={"prompt": "a fox"}, headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
    assert answer.headers["location"] == f"/generation/{answer.json()['guid']}"
    upstream.wait_for_requests(1)
    upstream.release()
    assert finished(tenant, answer.json()["guid"])["images"] == own_images(tenant)
    assert len(upstream.ledger) == 1


def test_events_cover_whole_generation(tenant: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave(HangBeforeTheLast())
    guid = order(tenant, partial_images=2)["guid"]
    with following(tenant.http, guid) as events:
        begun, first, second = (next(events) for _ in range(3))
        assert (begun.id, begun.name, begun.data["guid"], begun.data["status"]) == ("2", "status", guid, "calling")
        for index, partial in enumerate((first, second)):
            assert (partial.id, partial.name) == (str(3 + index), "partial")
            assert (partial.data["guid"], partial.data["index"]) == (guid, index)
        assert picture_in(first.data).width < picture_in(second.data).width
        upstream.release()
        (end,) = events
    assert (end.id, end.name) == ("100", "stored")
    assert end.data == tenant.http.get(f"/generation/{guid}").json()
    assert end.data["images"] == own_images(tenant)


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (MODERATED, "failed", "prompt_refused"),
        (STREAM_ERROR, "failed", "upstream_failed"),
        (STREAM_CUT, "unknown", "upstream_silent"),
    ],
)
def test_final_event_has_the_error(
    behaviour: Behaviour, status: str, code: str, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.behave(behaviour)
    guid = order(tenant, partial_images=1)["guid"]
    *_, end = followed_to_the_end(tenant.http, guid)
    assert (end.id, end.name, end.data["status"], end.data["error"]["code"]) == ("100", "failed", status, code)
    assert end.data["images"] == []


def test_tenant_may_hold_only_a_quarter_of_connections(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.behave(HANG)
    # The limit per address is tested elsewhere.
    limits = UNLIMITED | {"max_connections": 8, "trusted_proxies": "127.0.0.1"}
    settings = make_settings(tmp_path, **limits, **upstream_settings(upstream))
    with serving(settings) as server, ExitStack() as stack:
        tenant, other = (server.new_tenant(name) for name in ("one", "other"))
        stack.enter_context(tenant.http)
        stack.enter_context(other.http)
        path = f"/generation/{order(tenant)['guid']}"
        with ExitStack() as followed:
            clients = [followed.enter_context(server.client(tenant.api_key)) for _ in range(2)]
            streams = [followed.enter_context(following(each, path.rpartition("/")[2])) for each in clients]
            assert [next(each).name for each in streams] == ["status", "status"]
            for refused in (tenant.http.get(f"{path}/events"), tenant.http.get(path, headers={"Prefer": "wait=1"})):
                assert_problem(refused, 429, "rate_limited")
                assert int(refused.headers["retry-after"]) > 0
            assert tenant.http.get(path).status_code == 200
            next(followed.enter_context(following(other.http, order(other)["guid"])))
        # Disconnected followers no longer count.
        wait_until(lambda: tenant.http.get(path, headers={"Prefer": "wait=1"}).status_code == 200)
        upstream.wait_for_requests(2)
        upstream.release()
        assert followed_to_the_end(tenant.http, path.rpartition("/")[2])[-1].name == "stored"


@pytest.mark.usefixtures("upstream")
def test_events_of_finished_generation_are_only_the_final_one(tenant: TenantClient) -> None:
    found = finished(tenant, order(tenant, partial_images=3)["guid"])
    for last_event_id in (None, "2", "nonsense", "-1", "9" * 5000):
        (end,) = followed_to_the_end(tenant.http, found["guid"], last_event_id=last_event_id)
        assert (end.name, end.data) == ("stored", found)
    nothing_more = tenant.http.get(f"/generation/{found['guid']}/events", headers={"Last-Event-ID": "100"})
    assert (nothing_more.status_code, nothing_more.content) == (204, b"")


def test_reconnecting_client_gets_no_event_twice(tenant: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave(HangBeforeTheLast())
    guid = order(tenant, partial_images=2)["guid"]
    with following(tenant.http, guid) as events:
        assert [next(events).id for _ in range(2)] == ["2", "3"]
    with following(tenant.http, guid, last_event_id="3") as events:
        assert next(events).id == "4"
    with following(tenant.http, guid, last_event_id="4") as events:
        upstream.release()
        assert [event.id for event in events] == ["100"]


def test_all_followers_get_the_same_events(tenant: TenantClient, server: RunningServer, upstream: FakeUpstream) -> None:
    upstream.behave(HangBeforeTheLast())
    guid = order(tenant, partial_images=1)["guid"]
    with ExitStack() as stack:
        watchers = [
            stack.enter_context(following(stack.enter_context(server.client(tenant.api_key)), guid)) for _ in range(5)
        ]
        seen = [[next(events), next(events)] for events in watchers]
        upstream.release()
        for events, before in zip(watchers, seen, strict=True):
            before.extend(events)
    assert [event.name for event in seen[0]] == ["status", "partial", "stored"]
    assert all(each == seen[0] for each in seen)
    assert len(upstream.ledger) == 1


def test_idle_stream_sends_heartbeats(
    tenant: TenantClient, server: RunningServer, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Bypasses the frozen dataclass.
    monkeypatch.setitem(vars(server.services.watcher), "heartbeat_seconds", 0.2)
    upstream.behave(HANG)
    with following(tenant.http, order(tenant)["guid"]) as events:
        assert [next(events).name for _ in range(4)] == ["status", ":", ":", ":"]
        upstream.release()
        assert [event.name for event in events if event.name != ":"] == ["stored"]


def test_generation_is_the_same_on_every_resource(
    tenant: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    upstream.behave(STREAM_HANG)
    headers, body = {"Idempotency-Key": "one"}, {"prompt": "a red fox", "partial_images": 1}
    guid = order(tenant, key="one", partial_images=1)["guid"]
    with following(tenant.http, guid) as events, server.client(tenant.api_key) as client:
        assert [next(events).name for _ in range(2)] == ["status", "partial"]
        again = client.post("/generation", json=body, headers=headers)
        assert (again.json()["guid"], again.headers["idempotency-replayed"]) == (guid, "true")
        assert [each["guid"] for each in client.get("/generation", params={"status": "calling"}).json()] == [guid]
        assert client.get(f"/generation/{guid}").json()["status"] == "calling"
        upstream.release()
        waited = client.get(f"/generation/{guid}", headers={"Prefer": "wait=25"}).json()
        (end,) = events
    assert end.data == waited == tenant.http.get("/generation").json()[0]
    assert waited["images"] == own_images(tenant)
    assert len(upstream.ledger) == 1


def test_same_key_on_both_resources_is_one_generation(tenant: TenantClient, upstream: FakeUpstream) -> None:
    headers, body = {"Idempotency-Key": "one"}, {"prompt": "a red fox"}
    upstream.behave(HANG)
    first = tenant.http.post("/image", json=body, headers={**headers, "Prefer": "respond-async"}).json()
    again = tenant.http.post("/image", json=body, headers={**headers, "Prefer": "wait=0"})
    assert assert_problem(again, 409, "generation_in_flight")["generation"] == first["guid"]
    assert order(tenant, key="one")["guid"] == first["guid"]
    upstream.wait_for_requests(1)
    upstream.release()
    made = tenant.http.post("/image", json=body, headers=headers)
    assert (made.status_code, made.headers["idempotency-replayed"]) == (201, "true")
    assert finished(tenant, first["guid"])["images"] == [made.json()]
    assert len(upstream.ledger) == 1


def test_rate_limit_headers_count_all_pictures(
    tenant: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    change = TenantChange(images_per_minute=10)
    server.call(lambda services: services.tenants.change_tenant(tenant.guid, change, actor=ACTOR))
    answer = tenant.http.post("/generation", json={"prompt": "a red fox", "n": 4})
    assert answer.headers["ratelimit"].startswith('"generation";r=6;')
    finished(tenant, answer.json()["guid"])
    assert len(upstream.ledger) == 1


@pytest.mark.parametrize("path", ["/image", "/v1/images/generations"])
def test_order_is_executed_after_client_disconnects(
    path: str, tenant: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    upstream.behave(HANG)
    with server.client(tenant.api_key) as client, pytest.raises(httpx2.TimeoutException):
        client.post(path, json={"prompt": "a red fox"}, timeout=0.5)
    upstream.wait_for_requests(1)
    assert own_images(tenant) == []
    upstream.release()
    wait_until(lambda: len(own_images(tenant)) == 1, what="the picture")
    (generation,) = tenant.http.get("/generation").json()
    assert (generation["status"], generation["images"]) == ("stored", own_images(tenant))
    assert len(upstream.ledger) == 1


def test_disconnect_during_stream_does_not_stop_generation(
    tenant: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    upstream.behave(STREAM_HANG)
    body = {"prompt": "a red fox", "stream": True, "partial_images": 1}
    with server.client(tenant.api_key) as client, client.stream("POST", "/v1/images/generations", json=body) as answer:
        next(answer.iter_bytes(1))
    assert own_images(tenant) == []
    upstream.release()
    wait_until(lambda: len(own_images(tenant)) == 1, what="the picture")
    assert len(upstream.ledger) == 1


@pytest.mark.usefixtures("upstream")
def test_picture_of_unread_response_is_kept(tenant: TenantClient, server: RunningServer) -> None:
    with (
        server.client(tenant.api_key) as client,
        client.stream("POST", "/v1/images/generations", json={"prompt": "a red fox"}) as answer,
    ):
        next(answer.iter_bytes(1))
    assert len(own_images(tenant)) == 1


def test_disconnecting_follower_does_not_stop_generation(tenant: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave(STREAM_HANG)
    guid = order(tenant, partial_images=1)["guid"]
    for _ in range(3):
        with following(tenant.http, guid) as events:
            assert [next(events).name for _ in range(2)] == ["status", "partial"]
    upstream.release()
    assert finished(tenant, guid)["status"] == "stored"
