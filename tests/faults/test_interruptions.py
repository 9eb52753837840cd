"""Clients hang up and processes end during a generation: paid pictures are kept, and bought once."""

import signal
from collections.abc import Iterator
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
from tests.support.scale import scaled
from tests.support.server import make_settings, upstream_settings
from tests.support.upstream import HANG, FakeUpstream

KEY = {"Idempotency-Key": "order-4711"}
HANG_UPS = scaled(100, 1_000)


@dataclass(frozen=True)
class Site:
    """Everything that outlives a process: settings, upstream, and a tenant's key."""

    settings: Settings
    upstream: FakeUpstream
    api_key: str

    def files(self) -> list[Path]:
        """Return every file of the store."""
        return [path for path in self.settings.images.rglob("*") if path.is_file()]


@pytest.fixture(params=["sqlite"])
def site(request: pytest.FixtureRequest, tmp_path: Path, mysql_server: MySqlDatabases) -> Iterator[Site]:
    """Yield a site, on SQLite unless the test asks for both databases."""
    url = mysql_server.create_database() if request.param == "mysql" else None
    with FakeUpstream(picture=noise_png(300_000, seed=9)) as upstream:
        settings = make_settings(tmp_path, database_url=url, shutdown_seconds=20, **upstream_settings(upstream))
        yield Site(settings, upstream, new_api_key(settings))
    if url is not None:
        mysql_server.drop_database(url)


def own_images(client: httpx2.Client) -> list[dict[str, str]]:
    """Return the tenant's images from every page."""
    listed: list[dict[str, str]] = []
    url: str | None = "/image?mine=true&limit=100"
    while url is not None:
        page = client.get(url).raise_for_status()
        listed += page.json()
        url = page.links.get("next", {}).get("url")
    return listed


@contextmanager
def ordering(site: Site, folder: Path) -> Iterator[tuple[ServerProcess, Future[httpx2.Response]]]:
    """Yield a server process, and an order in progress there."""
    with (
        running_server(site.settings, folder) as server,
        server.client(site.api_key) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        yield server, pool.submit(client.post, "/image", json={"prompt": "a fox"}, headers=KEY)


def assert_picture_is_kept(client: httpx2.Client, site: Site) -> None:
    """Assert that there is one image, and its picture is the one that the upstream sent."""
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


@pytest.mark.parametrize("site", ["sqlite", "mysql"], indirect=True)
def test_hang_ups_of_two_tenants_leave_the_server_usable(site: Site, tmp_path: Path) -> None:
    site.upstream.delay = 0.2
    keys = [site.api_key, new_api_key(site.settings, tenant="another")]

    def hang_up(number: int) -> None:
        headers = {"Authorization": f"Bearer {keys[number % 2]}", "Content-Type": "application/json"}
        with connected(server.url) as connection:
            body = b'{"prompt": "tenant %d"}' % (number % 2)
            connection.sendall(request_bytes("POST", "/image", headers=headers, body=body))
            site.upstream.wait_for_requests(number % 10)

    settings = site.settings.model_copy(update={"images_per_minute": 10_000, "database_pool_size": 2})
    settings.model_fields_set.update({"images_per_minute", "database_pool_size"})
    with (
        running_server(settings, tmp_path) as server,
        server.client(keys[0]) as first,
        server.client(keys[1]) as second,
    ):
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(hang_up, range(HANG_UPS)))

        def all_kept() -> bool:
            listed = [own_images(client) for client in (first, second)]
            for number, images in enumerate(listed):
                assert {image["prompt"] for image in images} <= {f"tenant {number}"}
            log = server.log.read_text()
            done = log.count("REQUEST START\n") == log.count("REQUEST END\n")
            return done and sum(map(len, listed)) == len(site.upstream.requests)

        wait_until(all_kept, what="every picture that was bought")
        # Every connection of the pool is still usable.
        with ThreadPoolExecutor(4) as pool:
            answers = pool.map(lambda _: first.post("/image", json={"prompt": "tenant 0"}).status_code, range(4))
            assert set(answers) == {201}


def test_sigterm_during_a_generation_finishes_and_answers_it(site: Site, tmp_path: Path) -> None:
    site.upstream.delay = 1.0
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        with ThreadPoolExecutor(1) as pool:
            order = pool.submit(client.post, "/image", json={"prompt": "a fox"})
            site.upstream.wait_for_requests(1)
            server.process.send_signal(signal.SIGTERM)
            answer = order.result()
        server.process.wait(timeout=60)
        assert answer.status_code == 201
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        assert_picture_is_kept(client, site)


