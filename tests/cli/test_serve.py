"""``pixyproxy serve``: it serves, stops on a signal, and reports in one sentence why it cannot start."""

import os
import signal
import socket
from pathlib import Path

import pytest

from pixyproxy.web.server.uvicorn_server import local_url
from tests.cli.conftest import Place
from tests.support.api_keys import key_id_of
from tests.support.process import new_api_key, running_server, wait_until
from tests.support.server import serving
from tests.support.upstream import refusing_base_url


def test_two_workers_serve_and_stop(place: Place) -> None:
    api_key = new_api_key(place.settings)
    with running_server(place.settings, place.folder, workers=2) as server:
        with server.client(api_key) as client:
            for _ in range(10):
                with server.client() as another:
                    found = another.get("/.well-known/oauth-authorization-server").json()
                assert found["issuer"] == server.url
                made = client.post("/image", json={"prompt": "a fox", "size": "64x64"})
                assert made.status_code == 201
                with server.client() as another:
                    assert another.get(f"/image/{made.json()['guid']}/content").status_code == 200
        assert server.terminate() == 0
        log = server.log.read_text()
    assert log.count("Application startup complete") == 2
    assert log.count("Application shutdown complete") == 2
    assert log.count("offline sketches (no OPENAI_API_KEY is set)") == 2


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8123"),
        ("0.0.0.0", "http://127.0.0.1:8123"),  # noqa: S104  (nothing listens there)
        ("::", "http://127.0.0.1:8123"),
        ("::1", "http://[::1]:8123"),
        ("pictures.internal", "http://pictures.internal:8123"),
    ],
)
def test_local_url_is_the_listening_address(host: str, url: str) -> None:
    assert local_url(host, 8123) == url


def test_token_stays_valid_when_the_port_changes(place: Place) -> None:
    with serving(place.settings) as former, serving(place.settings) as server:
        assert former.url != server.url
        tenant = former.new_tenant("acme")
        with tenant.http, server.client() as client:
            form = {"grant_type": "client_credentials", "client_id": key_id_of(tenant.api_key)}
            form["client_secret"] = tenant.api_key
            token = tenant.http.post("/auth/token", data=form).json()["access_token"]
            assert client.get("/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200
            told = client.post("/auth/introspect", data={**form, "token": token}).json()
            assert (told["active"], told["iss"]) == (True, former.url)


def test_dead_worker_is_replaced(place: Place) -> None:
    with running_server(place.settings, place.folder, workers=2) as server:

        def workers() -> list[int]:
            pid = server.process.pid
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

        def started() -> int:
            return server.log.read_text().count("Application startup complete")

        wait_until(lambda: started() == 2, what="both workers")
        os.kill(workers()[-1], signal.SIGKILL)
        wait_until(lambda: started() == 3, what="another worker")
        with server.client() as client:
            assert client.get("/readyz").status_code == 200


def test_unreachable_database_is_reported_in_one_sentence(place: Place) -> None:
    with refusing_base_url() as url:
        port = url.split(":")[2].removesuffix("/v1")
        for workers in ("1", "2"):
            done = place.run(
                "serve", "--port", "0", "--workers", workers,
                PIXYPROXY_DATABASE_URL=f"mysql://user:hunter2@127.0.0.1:{port}/x",
            )  # fmt: skip
            assert done.returncode == 1
            assert done.stderr.splitlines()[-1].startswith(f"The database at 127.0.0.1:{port} cannot be reached")
            assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "document"),
    [
        ("PIXYPROXY_IMAGES_PER_MINUTE", "many", ".env.example"),
        ("PIXYPROXY_DATABASE_URL", "oracle://hunter2@x", ".env.example"),
        ("PIXYPROXY_PUBLIC_URL", "nowhere", ".env.example"),
        ("OPENAI_BASE_URL", "not a url", ".env.example"),
        ("PIXYPROXY_UPSTREAMS", '[{"name": "hunter2"', "docs/how-to/configure-an-upstream.md"),
        ("PIXYPROXY_UPSTREAMS", '[{"name": "hunter2"}]', "docs/how-to/configure-an-upstream.md"),
    ],
)
def test_invalid_setting_is_named(name: str, value: str, document: str, place: Place) -> None:
    errors = place.fail("serve", "--port", "0", **{name: value})
    assert errors.startswith("Invalid settings")
    assert name in errors
    assert f"see {document}" in errors
    assert "hunter2" not in errors


def test_port_in_use_is_reported(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for workers in ("1", "2"):
            done = place.run("serve", "--port", port, "--workers", workers)
            assert done.returncode != 0
            assert "address already in use" in done.stderr.lower()


def test_unusable_data_folder_is_reported(place: Place) -> None:
    (place.folder / "file").write_text("no folder")
    done = place.run("serve", "--port", "0", PIXYPROXY_DATA_DIR=str(place.folder / "file" / "below"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"Not a directory: {place.folder / 'file' / 'below'}"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("name", ["SIGNING_KEYS", "TRUSTED_ISSUERS"])
def test_unusable_setting_is_reported_in_one_sentence(place: Place, name: str, workers: str) -> None:
    done = place.run("serve", "--port", "0", "--workers", workers, **{f"PIXYPROXY_{name}": "nonsense"})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_unreachable_redis_is_reported_at_start(place: Place) -> None:
    environment = {"PIXYPROXY_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}
    with running_server(place.settings, place.folder, environment=environment) as server:
        log = server.log.read_text()
        with server.client() as client:
            assert client.get("/readyz").json() == {"status": "ok", "limits": "local"}
    assert log.index("Redis is unavailable") < log.index("Application startup complete")
    assert "hunter2" not in log
