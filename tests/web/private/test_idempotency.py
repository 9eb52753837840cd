"""Idempotency-Key: one logical request buys one picture, however often it is sent."""

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.conftest import on_both_databases
from tests.support.problems import assert_problem
from tests.support.server import RunningServer, TenantClient
from tests.support.upstream import HTML, FakeUpstream
from tests.web.builders import make_image
from tests.web.envelope import assert_openai_error

pytestmark = on_both_databases


def order(client: httpx2.Client, prompt: str = "a fox", key: str = "order-4711", **options: object) -> httpx2.Response:
    """Send a POST with a key and return the response."""
    return client.post("/image", json={"prompt": prompt, **options}, headers={"Idempotency-Key": key})


def test_repeated_request_gets_same_picture_and_is_marked(tenant: TenantClient, upstream: FakeUpstream) -> None:
    first, again = order(tenant.http), order(tenant.http)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(upstream.requests) == 1


def test_fifty_concurrent_requests_buy_one_picture(
    tenant: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    upstream.delay = 0.3

    def post(_: int) -> httpx2.Response:
        with server.client(tenant.api_key) as client:
            return order(client)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert len(upstream.requests) == 1
    assert [answer.status_code for answer in answers] == [201] * 50
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert tenant.http.get("/image", params={"mine": "true"}).json() == [answers[0].json()]
    assert order(tenant.http).headers["idempotency-replayed"] == "true"


def test_fifty_concurrent_requests_get_same_refusal(
    tenant: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    upstream.delay = 0.3
    upstream.behave(HTML)

    def post(_: int) -> httpx2.Response:
        with server.client(tenant.api_key) as client:
            return order(client)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert len(answers) == 50
    for answer in answers:
        assert_problem(answer, 502, "upstream_answer_invalid")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("change", [{"prompt": "a dog"}, {"size": "512x512"}, {"visibility": "private"}], ids=str)
def test_same_key_with_another_order_is_rejected(
    change: dict[str, str], tenant: TenantClient, upstream: FakeUpstream
) -> None:
    assert order(tenant.http).status_code == 201
    assert_problem(order(tenant.http, **{"prompt": "a fox", **change}), 422, "idempotency_mismatch")
    assert len(upstream.requests) == 1


def test_same_key_with_another_order_is_rejected_while_first_runs(
    tenant: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    upstream.delay = 0.5
    with ThreadPoolExecutor(1) as pool, server.client(tenant.api_key) as other:
        first = pool.submit(order, other)
        upstream.wait_for_requests(1)
        assert_problem(order(tenant.http, "a dog"), 422, "idempotency_mismatch")
        waiting = {"Idempotency-Key": "order-4711", "Prefer": "wait=0"}
        at_once = tenant.http.post("/image", json={"prompt": "a fox"}, headers=waiting)
        assert_problem(at_once, 409, "generation_in_flight")
        again = order(tenant.http)
        assert again.json() == first.result().json()
        assert again.headers["idempotency-replayed"] == "true"
    assert len(upstream.requests) == 1


def test_keys_are_separate_per_tenant(tenant: TenantClient, server: RunningServer, upstream: FakeUpstream) -> None:
    other = server.new_tenant(f"other of {tenant.guid}")
    with other.http:
        mine, theirs = order(tenant.http), order(other.http)
    assert mine.json()["guid"] != theirs.json()["guid"]
    assert "idempotency-replayed" not in theirs.headers
    assert len(upstream.requests) == 2


def test_keys_are_case_sensitive(tenant: TenantClient, upstream: FakeUpstream) -> None:
    assert order(tenant.http, key="order-a").json() != order(tenant.http, key="ORDER-A").json()
    assert len(upstream.requests) == 2


def test_key_may_have_every_visible_ascii_character(tenant: TenantClient, upstream: FakeUpstream) -> None:
    key = "".join(map(chr, range(0x21, 0x7F)))
    assert order(tenant.http, key=key).json() == order(tenant.http, key=key).json()
    assert len(upstream.requests) == 1


def test_deleted_picture_is_not_generated_again(tenant: TenantClient, upstream: FakeUpstream) -> None:
    guid = order(tenant.http).json()["guid"]
    assert tenant.http.delete(f"/image/{guid}").status_code == 204
    assert_problem(order(tenant.http), 409, "generation_deleted")
    assert len(upstream.requests) == 1


def test_replay_returns_current_image(tenant: TenantClient, upstream: FakeUpstream) -> None:
    guid = order(tenant.http).json()["guid"]
    tenant.http.patch(f"/image/{guid}", json={"filename": "renamed.png"})
    assert order(tenant.http).json()["filename"] == "renamed.png"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("key", ["", "with a space", "x" * 256])
def test_invalid_key_is_rejected_with_its_rule(key: str, tenant: TenantClient, upstream: FakeUpstream) -> None:
    rule = "must be 1 to 255 visible ASCII characters"
    for path in ("/image", "/generation"):
        refused = tenant.http.post(path, json={"prompt": "a fox"}, headers={"Idempotency-Key": key})
        (error,) = assert_problem(refused, 422, "invalid_request")["errors"]
        assert error["loc"] == ["header", "idempotency-key"]
        assert error["msg"].startswith(rule)
    refused = tenant.http.post("/v1/images/generations", json={"prompt": "a fox"}, headers={"Idempotency-Key": key})
    assert assert_openai_error(refused, 400, "invalid_request")["message"].startswith(
        f"Invalid 'idempotency-key': {rule}"
    )
    assert not upstream.requests


def test_requests_without_key_are_separate(tenant: TenantClient, upstream: FakeUpstream) -> None:
    assert make_image(tenant)["guid"] != make_image(tenant)["guid"]
    assert len(upstream.requests) == 2
