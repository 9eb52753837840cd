"""Clients that hang up and processes that end in mid-generation: what is paid for is kept, and bought once."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from pixyproxy.core.settings import Settings
from tests.support.mariadb import MySqlDatabases
from tests.support.pictures import noise_png
from tests.support.problems import assert_problem
from tests.support.process import ServerProcess, new_api_key, running_server, wait_until
from tests.support.raw_http import connected, request_bytes
from tests.support.server import make_settings, upstream_settings
from tests.support.upstream import FakeUpstream

KEY = {"Idempotency-Key": "order-4711"}


@dataclass(frozen=True)
class Site:
    """What outlives a process: settings, upstream, and a tenant's key."""

    settings: Settings
    upstream: FakeUpstream
    api_key: str

    def files(self) -> list[Path]:
        """Every file of the store."""
        return [path for path in self.settings.images.rglob("*") if path.is_file()]


@pytest.fixture(params=["sqlite", "mysql"])
def site(request: pytest.FixtureRequest, tmp_path: Path, mysql_server: MySqlDatabases) -> Iterator[Site]:
    """A site on each database."""
    url = mysql_server.create_database() if request.param == "mysql" else None
    with FakeUpstream(picture=noise_png(300_000, seed=9)) as upstream:
        settings = make_settings(tmp_path, database_url=url, shutdown_seconds=20, **upstream_settings(upstream))
        yield Site(settings, upstream, new_api_key(settings))
    if url is not None:
        mysql_server.drop_database(url)


def own_images(client: httpx2.Client) -> list[dict[str, str]]:
    """The tenant's images."""
    listed: list[dict[str, str]] = client.get("/image", params={"mine": "true"}).raise_for_status().json()
    return listed


@contextmanager
def ordering(site: Site, folder: Path) -> Iterator[tuple[ServerProcess, Future[httpx2.Response]]]:
    """A server process, and an order that is on its way to it."""
    with (
        running_server(site.settings, folder) as server,
        server.client(site.api_key) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        yield server, pool.submit(client.post, "/image", json={"prompt": "a fox"}, headers=KEY)


def assert_picture_is_kept(client: httpx2.Client, site: Site) -> None:
    """There is one image, and its picture is what the upstream sent."""
    (image,) = own_images(client)
    assert client.get(f"/image/{image['guid']}/content").content == site.upstream.picture
    assert len(site.upstream.requests) == 1


def test_a_client_that_hangs_up_finds_its_picture_in_the_list(site: Site, tmp_path: Path) -> None:
    site.upstream.delay = 0.5
    headers = {"Authorization": f"Bearer {site.api_key}", "Content-Type": "application/json", **KEY}
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        with connected(server.url) as connection:
            connection.sendall(request_bytes("POST", "/image", headers=headers, body=b'{"prompt": "a fox"}'))
            site.upstream.wait_for_requests(1)
        wait_until(lambda: len(own_images(client)) == 1, what="the picture")
        assert_picture_is_kept(client, site)
        again = client.post("/image", json={"prompt": "a fox"}, headers=KEY)
        assert again.headers["idempotency-replayed"] == "true"
        assert len(site.upstream.requests) == 1


def test_a_hundred_hang_ups_leave_the_server_as_it_was(site: Site, tmp_path: Path) -> None:
    site.upstream.delay = 0.2
    headers = {"Authorization": f"Bearer {site.api_key}", "Content-Type": "application/json"}

    def hang_up(number: int) -> None:
        with connected(server.url) as connection:
            request = request_bytes("POST", "/image", headers=headers, body=b'{"prompt": "%d"}' % number)
            connection.sendall(request)
            site.upstream.wait_for_requests(number % 10)

    settings = site.settings.model_copy(update={"images_per_minute": 1_000, "database_pool_size": 2})
    settings.model_fields_set.update({"images_per_minute", "database_pool_size"})
    with running_server(settings, tmp_path) as server, server.client(site.api_key) as client:
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(hang_up, range(100)))

        def all_kept() -> bool:
            bought = len(site.upstream.requests)
            listed = client.get("/image", params={"mine": "true", "limit": "100"}).json()
            log = server.log.read_text()
            return len(listed) == bought and log.count("REQUEST START\n") == log.count("REQUEST END\n") + 1

        # The one request that asks is under way itself.
        wait_until(all_kept, what="every picture that was bought")
        assert client.post("/image", json={"prompt": "after"}).status_code == 201
        assert client.get("/readyz").status_code == 200


