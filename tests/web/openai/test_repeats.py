"""Requests repeated without an Idempotency-Key are bought once, on every API."""

import json
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest

from pixyproxy.core.exceptions import ImageStorageException
from pixyproxy.core.fault_points import FaultPoint, arm
from pixyproxy.core.models.generation import Generation
from pixyproxy.service.private.generation import claims, retries
from tests.conftest import with_short_upstream_timeout
from tests.support import pictures
from tests.support.process import wait_until
from tests.support.server import RunningServer, TenantClient
from tests.support.upstream import CUT, HANG, MODERATED, RATE_LIMITED, Behaviour, Exchange, FakeUpstream
from tests.web.builders import ABSENT_GUID, second_key
from tests.web.openai.sdk import Sdk, connected, picture_of

pytestmark = pytest.mark.usefixtures("upstream")
OPENAI_PATH = "/v1/images/generations"
PROMPT = {"prompt": "a red fox"}
PATIENCE = 2.0
"""A client's timeout in seconds; the upstream takes longer, and the server has the order by then."""
UNKNOWN_CODES = {"upstream_timeout", "generation_unknown"}
"""The error codes of a retry of an order that becomes unknown: the cause if it waited, else that it is unknown."""
SAYS_SO = {"x-stainless-retry-count": "1"}
FIRST_TIME = {"x-stainless-retry-count": "0"}


@dataclass(frozen=True)
class RefuseLate(Behaviour):
    """Wait for the release, then refuse."""

    async def answer(self, exchange: Exchange) -> None:
        """Wait, then refuse."""
        await exchange.wait_for_release()
        await MODERATED.answer(exchange)


@dataclass
class Orders:
    """The orders of one tenant: lost orders, and requests that may repeat them."""

    server: RunningServer
    tenant: TenantClient
    upstream: FakeUpstream
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))

    def send(self, headers: dict[str, str] | None = None, *, path: str = OPENAI_PATH) -> str:
        """Send an order, and return its generation after it has succeeded."""
        answer = self.tenant.http.post(path, json=PROMPT, headers=headers or {})
        assert answer.is_success, answer.text
        return generation_of(answer)

    def send_aside(self, headers: dict[str, str] | None = None, *, path: str = OPENAI_PATH) -> "Future[str]":
        """Send an order without waiting for its response."""
        return self.pool.submit(self.send, headers, path=path)

    def lose(self, *, path: str = OPENAI_PATH, behaviour: Behaviour = HANG) -> str:
        """Return an order whose client has disconnected, with the loss recorded; the upstream hangs."""
        self.upstream.behave_once(behaviour)
        asked = len(self.upstream.requests)
        connection = self.connect(path, {})
        self.upstream.wait_for_requests(asked + 1)
        connection.close()
        guid = self.guids()[0]
        self.wait_until(guid, lambda generation: generation.lost_at is not None)
        return guid

    def hold(self) -> "Future[str]":
        """Send an order whose client stays connected; the upstream hangs."""
        self.upstream.behave_once(HANG)
        asked = len(self.upstream.requests)
        sent = self.send_aside()
        self.upstream.wait_for_requests(asked + 1)
        return sent

    def connect(self, path: str, headers: dict[str, str]) -> socket.socket:
        """Send an order, and return the connection of its response."""
        address = urlsplit(self.server.url)
        assert address.hostname is not None
        assert address.port is not None
        body = json.dumps(PROMPT)
        lines = {
            "Host": "x",
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self.tenant.api_key}",
            "Content-Length": str(len(body)),
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection = socket.create_connection((address.hostname, address.port))
        connection.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n{body}".encode())
        return connection

    def guids(self) -> list[str]:
        """Return the tenant's generations, newest first."""
        return [each["guid"] for each in self.tenant.http.get("/generation").json()]

    def wait_until(self, guid: str, holds: Callable[[Generation], bool]) -> None:
        """Wait until a condition holds for a generation's row."""

        def look() -> bool:
            found = self.server.call(lambda services: services.database.read(lambda data: data.generations.find(guid)))
            assert found is not None
            return holds(found)

        wait_until(look)


@pytest.fixture
def orders(server: RunningServer, tenant: TenantClient, upstream: FakeUpstream) -> Orders:
    """Return the orders of this test's tenant."""
    return Orders(server, tenant, upstream)


