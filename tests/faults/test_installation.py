"""Limits, turns, positions, events and credentials apply to the whole installation, not to one process."""

import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.faults.shared_installation import (
    PREVIEW_SECONDS,
    REQUESTS_PER_MINUTE,
    generation,
    place_order,
    posts_of,
    statuses,
)
from tests.support.api_keys import key_id_of
from tests.support.commands import run_command
from tests.support.identity import bearer, get_tokens, order_token
from tests.support.installation import PRICE_USD, Installation
from tests.support.process import wait_until
from tests.support.scale import scaled
from tests.support.server import TenantClient
from tests.support.upstream import Delayed, Gate, most_at_once, most_started_within
from tests.web.streams import ReceivedEvent, events_in, following

PROCESSES = range(4)
AT_ONCE = 16
VISIBILITY_SECONDS = 1.0
"""The time after which no process serves a picture that has become private."""


@pytest.fixture
def tag() -> str:
    """Return a part of prompts that only one test uses."""
    return uuid.uuid4().hex


@pytest.fixture
def gate(installation: Installation, tag: str) -> Iterator[Gate]:
    """Yield a gate that holds the upstream's answers to prompts with the tag and "held"."""
    made = Gate()
    installation.upstream.behave_for(f"held {tag}", made)
    yield made
    made.open()


def place_orders(installation: Installation, tenant: TenantClient, prompts: list[str], **options: object) -> list[str]:
    """Order pictures through all processes in turn; return the generations' GUIDs."""
    clients = installation.ask_all(tenant)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        placed = [
            pool.submit(place_order, clients[number % len(clients)], prompt, **options)
            for number, prompt in enumerate(prompts)
        ]
        return [each.result() for each in placed]


def test_an_upstream_never_exceeds_its_concurrency(
    installation: Installation, tag: str, record_property: Callable[[str, object], None]
) -> None:
    installation.upstream.behave_for(tag, Delayed(seconds=0.3))
    tenant = installation.new_tenant()
    guids = place_orders(installation, tenant, [f"{n} {tag}" for n in range(scaled(15, 150))], model="three")
    wait_until(lambda: statuses(tenant.http, guids) == {"stored"}, what="the last picture")
    posts = posts_of(installation.upstream.posts, tag)
    record_property("figures", f"upstream of concurrency 3: at most {most_at_once(posts)} of {len(posts)} at once")
    assert len(posts) == len(guids)
    assert most_at_once(posts) == 3