def test_sigterm_with_twenty_in_flight_answers_them_all(site: Site, tmp_path: Path) -> None:
    site.upstream.delay = 2.0
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        with ThreadPoolExecutor(20) as pool:
            orders = [pool.submit(client.post, "/image", json={"prompt": f"fox {number}"}) for number in range(20)]
            site.upstream.wait_for_requests(20)
            server.process.send_signal(signal.SIGTERM)
            guids = {order.result().raise_for_status().json()["guid"] for order in orders}
        server.process.wait(timeout=site.settings.shutdown_seconds + 30)
        assert len(guids) == 20
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        listed = client.get("/image", params={"mine": "true", "limit": "100"}).json()
        assert {image["guid"] for image in listed} == guids
        assert len(site.upstream.requests) == 20


def test_sigterm_waits_no_longer_than_its_limit(tmp_path: Path) -> None:
    with FakeUpstream() as upstream:
        upstream.behave(HANG)
        # Long enough to record the outcome after the waiting has ended.
        settings = make_settings(tmp_path, shutdown_seconds=5, **upstream_settings(upstream))
        api_key = new_api_key(settings)
        with running_server(settings, tmp_path) as server, server.client(api_key) as client:
            accepted = client.post("/generation", json={"prompt": "a fox"}, headers=KEY)
            upstream.wait_for_requests(1)
            assert server.terminate() == 0
        with running_server(settings, tmp_path) as server, server.client(api_key) as client:
            found = client.get(accepted.headers["location"]).json()
            assert found["status"] == "unknown"
            assert_problem(
                client.post("/generation", json={"prompt": "a dog"}, headers=KEY), 422, "idempotency_mismatch"
            )
            assert client.post("/generation", json={"prompt": "a fox"}, headers=KEY).json()["guid"] == found["guid"]
            assert len(upstream.requests) == 1


def test_sigterm_waits_for_an_order_without_a_connected_client(tmp_path: Path) -> None:
    with FakeUpstream(delay=2.5) as upstream:
        settings = make_settings(tmp_path, shutdown_seconds=20, **upstream_settings(upstream))
        api_key = new_api_key(settings)
        with running_server(settings, tmp_path) as server, server.client(api_key) as client:
            guid = client.post("/generation", json={"prompt": "a fox"}).raise_for_status().json()["guid"]
            upstream.wait_for_requests(1)
            client.close()
            assert server.terminate() == 0
        with running_server(settings, tmp_path) as server, server.client(api_key) as client:
            assert client.get(f"/generation/{guid}").json()["status"] == "stored"
            assert len(upstream.ledger) == 1


def test_sigterm_without_work_ends_with_exit_code_0(tmp_path: Path) -> None:
    with running_server(make_settings(tmp_path), tmp_path) as server:
        assert server.terminate() == 0


def test_sigterm_keeps_the_picture_of_a_disconnected_client(site: Site, tmp_path: Path) -> None:
    site.upstream.delay = 0.5
    headers = {"Authorization": f"Bearer {site.api_key}", "Content-Type": "application/json"}
    with running_server(site.settings, tmp_path) as server:
        with connected(server.url) as connection:
            connection.sendall(request_bytes("POST", "/image", headers=headers, body=b'{"prompt": "a fox"}'))
            site.upstream.wait_for_requests(1)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=60)
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        assert_picture_is_kept(client, site)


BEFORE_AND_AFTER_RECOVERY = {"generation_in_flight", "generation_unknown"}
"""The new process responds at once, and settles the killed one's orders a moment later."""


def test_kill_during_a_generation_never_buys_a_second_time(site: Site, tmp_path: Path) -> None:
    site.upstream.behave_once(HANG)
    with ordering(site, tmp_path) as (server, order):
        site.upstream.wait_for_requests(1)
        server.kill()
        assert isinstance(order.exception(), httpx2.HTTPError)
    assert site.files() == []
    with running_server(site.settings, tmp_path) as server, server.client(site.api_key) as client:
        again = client.post("/image", json={"prompt": "a fox"}, headers=KEY)
        assert again.status_code == 409
        assert_problem(again, 409, again.json()["code"])
        assert again.json()["code"] in BEFORE_AND_AFTER_RECOVERY
        assert own_images(client) == []
        assert len(site.upstream.requests) == 1
        # The tenant is not locked out: a new key buys a new picture.
        assert client.post("/image", json={"prompt": "a fox"}, headers={"Idempotency-Key": "k2"}).status_code == 201
