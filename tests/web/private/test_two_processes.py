"""Two server processes over one MariaDB show every client the same generations."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import httpx2
import pytest

from tests.support.mariadb import MySqlDatabases
from tests.support.problems import assert_problem
from tests.support.process import new_api_key, running_server
from tests.support.server import UNLIMITED, make_settings, upstream_settings
from tests.support.upstream import HANG, HTML, STREAM_HANG, FakeUpstream
from tests.web.streams import following, following_all

ASYNC = {"Prefer": "respond-async"}


@dataclass(frozen=True)
class Pair:
    """Clients of both processes, with the key of one tenant."""

    one: httpx2.Client
    other: httpx2.Client


@pytest.fixture(scope="module")
def upstream_of_pair() -> Iterator[FakeUpstream]:
    """Yield the upstream of both processes."""
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
def upstream(upstream_of_pair: FakeUpstream) -> Iterator[FakeUpstream]:
    """Yield the upstream with its default behaviour; nothing hangs at the end."""
    upstream_of_pair.reset()
    yield upstream_of_pair
    upstream_of_pair.reset()


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, mysql_server: MySqlDatabases, upstream_of_pair: FakeUpstream
) -> Iterator[Pair]:
    """Yield two processes."""
    folder = tmp_path_factory.mktemp("pair")
    url = mysql_server.create_database()
    settings = make_settings(
        folder,
        database_url=url,
        # Otherwise each process would use its own address in URLs.
        public_url="https://pictures.example.com",
        **UNLIMITED,
        **upstream_settings(upstream_of_pair),
    )
    api_key = new_api_key(settings)
    with (
        running_server(settings, folder) as one,
        running_server(settings, folder) as two,
        one.client(api_key) as first,
        two.client(api_key) as second,
    ):
        yield Pair(first, second)
    mysql_server.drop_database(url)


def test_events_are_available_from_the_other_process(pair: Pair, upstream: FakeUpstream) -> None:
    upstream.behave(STREAM_HANG)
    taken = pair.one.post("/generation", json={"prompt": "a fox", "partial_images": 1}).json()
    with following(pair.other, taken["guid"]) as events, following(pair.one, taken["guid"]) as there:
        seen, seen_there = ([next(stream), next(stream)] for stream in (events, there))
        assert [event.name for event in seen] == ["status", "partial"]
        assert seen[1].data["b64_json"]
        upstream.release()
        seen.extend(events)
        seen_there.extend(there)
    assert [(event.id, event.name, event.data.get("b64_json")) for event in seen] == [
        (event.id, event.name, event.data.get("b64_json")) for event in seen_there
    ]
    assert (seen[-1].name, seen[-1].data["images"]) == ("stored", seen_there[-1].data["images"])
    assert pair.other.get(f"/generation/{taken['guid']}").json()["images"] == seen[-1].data["images"]


def test_tenant_events_are_available_from_either_process(pair: Pair, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    guids = [
        client.post("/generation", json={"prompt": prompt}).json()["guid"]
        for client, prompt in ((pair.one, "one fox"), (pair.other, "another fox"))
    ]
    upstream.wait_for_requests(2)
    with following_all(pair.one) as here, following_all(pair.other) as there:
        assert [[next(events).data["guid"] for _ in guids] for events in (here, there)] == [guids, guids]
        upstream.release()
        ends = [{(event.name, event.data["guid"]) for event in islice(events, 2)} for events in (here, there)]
    assert ends == [{("stored", guid) for guid in guids}] * 2


def test_client_can_reconnect_to_another_process(pair: Pair, upstream: FakeUpstream) -> None:
    upstream.behave(STREAM_HANG)
    taken = pair.one.post("/generation", json={"prompt": "a fox", "partial_images": 1}).json()
    with following(pair.one, taken["guid"]) as events:
        assert [next(events).id for _ in range(2)] == ["2", "3"]
    with following(pair.other, taken["guid"], last_event_id="3") as events:
        upstream.release()
        assert [event.name for event in events] == ["stored"]


def test_one_process_waits_for_order_of_the_other(pair: Pair, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    headers = {"Idempotency-Key": "both"}
    taken = pair.one.post("/image", json={"prompt": "a fox"}, headers=headers | ASYNC).json()
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(pair.other.get, f"/generation/{taken['guid']}", headers={"Prefer": "wait=25"})
        repeated = pool.submit(pair.other.post, "/image", json={"prompt": "a fox"}, headers=headers)
        upstream.wait_for_requests(1)
        time.sleep(0.3)
        assert not waiting.done()
        assert not repeated.done()
        upstream.release()
        stored, answer = waiting.result(), repeated.result()
    assert (answer.status_code, answer.headers["idempotency-replayed"]) == (201, "true")
    assert stored.json()["images"] == [answer.json()]
    assert pair.one.get(f"/image/{answer.json()['guid']}/content").status_code == 200
    assert len(upstream.ledger) == 1


def test_one_process_returns_error_of_the_other(pair: Pair, upstream: FakeUpstream) -> None:
    upstream.behave(HTML)
    headers = {"Idempotency-Key": "refused"}
    answers = [client.post("/image", json={"prompt": "a fox"}, headers=headers) for client in (pair.one, pair.other)]
    for answer in answers:
        assert_problem(answer, 502, "upstream_answer_invalid")
    assert len(upstream.ledger) == 1


def test_same_key_at_both_processes_buys_one_picture(pair: Pair, upstream: FakeUpstream) -> None:
    upstream.delay = 0.3

    def post(client: httpx2.Client) -> httpx2.Response:
        return client.post("/image", json={"prompt": "a fox"}, headers={"Idempotency-Key": "at-once"})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(post, [pair.one, pair.other] * 10))
    assert [answer.status_code for answer in answers] == [201] * 20
    assert len({answer.json()["guid"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert len(upstream.ledger) == 1


def test_wait_at_other_process_ends_after_preferred_time(pair: Pair, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    headers = {"Idempotency-Key": "patience"}
    pair.one.post("/image", json={"prompt": "a fox"}, headers=headers | ASYNC)
    upstream.wait_for_requests(1)
    answer = pair.other.post("/image", json={"prompt": "a fox"}, headers=headers | {"Prefer": "wait=1"})
    guid = assert_problem(answer, 409, "generation_in_flight")["generation"]
    upstream.release()
    found = pair.other.get(f"/generation/{guid}", headers={"Prefer": "wait=25"}).json()
    assert found["status"] == "stored"
