"""Requests that the SDK sends again by itself, and names no Idempotency-Key for, are bought once."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from threading import Timer
from urllib.parse import urlsplit
from weakref import ref

import httpx2
import openai
import pytest
from starlette.requests import Request
from starlette.types import Message

from pixyproxy.core.exceptions import ImageStorageException, UpstreamBusyException
from pixyproxy.core.fault_points import FaultPoint, arm
from pixyproxy.core.models.principal import Subject
from pixyproxy.web.openai.repeats import Repeats
from tests.conftest import with_short_upstream_timeout
from tests.support import pictures
from tests.support.process import wait_until
from tests.support.server import RunningServer, TenantClient
from tests.support.upstream import CUT, HANG, FakeUpstream
from tests.web.builders import ABSENT_GUID, second_key
from tests.web.openai.sdk import Sdk, connected, picture_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("upstream")]
BODY = b'{"prompt": "a red fox"}'
PATIENCE = 2.0
"""Seconds that a client waits for an answer; the upstream takes longer, and the server knows the order by then."""


def lose(server: RunningServer, tenant: TenantClient, upstream: FakeUpstream, *, count: int = 0) -> None:
    """Send an order as the SDK does, and hang up once the upstream was asked."""
    address = urlsplit(server.url)
    assert address.hostname is not None
    assert address.port is not None
    asked = len(upstream.requests)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(
            b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\nx-stainless-retry-count: %d\r\n\r\n%b"
            % (tenant.api_key.encode(), len(BODY), count, BODY)
        )
        upstream.wait_for_requests(asked + 1)


def send(tenant: TenantClient, *, count: int | None, **headers: str) -> str:
    """The generation of an order that is sent for this time."""
    if count is not None:
        headers["x-stainless-retry-count"] = str(count)
    headers["Content-Type"] = "application/json"
    answer = tenant.http.post("/v1/images/generations", content=BODY, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["generation"])


def generations(tenant: TenantClient) -> list[str]:
    return [each["guid"] for each in tenant.http.get("/generation").json()]


def test_a_client_that_waits_too_short_gets_what_it_paid_for(
    form: str, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.picture = pictures.png(64, 48, seed=3)
    upstream.delay = PATIENCE + 0.5
    with connected(server.url, tenant.api_key, form=form, timeout=PATIENCE, max_retries=9) as sdk:
        assert picture_of(sdk.generate().data[0]) == upstream.picture
    assert len(upstream.requests) == 1


def test_an_edit_that_is_sent_again_is_the_same_one(
    form: str, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.delay = PATIENCE + 0.5
    with connected(server.url, tenant.api_key, form=form, timeout=PATIENCE, max_retries=9) as sdk:
        assert sdk.edit([pictures.png(64, 48), pictures.jpeg(64, 48)], mask=pictures.transparent_png(64, 48)).data
    assert len(upstream.requests) == 1


def test_what_ended_meanwhile_is_not_bought_again(
    server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    lose(server, tenant, upstream)
    made = generations(tenant)
    wait_until(lambda: tenant.http.get(f"/generation/{made[0]}").json()["status"] == "stored")
    assert send(tenant, count=1) == made[0]
    assert len(upstream.requests) == 1


@with_short_upstream_timeout
def test_what_nobody_can_know_is_not_bought_again(
    form: str, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.behave(HANG)
    with (
        connected(server.url, tenant.api_key, form=form, timeout=PATIENCE, max_retries=9) as sdk,
        pytest.raises(openai.APIStatusError) as raised,
    ):
        sdk.generate()
    assert raised.value.code == "upstream_timeout"
    assert len(upstream.requests) == 1


def test_an_order_that_was_answered_is_not_repeated(tenant: TenantClient, upstream: FakeUpstream) -> None:
    assert send(tenant, count=0) != send(tenant, count=1)
    assert len(upstream.ledger) == 2


def test_an_order_whose_client_is_still_there_is_not_repeated(
    server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.delay = 0.5
    with ThreadPoolExecutor(1) as pool, connected(server.url, tenant.api_key) as sdk:
        first = pool.submit(sdk.generate)
        upstream.wait_for_requests(1)
        second = send(tenant, count=1)
        assert first.result().generation != second
    assert len(upstream.ledger) == 2


def test_a_lost_order_is_repeated_by_one_other_alone(
    server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.delay = 0.5
    lose(server, tenant, upstream)
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(lambda _: send(tenant, count=1), range(2)))
    assert len(set(again)) == 2
    assert len(upstream.ledger) == 2


def test_a_repetition_may_be_lost_too(server: RunningServer, tenant: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    lose(server, tenant, upstream)
    with server.client(tenant.api_key) as impatient, pytest.raises(httpx2.ReadTimeout):
        impatient.post(
            "/v1/images/generations",
            content=BODY,
            headers={"Content-Type": "application/json", "x-stainless-retry-count": "1"},
            timeout=httpx2.Timeout(30, read=0.5),
        )
    # Whether the third comes before that or after it, it is the same one.
    Timer(0.5, upstream.release).start()
    assert [send(tenant, count=2)] == generations(tenant)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("count", [0, None], ids=["for the first time", "by another client"])
def test_what_is_not_sent_again_is_an_order_of_its_own(
    count: int | None, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    lose(server, tenant, upstream)
    send(tenant, count=count)
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("of", ["the same tenant", "another tenant"])
def test_another_caller_gets_nothing_of_it(
    of: str, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    other = second_key(server, tenant) if of == "the same tenant" else server.new_tenant(f"other than {tenant.guid}")
    lose(server, tenant, upstream)
    lost = generations(tenant)
    with other.http:
        assert send(other, count=1) not in lost
    assert len(upstream.requests) == 2


def test_an_idempotency_key_goes_first(server: RunningServer, tenant: TenantClient, upstream: FakeUpstream) -> None:
    lose(server, tenant, upstream)
    headers = {"Idempotency-Key": "order-1"}
    assert send(tenant, count=1, **headers) == send(tenant, count=2, **headers)
    assert len(upstream.ledger) == 2


def test_an_upstream_that_breaks_off_is_asked_once(sdk: Sdk, tenant: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave_once(CUT)
    with pytest.raises(openai.InternalServerError):
        sdk.generate()
    assert len(upstream.ledger) == 1
    # What was answered, be it with an error, is not what a later order repeats.
    assert send(tenant, count=1) in generations(tenant)
    assert len(upstream.ledger) == 2


def test_a_paid_picture_that_cannot_be_kept_is_not_bought_again(sdk: Sdk, upstream: FakeUpstream) -> None:
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


async def test_nothing_is_held_of_a_request_that_is_over() -> None:
    """But that its client is to be taken as gone: what was refused is repeated under the same key."""
    repeats = Repeats()
    request = made_request(count=0)
    async with refused(), repeats.recognize(request, subject=Subject("key"), idempotency_key=None) as asked:
        raise UpstreamBusyException
    held = ref(request)
    del request
    gc.collect()
    assert held() is None
    async with repeats.recognize(made_request(count=1), subject=Subject("key"), idempotency_key=None) as again:
        assert again.key == asked.key


async def test_what_is_still_being_answered_is_no_repetitions() -> None:
    repeats = Repeats()
    first, second = made_request(count=0), made_request(count=1)
    async with (
        repeats.recognize(first, subject=Subject("key"), idempotency_key=None) as asked,
        repeats.recognize(second, subject=Subject("key"), idempotency_key=None) as other,
    ):
        assert other.key != asked.key


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "Multipart/Form-Data"])
def test_a_form_of_any_kind_may_be_sent_again(content_type: str, tenant: TenantClient) -> None:
    body = b"prompt=a+fox&image_guid=" + ABSENT_GUID.encode()
    if content_type == "Multipart/Form-Data":
        content_type += "; boundary=x"
        parts = {"prompt": "a fox", "image_guid": ABSENT_GUID}
        pattern = '--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        body = "".join(pattern % part for part in parts.items()).encode() + b"--x--\r\n"
    headers = {"Content-Type": content_type, "x-stainless-retry-count": "0"}
    answer = tenant.http.post("/v1/images/edits", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input_picture")


@asynccontextmanager
async def refused() -> AsyncIterator[None]:
    """Lets no exception out; unlike ``pytest.raises`` it keeps none, whose frames would hold the request."""
    with suppress(UpstreamBusyException):
        yield


def made_request(*, count: int) -> Request:
    """An order as the SDK sends it, from a client that stays."""
    body = iter([{"type": "http.request", "body": BODY}])

    async def receive() -> Message:
        await asyncio.sleep(0)
        return next(body, None) or await asyncio.Future[Message]()

    headers = [(b"x-stainless-retry-count", str(count).encode())]
    path = "/v1/images/generations"
    return Request({"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}, receive)