def generation_of(answer: httpx2.Response) -> str:
    """Return the generation of a response from any API."""
    found: dict[str, Any] = answer.json()
    if "generation" in found:
        return str(found["generation"])
    return str(found["guid"])


@pytest.mark.parametrize("path", [OPENAI_PATH, "/image", "/generation"])
@pytest.mark.parametrize("headers", [{}, FIRST_TIME, SAYS_SO], ids=["says nothing", "the first time", "says so"])
def test_retry_joins_order_of_disconnected_client(
    headers: dict[str, str], path: str, orders: Orders, upstream: FakeUpstream
) -> None:
    lost = orders.lose(path=OPENAI_PATH)
    again = orders.send_aside(headers, path=path)
    orders.wait_until(lost, lambda generation: generation.adopted_at is not None)
    upstream.release()
    again.result()
    assert orders.guids() == [lost]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("headers", [{}, SAYS_SO], ids=["says nothing", "says so"])
def test_retry_of_finished_lost_order_buys_nothing(
    headers: dict[str, str], orders: Orders, upstream: FakeUpstream
) -> None:
    lost = orders.lose()
    upstream.release()
    orders.wait_until(lost, lambda generation: generation.status.is_final)
    assert orders.send(headers) == lost
    assert len(upstream.ledger) == 1