def test_an_upstream_never_exceeds_its_requests_per_minute(
    installation: Installation, tag: str, record_property: Callable[[str, object], None]
) -> None:
    installation.upstream.behave_for(tag, Delayed(seconds=0.2))
    tenant = installation.new_tenant()
    guids = place_orders(
        installation, tenant, [f"{n} {tag}" for n in range(scaled(15, REQUESTS_PER_MINUTE * 5 // 2))], model="minute"
    )

    # The short form does not wait for orders over the limit, but gives excess orders time to appear.
    wanted = scaled(REQUESTS_PER_MINUTE, len(guids))
    wait_until(
        lambda: len(posts_of(installation.upstream.posts, tag)) >= wanted, seconds=240, what="the start of the orders"
    )
    time.sleep(2)
    started = posts_of(installation.upstream.posts, tag)
    most = most_started_within(started, 59)
    record_property("figures", f"{REQUESTS_PER_MINUTE} requests per minute: {most} started within 59 s")
    assert most <= REQUESTS_PER_MINUTE
    assert most_at_once(started) <= 3


def test_a_tenant_gets_exactly_its_images_per_minute(
    installation: Installation, tag: str, record_property: Callable[[str, object], None]
) -> None:
    limit = scaled(10, 30)
    tenant = installation.new_tenant(images_per_minute=limit)
    clients = installation.ask_all(tenant)

    def ask(number: int) -> int:
        client = clients[number % len(clients)]
        return client.post("/generation", json={"prompt": f"{number} {tag}"}).status_code

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = Counter(pool.map(ask, range(4 * limit)))
    record_property("figures", f"images_per_minute={limit}: {dict(answers)}")
    assert answers == {202: limit, 429: 3 * limit}
    wait_until(lambda: len(posts_of(installation.upstream.posts, tag)) >= limit, what="the last order")
    assert len(posts_of(installation.upstream.posts, tag)) == limit


def test_a_budget_buys_exactly_what_it_covers(
    installation: Installation, tag: str, record_property: Callable[[str, object], None]
) -> None:
    pictures, orders = scaled((10, 50), (100, 500))
    tenant = installation.new_tenant(monthly_budget_usd=round(pictures * PRICE_USD, 6))
    clients = installation.ask_all(tenant)

    def ask(number: int) -> int:
        """Return the status of an order, repeated under its key while the server is busy."""
        client, key = clients[number % len(clients)], {"Idempotency-Key": f"{number}-{tag}"}
        status = int(httpx2.codes.SERVICE_UNAVAILABLE)
        while status == httpx2.codes.SERVICE_UNAVAILABLE:
            status = client.post("/image", json={"prompt": f"{number} {tag}"}, headers=key).status_code
        return status

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = Counter(pool.map(ask, range(orders)))
    record_property("figures", f"budget for {pictures} pictures: {dict(answers)}")
    assert answers == {201: pictures, 402: orders - pictures}
    assert len(posts_of(installation.upstream.posts, tag)) == pictures


def test_a_single_order_is_next_although_another_tenant_has_many_waiting(
    installation: Installation, tag: str, gate: Gate, record_property: Callable[[str, object], None]
) -> None:
    installation.upstream.behave_for(tag, Delayed(seconds=0.15))
    many, single = installation.new_tenant(), [installation.new_tenant() for _ in PROCESSES]
    place_order(many.http, f"held {tag}", model="fair")
    wait_until(lambda: len(posts_of(installation.upstream.posts, tag)) == 1, what="the first order")
    place_orders(installation, many, [f"many {n} {tag}" for n in range(scaled(40, 500))], model="fair")
    gate.open()

    def started() -> list[str]:
        return [post.prompt for post in posts_of(installation.upstream.posts, tag)]

    late = []
    for number in PROCESSES:
        prompt = f"single {number} {tag}"
        place_order(installation.ask(number, single[number]), prompt, model="fair")
        before = len(started())
        wait_until(lambda prompt=prompt: prompt in started(), what="the single order")  # type: ignore[misc]
        late.append(started().index(prompt) - before)
    record_property("figures", f"orders started before a single one: {late}")
    assert max(late) <= 1
    assert len([prompt for prompt in started() if prompt.startswith("many")]) < scaled(40, 500)


def test_a_waiting_order_has_the_same_position_at_every_process(
    installation: Installation, tag: str, gate: Gate
) -> None:
    tenant = installation.new_tenant()
    guids = [place_order(installation.ask(0, tenant), f"held {tag}", model="still")]
    wait_until(lambda: len(posts_of(installation.upstream.posts, tag)) == 1, what="the first order")
    guids += [
        place_order(client, f"waiting {number} {tag}", model="still")
        for number, client in enumerate(installation.ask_all(tenant)[-3:])
    ]
    clients = installation.ask_all(tenant) * scaled(3, 13)
    positions = [[generation(client, guid)["position"] for guid in guids] for client in clients]
    assert positions == [[None, *range(1, len(guids))]] * len(clients)
    gate.open()
    wait_until(lambda: statuses(tenant.http, guids) == {"stored"}, what="the last picture")


def test_every_process_sends_the_previews_and_events_of_an_order(
    installation: Installation, tag: str, gate: Gate
) -> None:
    tenant = installation.new_tenant()
    guid = place_order(installation.ask(0, tenant), f"held {tag}", partial_images=2)

    def follow(client: httpx2.Client) -> list[ReceivedEvent]:
        with following(client, guid) as events:
            seen = []
            for event in events:
                seen.append(event)
                if event.name == "partial" and event.data["index"] == 1:
                    had_previews.release()
            return [event for event in seen if event.name != ":"]

    had_previews = threading.Semaphore(0)
    clients = installation.ask_all(tenant)
    with ThreadPoolExecutor(len(clients)) as pool:
        followed = [pool.submit(follow, client) for client in clients]
        arrived = [had_previews.acquire(timeout=PREVIEW_SECONDS) for _ in clients]
        gate.open()
        received = [each.result() for each in followed]
    assert arrived == [True] * len(clients)
    names = [[event.name for event in events if event.name != "status"] for events in received]
    assert names == [["partial", "partial", "stored"]] * len(clients)
    assert len({events[-1].data["images"][0]["sha256"] for events in received}) == 1


def test_an_openai_stream_delivers_an_order_executed_by_another_process(
    installation: Installation, tag: str, gate: Gate
) -> None:
    """The first process has the only slot; when it is free, it executes the order that arrived at the last one."""
    tenant, streamed = installation.new_tenant(), Gate()
    installation.upstream.behave_for(f"streamed {tag}", streamed)
    place_order(installation.ask(0, tenant), f"held {tag}", model="streamed")
    wait_until(lambda: len(posts_of(installation.upstream.posts, tag)) == 1, what="the first order")
    arrived: queue.Queue[str] = queue.Queue()

    def follow() -> list[str]:
        """Return the event names of the stream, whose headers may not arrive before the first event."""
        body = {"prompt": f"streamed {tag}", "model": "streamed", "stream": True, "partial_images": 1}
        with installation.ask(3, tenant).stream("POST", "/v1/images/generations", json=body) as answer:
            names = []
            for event in events_in(answer.iter_lines()):
                if event.name != ":":
                    names.append(event.name)
                    arrived.put(event.name)
            return names

    with ThreadPoolExecutor(1) as pool:
        followed = pool.submit(follow)
        wait_until(lambda: len(tenant.http.get("/generation").json()) == 2, what="the second order")
        gate.open()
        assert arrived.get(timeout=PREVIEW_SECONDS) == "image_generation.partial_image"
        streamed.open()
        assert followed.result(timeout=30) == ["image_generation.partial_image", "image_generation.completed"]
    assert len(posts_of(installation.upstream.posts, tag)) == 2


def test_a_token_of_one_machine_is_valid_at_every_process(installation: Installation) -> None:
    tenant = installation.new_tenant()
    form = {
        "grant_type": "client_credentials",
        "client_id": key_id_of(tenant.api_key),
        "client_secret": tenant.api_key,
    }
    issued = [get_tokens(installation.client(process=number), form)["access_token"] for number in PROCESSES]
    found = [
        [installation.client(token, process=number).get("/me").status_code for number in PROCESSES] for token in issued
    ]
    assert found == [[200] * len(PROCESSES)] * len(PROCESSES)


def test_a_revoked_token_is_rejected_at_every_process(installation: Installation) -> None:
    tenant = installation.new_tenant()
    operator = installation.client(installation.operator, process=0)
    token = order_token(operator, tenant.guid, scope="image:read", expires_in=600)
    clients = [installation.client(process=number) for number in PROCESSES]

    def found() -> list[int]:
        return [client.get("/me", headers=bearer(token)).status_code for client in clients]

    assert found() == [200] * len(PROCESSES)
    assert operator.post("/auth/revoke", data={"token": token}).status_code == 200
    time.sleep(VISIBILITY_SECONDS)
    assert found() == [401] * len(PROCESSES)


def test_a_picture_that_becomes_private_is_hidden_at_every_process(installation: Installation, tag: str) -> None:
    tenant = installation.new_tenant()
    guid = tenant.http.post("/image", json={"prompt": tag, "visibility": "public"}).json()["guid"]
    paths = [f"/image/{guid}", f"/image/{guid}/content"]
    clients = [installation.client(process=number) for number in PROCESSES]
    assert [client.get(path).status_code for path in paths for client in clients] == [200] * 8
    changed = installation.ask(0, tenant).patch(f"/image/{guid}", json={"visibility": "private"})
    assert changed.status_code == 200
    time.sleep(VISIBILITY_SECONDS)
    assert [client.get(path).status_code for path in paths for client in clients] == [404] * 8


def test_a_server_with_another_secret_does_not_start_and_reports_why(
    installation: Installation, tmp_path: Path
) -> None:
    other = {"PIXYPROXY_SECRET_KEY": "another secret, of at least 32 characters", "PIXYPROXY_DATA_DIR": str(tmp_path)}
    environment = {**installation.machines[0].environment, **other}
    started = run_command(
        "serve", "--port", "0", settings=installation.settings, folder=tmp_path, environment=environment, seconds=15
    )
    assert started.returncode == 1, started.stdout + started.stderr
    assert "PIXYPROXY_SECRET_KEY" in started.stdout + started.stderr
