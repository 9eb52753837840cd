"""``pixyproxy generate``: a picture from a running server, or one sentence about the problem."""

import http.server
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.conftest import Place
from tests.support.pictures import noise_png
from tests.support.server import RunningServer, TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import MODERATED, FakeUpstream, refusing_base_url


class _Stranger(http.server.BaseHTTPRequestHandler):
    """An HTTP server that is not PixyProxy."""

    def do_POST(self) -> None:
        """Answer with a page."""
        body = b"<html>Not here</html>"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, session_upstream: FakeUpstream) -> Iterator[RunningServer]:
    """One server is enough: the client cannot see which database is behind it."""
    settings = make_settings(tmp_path_factory.mktemp("generate"), **upstream_settings(session_upstream))
    with serving(settings) as server:
        yield server


@pytest.fixture
def stranger() -> Iterator[str]:
    """Provide the URL of a server that is not PixyProxy."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Stranger) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def generate(place: Place, server: RunningServer, api_key: str, *arguments: str) -> tuple[int, str, str]:
    """Run the command and return exit code, output and errors."""
    done = place.run("generate", *arguments, "--url", server.url, PIXYPROXY_API_KEY=api_key)
    return done.returncode, done.stdout, done.stderr


def test_picture_is_written_to_a_file(
    place: Place, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.picture = noise_png(300_000)
    file = place.folder / "fox.png"
    code, output, errors = generate(place, server, tenant.api_key, "a red fox", "-o", str(file), "--size", "512x512")
    assert code == 0, errors
    assert file.read_bytes() == upstream.picture
    (image,) = tenant.http.get("/image", params={"mine": "true"}).json()
    assert output == f"{image['content_url']}\nWritten to {file} ({len(upstream.picture):,} bytes).\n"
    assert upstream.requests[0].body["size"] == "512x512"


@pytest.mark.usefixtures("upstream")
def test_json_output_is_the_image_details(place: Place, server: RunningServer, tenant: TenantClient) -> None:
    code, output, errors = generate(place, server, tenant.api_key, "ein Füchslein", "--json")
    assert code == 0, errors
    assert [json.loads(output)] == tenant.http.get("/image", params={"mine": "true"}).json()


@pytest.mark.usefixtures("upstream")
def test_invalid_prompt_is_reported_by_field(place: Place, server: RunningServer, tenant: TenantClient) -> None:
    code, output, errors = generate(place, server, tenant.api_key, " ")
    assert (code, output) == (1, "")
    assert "(invalid_request, request " in errors
    assert "body.prompt" in errors


def test_refusal_is_reported_with_the_servers_message(
    place: Place, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.behave(MODERATED)
    code, output, errors = generate(place, server, tenant.api_key, "a fox")
    assert (code, output) == (1, "")
    assert errors.startswith("The image model refused this request.")
    assert "prompt_refused" in errors


@pytest.mark.parametrize("api_key", ["pxy_wrong", "schlüssel", "line\nend"])
def test_invalid_api_key_is_reported(api_key: str, place: Place, server: RunningServer) -> None:
    code, output, errors = generate(place, server, api_key, "a fox")
    assert (code, output) == (1, "")
    assert errors.strip()
    assert len(errors.splitlines()) <= 2


def test_missing_api_key_is_reported(place: Place) -> None:
    done = place.run("generate", "a fox")
    assert done.returncode == 2
    assert "--api-key" in done.stderr


def test_unreachable_server_is_reported(place: Place) -> None:
    with refusing_base_url() as url:
        errors = place.fail("generate", "a fox", "--url", url, PIXYPROXY_API_KEY="pxy_x")
    assert errors == f"Cannot connect to {url} (ConnectError). Is the server running?\n"


def test_lost_connection_reports_the_idempotency_key(place: Place) -> None:
    def hang_up() -> None:
        listening.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        pool.submit(hang_up)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        errors = place.fail("generate", "a fox", "--url", url, PIXYPROXY_API_KEY="pxy_x")
        assert re.search(r"may have been generated: .* --idempotency-key [0-9a-f-]{36} ", errors)


def test_repeated_order_with_its_key_buys_once(
    place: Place, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    first, second = (generate(place, server, tenant.api_key, "a fox", "--idempotency-key", "k") for _ in range(2))
    assert (first[0], second[0]) == (0, 0)
    assert first[1] == second[1]
    assert len(upstream.requests) == 1


def test_server_other_than_pixyproxy_is_reported(stranger: str, place: Place) -> None:
    errors = place.fail("generate", "a fox", "--url", stranger, PIXYPROXY_API_KEY="pxy_x")
    assert errors == "Unexpected response from the server: status 404. Check the URL.\n"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://127.0.0.1/", "http://", "http://a:b"])
def test_invalid_url_is_reported(url: str, place: Place) -> None:
    errors = place.fail("generate", "a fox", "--url", url, PIXYPROXY_API_KEY="pxy_x")
    assert len(errors.splitlines()) == 1


@pytest.mark.usefixtures("upstream")
def test_unwritable_file_does_not_lose_the_picture(place: Place, server: RunningServer, tenant: TenantClient) -> None:
    file = place.folder / "no-such-folder" / "fox.png"
    code, _, errors = generate(place, server, tenant.api_key, "a fox", "-o", str(file))
    (image,) = tenant.http.get("/image", params={"mine": "true"}).json()
    assert code == 1
    assert errors.startswith(f"The picture is at {image['content_url']}, but {file} could not be written")


@pytest.mark.usefixtures("upstream")
def test_failed_order_leaves_no_file(place: Place, server: RunningServer, tenant: TenantClient) -> None:
    file = Path(place.folder / "fox.png")
    code, _, _ = generate(place, server, tenant.api_key, "a fox", "--quality", "NO SUCH", "-o", str(file))
    assert code == 1
    assert not file.exists()