def test_sigterm_in_mid_generation_finishes_it_and_answers(site: Site, tmp_path: Path) -> None:
    site.upstream.delay = 1.0
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        with ThreadPoolExecutor(1) as pool:
            order = pool.submit(client.post, "/image", json={"prompt": "a fox"})
            site.upstream.wait_for_requests(1)
            server.process.send_signal(signal.SIGTERM)
            answer = order.result()
        server.process.wait(timeout=30)
        assert answer.status_code == 201
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        assert_picture_is_kept(client, site)


def test_sigterm_without_work_ends_with_exit_code_0(tmp_path: Path) -> None:
    with running_server(make_settings(tmp_path), tmp_path) as server:
        assert server.terminate() == 0


def test_sigterm_keeps_the_picture_of_a_client_that_has_hung_up(site: Site, tmp_path: Path) -> None:
    site.upstream.delay = 0.5
    headers = {"Authorization": f"Bearer {site.api_key}", "Content-Type": "application/json"}
    with running_server(site.settings, tmp_path) as server:
        with connected(server.url) as connection:
            connection.sendall(request_bytes("POST", "/image", headers=headers, body=b'{"prompt": "a fox"}'))
            site.upstream.wait_for_requests(1)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=30)
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        assert_picture_is_kept(client, site)


def test_kill_in_mid_generation_never_buys_a_second_time(site: Site, tmp_path: Path) -> None:
    site.upstream.delay = 2.0
    with ordering(site, tmp_path) as (server, order):
        site.upstream.wait_for_requests(1)
        server.kill()
        assert isinstance(order.exception(), httpx2.HTTPError)
    assert site.files() == []
    site.upstream.delay = 0
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        again = client.post("/image", json={"prompt": "a fox"}, headers=KEY)
        assert again.status_code == 409
        assert_problem(again, 409, again.json()["code"])
        assert again.json()["code"] in {"generation_in_flight", "generation_unknown"}
        assert own_images(client) == []
        assert len(site.upstream.requests) == 1
        # The tenant is not locked out: a new key buys a new picture.
        assert client.post("/image", json={"prompt": "a fox"}, headers={"Idempotency-Key": "k2"}).status_code == 201


@pytest.mark.parametrize("moment", ["staged", "stored", "answered"])
def test_what_a_kill_leaves_is_finished_by_the_next_process(moment: str, site: Site, tmp_path: Path) -> None:
    images = site.settings.images
    reached: dict[str, Callable[[], bool]] = {
        "staged": lambda: any((images / ".incoming").glob("*")),
        "stored": lambda: any(images.rglob("*.png")),
        "answered": lambda: False,
    }
    with ordering(site, tmp_path) as (server, order):
        deadline = time.monotonic() + 10
        while not (reached[moment]() or order.done()):
            assert time.monotonic() < deadline
        server.kill()
        acknowledged = order.exception() is None and order.result().status_code == 201
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        if acknowledged:
            assert_picture_is_kept(client, site)
        kept = {path.stem for path in images.rglob("*.png")}
        wait_until(lambda: {image["guid"] for image in own_images(client)} == kept, what="the record of every picture")
        if kept:
            assert_picture_is_kept(client, site)
        again = client.post("/image", json={"prompt": "a fox"}, headers=KEY)
        assert again.status_code in ({201} if kept else {409})
        assert len(site.upstream.requests) == 1