def test_retry_on_native_api_is_marked_as_replayed(
    orders: Orders, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    lost = orders.lose(path="/image")
    upstream.release()
    orders.wait_until(lost, lambda generation: generation.status.is_final)
    answer = tenant.http.post("/image", json=PROMPT)
    assert (answer.status_code, answer.headers["idempotency-replayed"]) == (201, "true")
    assert orders.guids() == [lost]
    assert len(upstream.ledger) == 1


def test_retry_of_lost_asynchronous_order_is_the_same_order(orders: Orders, upstream: FakeUpstream) -> None:
    async def hang_up(point: FaultPoint) -> None:
        if point is FaultPoint.CLAIMED:
            connection.close()

    upstream.behave_once(HANG)
    arm(hang_up)
    try:
        connection = orders.connect("/generation", {})
        upstream.wait_for_requests(1)
    finally:
        arm(None)
    (lost,) = orders.guids()
    orders.wait_until(lost, lambda generation: generation.lost_at is not None)
    assert orders.send(path="/generation") == lost
    upstream.release()
    assert len(upstream.requests) == 1


def test_sdk_retry_after_timeout_gets_the_picture(
    form: str, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.picture = pictures.png(64, 48, seed=3)
    upstream.delay = PATIENCE + 0.5
    with connected(server.url, tenant.api_key, form=form, timeout=PATIENCE, max_retries=9) as sdk:
        assert picture_of(sdk.generate().data[0]) == upstream.picture
    assert len(upstream.requests) == 1


def test_repeated_edit_is_the_same_order(server: RunningServer, tenant: TenantClient, upstream: FakeUpstream) -> None:
    # Each request has another boundary in its form.
    upstream.delay = PATIENCE + 0.5
    with connected(server.url, tenant.api_key, timeout=PATIENCE, max_retries=9) as sdk:
        assert sdk.edit([pictures.png(64, 48), pictures.jpeg(64, 48)], mask=pictures.transparent_png(64, 48)).data
    assert len(upstream.requests) == 1


def test_edit_of_another_picture_is_another_order(
    server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.behave(HANG)
    with (
        connected(server.url, tenant.api_key, max_retries=0, timeout=0.5) as sdk,
        pytest.raises(openai.APITimeoutError),
    ):
        sdk.edit(pictures.png(64, 48))
    upstream.wait_for_requests(1)
    with ThreadPoolExecutor(1) as pool, connected(server.url, tenant.api_key) as sdk:
        other = pool.submit(sdk.edit, pictures.png(64, 48, seed=2))
        upstream.wait_for_requests(2)
        upstream.release()
        assert other.result().data


def test_interrupted_response_can_be_fetched_again(orders: Orders, upstream: FakeUpstream) -> None:
    upstream.picture = pictures.noise_png(8_000_000)
    connection = orders.connect(OPENAI_PATH, {})
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    connection.close()
    (cut,) = orders.guids()
    orders.wait_until(cut, lambda generation: generation.lost_at is not None)
    assert orders.send() == cut
    assert len(upstream.ledger) == 1


def test_retry_waits_for_late_notice_of_loss(
    orders: Orders, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "NOTICE_SECONDS", 30.0)
    upstream.behave_once(HANG)
    connection = orders.connect(OPENAI_PATH, {})
    upstream.wait_for_requests(1)
    (open_order,) = orders.guids()
    again = orders.send_aside()
    with pytest.raises(TimeoutError):
        again.result(0.3)
    connection.close()
    orders.wait_until(open_order, lambda generation: generation.adopted_at is not None)
    upstream.release()
    assert again.result() == open_order
    assert len(upstream.requests) == 1


def test_order_of_connected_client_is_not_adopted(orders: Orders, upstream: FakeUpstream) -> None:
    first = orders.hold()
    second = orders.send()
    upstream.release()
    assert first.result() != second
    assert len(upstream.ledger) == 2


def test_declared_retry_needs_no_notice_of_loss(orders: Orders, upstream: FakeUpstream) -> None:
    # Like behind a proxy that keeps the connection of a disconnected client.
    first = orders.hold()
    again = orders.send_aside(SAYS_SO)
    orders.wait_until(orders.guids()[0], lambda generation: generation.adopted_at is not None)
    upstream.release()
    assert first.result() == again.result()
    assert len(upstream.requests) == 1


def test_declared_retries_adopt_different_open_orders(orders: Orders, upstream: FakeUpstream) -> None:
    first, second = orders.hold(), orders.hold()
    newest, oldest = orders.guids()
    repeated = []
    for guid in (oldest, newest):
        repeated.append(orders.send_aside(SAYS_SO))
        orders.wait_until(guid, lambda generation: generation.adopted_at is not None)
    upstream.release()
    assert [each.result() for each in repeated] == [oldest, newest]
    assert {first.result(), second.result()} == {oldest, newest}
    assert len(upstream.requests) == 2


def test_lost_order_is_adopted_by_one_request(orders: Orders, upstream: FakeUpstream) -> None:
    lost = orders.lose()
    taken = [orders.send_aside() for _ in range(2)]
    upstream.wait_for_requests(2)
    upstream.release()
    assert {each.result() for each in taken} == set(orders.guids())
    assert lost in orders.guids()
    assert len(upstream.ledger) == 2


def test_lost_retry_can_be_adopted_again(orders: Orders, upstream: FakeUpstream) -> None:
    lost = orders.lose()
    connection = orders.connect(OPENAI_PATH, {})
    orders.wait_until(lost, lambda generation: generation.adopted_at is not None)
    connection.close()
    orders.wait_until(lost, lambda generation: generation.lost_at is not None)
    upstream.release()
    assert orders.send() == lost
    assert len(upstream.requests) == 1


def test_lost_order_is_not_adopted_after_window(
    orders: Orders, upstream: FakeUpstream, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = orders.lose()
    upstream.release()
    orders.wait_until(lost, lambda generation: generation.status.is_final)
    # Bypasses the frozen dataclass.
    monkeypatch.setitem(vars(server.services.generation), "retry_window_seconds", 0.001)
    assert orders.send() != lost


def test_window_of_0_disables_retries(
    orders: Orders, upstream: FakeUpstream, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(server.services.generation), "retry_window_seconds", 0)
    lost = orders.lose()
    assert orders.send(SAYS_SO) != lost
    upstream.release()


def test_delivered_order_is_not_adopted(orders: Orders, upstream: FakeUpstream) -> None:
    assert orders.send() != orders.send(FIRST_TIME)
    assert len(upstream.ledger) == 2


def test_declared_retry_adopts_just_delivered_order_once(orders: Orders, upstream: FakeUpstream) -> None:
    # Its response may have been interrupted beyond this server.
    first = orders.send()
    assert orders.send(SAYS_SO) == first
    assert orders.send(SAYS_SO) != first
    assert len(upstream.ledger) == 2


def test_order_delivered_long_ago_is_not_adopted(
    orders: Orders, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "RECENTLY_SECONDS", -1.0)
    assert orders.send() != orders.send(SAYS_SO)
    assert len(upstream.ledger) == 2


def test_refused_order_is_tried_again(orders: Orders, upstream: FakeUpstream) -> None:
    upstream.behave_once(RATE_LIMITED)
    refused = orders.tenant.http.post(OPENAI_PATH, json=PROMPT, headers=FIRST_TIME)
    assert refused.status_code == 429
    orders.send(SAYS_SO)
    assert len(upstream.requests) == 2


def test_retry_of_lost_refused_order_gets_its_error(
    orders: Orders, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    lost = orders.lose(behaviour=RefuseLate())
    upstream.release()
    orders.wait_until(lost, lambda generation: generation.status.is_final)
    answer = tenant.http.post(OPENAI_PATH, json=PROMPT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "moderation_blocked")
    assert len(upstream.requests) == 1
    assert orders.send() != lost


@pytest.mark.parametrize("of", ["the same tenant", "another tenant"])
def test_another_caller_does_not_adopt_lost_order(
    of: str, orders: Orders, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    other = second_key(server, tenant) if of == "the same tenant" else server.new_tenant(f"other than {tenant.guid}")
    lost = orders.lose()
    with other.http:
        assert Orders(server, other, upstream).send(SAYS_SO) != lost
    upstream.release()
    assert len(upstream.requests) == 2


def test_different_content_is_another_order(orders: Orders, tenant: TenantClient, upstream: FakeUpstream) -> None:
    orders.lose()
    answer = tenant.http.post(OPENAI_PATH, json=PROMPT | {"size": "512x512"}, headers=SAYS_SO)
    assert answer.status_code == 200
    upstream.release()
    assert len(upstream.requests) == 2


def test_idempotency_key_takes_precedence(orders: Orders, upstream: FakeUpstream) -> None:
    lost = orders.lose()
    headers = SAYS_SO | {"Idempotency-Key": "order-1"}
    assert lost != orders.send(headers) == orders.send(headers)
    upstream.release()
    assert len(upstream.requests) == 2


@with_short_upstream_timeout
def test_order_with_unknown_outcome_is_not_bought_again(
    form: str, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.behave(HANG)
    with (
        connected(server.url, tenant.api_key, form=form, timeout=PATIENCE, max_retries=9) as sdk,
        pytest.raises(openai.APIStatusError) as raised,
    ):
        sdk.generate()
    assert raised.value.code in UNKNOWN_CODES
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("headers", [{}, FIRST_TIME, SAYS_SO], ids=["says nothing", "the first time", "says so"])
def test_every_retry_of_unknown_order_gets_its_error(
    headers: dict[str, str], tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.behave_once(CUT)
    assert tenant.http.post(OPENAI_PATH, json=PROMPT).status_code == 502
    for path in (OPENAI_PATH, OPENAI_PATH, "/image"):
        answer = tenant.http.post(path, json=PROMPT, headers=headers)
        assert answer.status_code == 409
        assert "generation_unknown" in answer.text
        assert "Idempotency-Key" in answer.text
    anew = tenant.http.post(OPENAI_PATH, json=PROMPT, headers=headers | {"Idempotency-Key": "anew"})
    assert anew.status_code == 200
    assert len(upstream.ledger) == 2


def test_paid_picture_that_cannot_be_stored_is_not_bought_again(sdk: Sdk, upstream: FakeUpstream) -> None:
    async def fill_the_disk(point: FaultPoint) -> None:
        if point is FaultPoint.ANSWERED:
            raise ImageStorageException

    arm(fill_the_disk)
    try:
        with pytest.raises(openai.InternalServerError) as raised:
            sdk.generate()
    finally:
        arm(None)
    assert raised.value.code == "storage_failed"
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert len(upstream.ledger) == 1


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "Multipart/Form-Data"])
def test_repeated_form_of_any_type_is_recognized(content_type: str, tenant: TenantClient) -> None:
    body = b"prompt=a+fox&image_guid=" + ABSENT_GUID.encode()
    if content_type == "Multipart/Form-Data":
        content_type += "; boundary=x"
        parts = {"prompt": "a fox", "image_guid": ABSENT_GUID}
        pattern = '--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        body = "".join(pattern % part for part in parts.items()).encode() + b"--x--\r\n"
    headers = {"Content-Type": content_type, **FIRST_TIME}
    answer = tenant.http.post("/v1/images/edits", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input_picture")
