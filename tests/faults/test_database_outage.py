"""The database dies, freezes and comes back; the server keeps running, reports it, and loses nothing."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from pixyproxy.core.settings import Settings
from tests.support.mariadb import MariaDbServer
from tests.support.pictures import noise_png
from tests.support.problems import assert_problem
from tests.support.process import ServerProcess, new_api_key, running_server, wait_until
from tests.support.server import make_settings, upstream_settings
from tests.support.upstream import HANG, FakeUpstream

DATABASE_SECONDS = 3
"""The timeout for the database's responses and for connections; a stall of the disk must not count as an outage."""


@dataclass(frozen=True)
class Stage:
    """A server process with its own database and upstream, and a picture that exists already."""

    database: MariaDbServer
    upstream: FakeUpstream
    settings: Settings
    server: ServerProcess
    http: httpx2.Client
    guid: str


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Yield the running stage. A database that exceeds its timeout counts as unavailable."""
    with MariaDbServer() as database, FakeUpstream() as upstream:
        settings = make_settings(
            tmp_path,
            database_url=database.create_database(),
            database_timeout_seconds=DATABASE_SECONDS,
            database_wait_seconds=DATABASE_SECONDS,
            database_pool_size=4,
            images_per_minute=1_000,
            **upstream_settings(upstream),
        )
        api_key = new_api_key(settings)
        with running_server(settings, tmp_path) as server, server.client(api_key) as http:
            guid = http.post("/image", json={"prompt": "before"}).raise_for_status().json()["guid"]
            upstream.reset()
            yield Stage(database, upstream, settings, server, http, guid)


DATABASE_ROUTES: list[tuple[str, str, object]] = [
    ("GET", "/image", None),
    ("GET", "/image/{guid}", None),
    ("GET", "/image/{guid}/content", None),
    ("POST", "/image", {"prompt": "a fox"}),
    ("POST", "/generation", {"prompt": "a fox"}),
    ("GET", "/generation", None),
    ("PATCH", "/image/{guid}", {"filename": "x.png"}),
    ("DELETE", "/image/{guid}", None),
    ("GET", "/readyz", None),
]
"""Method, path and body of requests that need the database."""


AWAY = {"database_unavailable", "database_busy"}
"""Some requests find the database unavailable, others find all connections in use by requests that still wait."""


def assert_unavailable(answer: httpx2.Response) -> None:
    """Assert a 503 with Retry-After."""
    code = answer.json()["code"]
    assert code in AWAY
    assert_problem(answer, 503, code)
    assert int(answer.headers["retry-after"]) >= 1


def test_a_database_that_dies_and_comes_back(stage: Stage) -> None:
    stage.database.kill()
    for method, path, body in DATABASE_ROUTES:
        assert_unavailable(stage.http.request(method, path.format(guid=stage.guid), json=body))
    with stage.server.client() as anonymous:
        assert_unavailable(anonymous.get(f"/image/{stage.guid}"))
        assert anonymous.get("/healthz").status_code == 200
    assert stage.upstream.requests == []
    stage.database.start()
    wait_until(lambda: stage.http.get("/readyz").status_code == 200)
    assert stage.http.get(f"/image/{stage.guid}").status_code == 200
    assert stage.http.get(f"/image/{stage.guid}/content").status_code == 200
    headers = {"Idempotency-Key": "after"}
    wait_until(lambda: stage.http.post("/image", json={"prompt": "after"}, headers=headers).status_code == 201)
    assert [detail["prompt"] for detail in stage.http.get("/image?mine=true").json()] == ["after", "before"]
    assert "Traceback" not in stage.server.log.read_text()


def test_a_frozen_database_causes_bounded_503s(stage: Stage) -> None:
    stage.database.freeze()

    def ask(_: int) -> float:
        begun = time.monotonic()
        assert_unavailable(stage.http.get(f"/image/{stage.guid}"))
        return time.monotonic() - begun

    # More at once than the pool has connections: the wait for a connection is bounded too.
    with ThreadPoolExecutor(100) as pool:
        asked = [pool.submit(ask, number) for number in range(200)]
        # Within less than the database's timeout: nothing here waits for it.
        with stage.server.client(timeout=DATABASE_SECONDS - 1) as client:
            for _ in range(10):
                assert client.get("/healthz").status_code == 200
        # A wait for a connection, a check that finds it dead, and a new attempt: three timeouts, with ample slack.
        assert max(future.result() for future in asked) < 9 * DATABASE_SECONDS
    stage.database.thaw()
    wait_until(lambda: stage.http.get("/readyz").status_code == 200)
    # The pool has lost no connection: five times as many callers as connections take turns.
    with ThreadPoolExecutor(20) as pool:
        answers = pool.map(lambda _: stage.http.get(f"/image/{stage.guid}").status_code, range(200))
        assert set(answers) == {200}


def test_a_paid_picture_survives_a_database_that_dies_before_the_commit(stage: Stage) -> None:
    stage.upstream.picture = noise_png(200_000, seed=5)
    stage.upstream.behave(HANG)
    with ThreadPoolExecutor(1) as pool:
        order = pool.submit(stage.http.post, "/image", json={"prompt": "paid for"}, headers={"Idempotency-Key": "k"})
        stage.upstream.wait_for_requests(1)
        stage.database.kill()
        stage.upstream.release()
        answer = order.result()
    problem = assert_problem(answer, 503, "record_pending")
    assert int(answer.headers["retry-after"]) >= 1
    path = f"/image/{problem['image']}"
    assert_unavailable(stage.http.get(path))
    stage.database.start()
    wait_until(lambda: stage.http.get(path).status_code == 200, what="the picture")
    assert stage.http.get(f"{path}/content").content == stage.upstream.picture
    # The client follows the error's instructions, and gets the picture that it paid for.
    again = stage.http.post("/image", json={"prompt": "paid for"}, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["guid"]) == (201, problem["image"])
    assert len(stage.upstream.requests) == 1
