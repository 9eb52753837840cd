"""Stalled clients lose their connection, slow or waiting clients keep it, and ``/healthz`` always responds."""

import hashlib
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import pytest

from pixyproxy.service.composition import Services
from pixyproxy.web.server.connections import BoundedProtocol, Connections, Deadlines
from tests.support.pictures import noise_png
from tests.support.problems import assert_problem
from tests.support.raw_http import connected, exchange, read_response, request_bytes
from tests.support.server import RunningServer, TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import HANG, FakeUpstream
from tests.web.builders import make_image
from tests.web.envelope import assert_openai_error

NEVER = Deadlines(check_seconds=3_600, spare_seconds=3_600)
"""For a server whose connections the test checks itself, so that results do not depend on speed."""
SOON = Deadlines(check_seconds=0.2, spare_seconds=0.2)
PICTURE_BYTES = 4_000_000
PIECE_BYTES = 256 * 1024
HEAD = request_bytes("GET", "/image")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
REFUSED = request_bytes("POST", "/key", headers={"Connection": "keep-alive"}, body=b"{}")
STALLED = {
    "no byte": b"",
    "half a request line": HEAD[:6],
    "half a head": HEAD[:-4],
    "half a body": request_bytes("POST", "/auth/token", headers=FORM, body=b"grant_type=password")[:-5],
    "half a chunked body": request_bytes("POST", "/auth/token", headers=FORM | {"Transfer-Encoding": "chunked"})
    + b"5\r\nab",
    "half a body that was refused": request_bytes("POST", "/key", headers={"Connection": "keep-alive"}, body=b"{}")[
        :-1
    ],
}


@pytest.fixture(scope="module")
def large_upstream() -> Iterator[FakeUpstream]:
    """Yield an upstream that generates a large picture."""
    with FakeUpstream(picture=noise_png(PICTURE_BYTES)) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, large_upstream: FakeUpstream) -> Iterator[RunningServer]:
    """Yield a server whose connections are only checked by ``check``."""
    settings = make_settings(tmp_path_factory.mktemp("checked"), **upstream_settings(large_upstream))
    with serving(settings) as server:
        server.connections.deadlines = NEVER
        yield server


@pytest.fixture
def owner(checked: RunningServer) -> Iterator[TenantClient]:
    """Yield a new tenant."""
    owner = checked.new_tenant(f"tenant {uuid.uuid4()}")
    with owner.http:
        yield owner


def within(server: RunningServer, look: Callable[[], Any]) -> Any:  # noqa: ANN401  (the result of ``look``)
    """Evaluate a function within the server's event loop and return the result."""

    async def evaluate(_: Services) -> object:
        return look()

    return server.call(evaluate)


def wait_until(server: RunningServer, holds: Callable[[], object]) -> None:
    """Wait until a condition holds within the server's event loop."""
    deadline = time.monotonic() + 60
    while not within(server, holds):
        if time.monotonic() > deadline:
            pytest.fail("the condition did not hold in a minute")
        time.sleep(0.01)


def held_by(server: RunningServer, connection: socket.socket) -> BoundedProtocol:
    """Return the server's side of a connection."""

    def find() -> list[BoundedProtocol]:
        known = [*server.connections.held, *server.connections.spare]
        return [each for each in known if each.client == connection.getsockname()]

    wait_until(server, find)
    (found,) = within(server, find)
    return cast("BoundedProtocol", found)


def wait_for_bytes(server: RunningServer, connection: BoundedProtocol, count: int) -> None:
    """Wait until the server has received so many bytes."""
    wait_until(server, lambda: connection.received_bytes >= count)


def check(server: RunningServer, connection: BoundedProtocol) -> None:
    """Check a connection as its timer would."""
    within(server, connection.check)


def is_held(server: RunningServer, connection: BoundedProtocol) -> bool:
    """Return whether the server still has the connection."""
    return bool(within(server, lambda: connection in server.connections.held))


FAREWELLS = {b"", b"HTTP/1.1 401 "}
"""Nothing, or the response to a request that was refused before the connection stalled."""


def assert_closed(connection: socket.socket) -> None:
    """Assert that the server closed the connection without a response, except to a refused request."""
    connection.settimeout(60)
    rest = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert rest[:13] in FAREWELLS


@pytest.mark.parametrize("sent", STALLED.values(), ids=STALLED)
def test_stalled_client_loses_connection_at_second_check(sent: bytes, checked: RunningServer) -> None:
    with connected(checked.url) as connection:
        connection.sendall(sent)
        held = held_by(checked, connection)
        # Wait until everything received has been read and processed.
        wait_until(checked, lambda: held.received_bytes == len(sent) and held._debt() is not None)  # noqa: SLF001
        check(checked, held)
        assert is_held(checked, held)
        check(checked, held)
        assert_closed(connection)


def test_timer_runs_the_checks(tmp_path: Path) -> None:
    with serving(make_settings(tmp_path)) as server:
        server.connections.deadlines = SOON
        with connected(server.url) as connection:
            assert_closed(connection)
        wait_until(server, lambda: not server.connections.held)
        assert not server.connections.held_of


def test_connection_idle_between_requests_is_kept(checked: RunningServer) -> None:
    with connected(checked.url) as connection:
        for _ in range(3):
            connection.sendall(request_bytes("GET", "/healthz", headers={"Connection": "keep-alive"}))
            assert read_response(connection).status_code == 200
            for _ in range(3):
                check(checked, held_by(checked, connection))


def test_connection_is_not_kept_forever_after_refused_body(checked: RunningServer) -> None:
    with connected(checked.url) as connection:
        connection.sendall(REFUSED[:-1])
        assert read_response(connection).status_code == 401
        connection.sendall(REFUSED[-1:])
        held = held_by(checked, connection)
        wait_for_bytes(checked, held, len(REFUSED))
        check(checked, held)
        assert is_held(checked, held)
        check(checked, held)
        assert_closed(connection)


def test_slow_body_is_read_completely(checked: RunningServer, owner: TenantClient) -> None:
    headers = {"Authorization": f"Bearer {owner.api_key}", "Content-Type": "application/json"}
    body = b'{"prompt": "a fox"' + b" " * 20_000 + b"}"
    request = request_bytes("POST", "/image", headers=headers, body=body)
    checked.connections.deadlines = Deadlines(check_seconds=3_600, bytes_per_second=1)
    with connected(checked.url) as connection:
        held = held_by(checked, connection)
        for sent in range(0, len(request), 4_000):
            connection.sendall(request[sent : sent + 4_000])
            wait_for_bytes(checked, held, min(len(request), sent + 4_000))
            check(checked, held)
        answer = read_response(connection)
    checked.connections.deadlines = NEVER
    assert answer.status_code == 201


@pytest.fixture
def unread(checked: RunningServer, owner: TenantClient) -> Iterator[tuple[socket.socket, BoundedProtocol, str]]:
    """Yield a connection with a picture larger than all buffers, its server side, and the SHA-256."""
    made = make_image(owner)
    with socket.socket() as connection:
        # Set before connecting, so that little data is in flight and the server notices larger reads.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", int(checked.url.rpartition(":")[2])))
        connection.sendall(request_bytes("GET", f"/image/{made['guid']}/content"))
        held = held_by(checked, connection)
        wait_until(checked, lambda: held.flow.write_paused)
        yield connection, held, made["sha256"]


def test_client_that_does_not_read_loses_connection(
    unread: tuple[socket.socket, BoundedProtocol, str], checked: RunningServer
) -> None:
    connection, held, _ = unread
    check(checked, held)
    assert is_held(checked, held)
    check(checked, held)
    # The kernel does not keep the unread data either.
    with pytest.raises(ConnectionResetError):
        connection.makefile("rb").read()


def test_slowly_reading_client_gets_whole_picture(
    unread: tuple[socket.socket, BoundedProtocol, str], checked: RunningServer
) -> None:
    connection, held, sha256 = unread
    checked.connections.deadlines = Deadlines(check_seconds=3_600, bytes_per_second=PIECE_BYTES // 4 // 3_600)
    received = b""
    with connection.makefile("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            received += piece
            check(checked, held)
    checked.connections.deadlines = NEVER
    assert hashlib.sha256(received.partition(b"\r\n\r\n")[2]).hexdigest() == sha256


@pytest.mark.parametrize("path", ["", "/events"])
def test_waiting_client_keeps_connection(
    path: str, checked: RunningServer, owner: TenantClient, large_upstream: FakeUpstream
) -> None:
    large_upstream.behave_once(HANG)
    ordered = owner.http.post("/generation", json={"prompt": "a fox"})
    headers = {"Authorization": f"Bearer {owner.api_key}", "Prefer": "wait=60"}
    with connected(checked.url) as connection:
        connection.sendall(request_bytes("GET", ordered.headers["location"] + path, headers=headers))
        held = held_by(checked, connection)
        wait_until(checked, lambda: held.cycle is not None)
        for _ in range(4):
            check(checked, held)
        assert is_held(checked, held)
        large_upstream.release()
        answer = read_response(connection)
    assert answer.status_code == 200
    assert "stored" in answer.text


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[RunningServer]:
    """Yield a server with 8 connections, 2 of them per address, and 2 spare ones."""
    with serving(make_settings(tmp_path, max_connections=8)) as server:
        server.connections.deadlines = NEVER
        server.connections.most_spare = 2
        yield server


def silent(server: RunningServer, stack: ExitStack, count: int) -> list[socket.socket]:
    """Open so many silent connections; return them in the server's order."""
    made = [stack.enter_context(connected(server.url)) for _ in range(count)]
    for each in made:
        held_by(server, each)
    return made


def test_healthz_responds_when_address_holds_its_maximum(crowded: RunningServer) -> None:
    with ExitStack() as stack:
        silent(crowded, stack, 2)
        for _ in range(5):
            answer = exchange(crowded.url, request_bytes("GET", "/healthz", headers={"Connection": "keep-alive"}))
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        refused = exchange(crowded.url, request_bytes("GET", "/image", headers={"Connection": "keep-alive"}))
        assert_problem(refused, 503, "server_busy")
        assert refused.headers["retry-after"]
        assert refused.headers["connection"] == "close"
        assert_openai_error(exchange(crowded.url, request_bytes("GET", "/v1/models")), 503, "server_busy")
    wait_until(crowded, lambda: not crowded.connections.held)
    assert exchange(crowded.url, request_bytes("GET", "/image")).status_code == 200


def test_oldest_spare_connection_is_replaced(crowded: RunningServer) -> None:
    with ExitStack() as stack:
        made = silent(crowded, stack, 4)
        assert exchange(crowded.url, request_bytes("GET", "/healthz")).status_code == 200
        assert_closed(made[2])
        assert within(crowded, lambda: len(crowded.connections.held)) == 2


def test_silent_spare_connection_is_closed(crowded: RunningServer) -> None:
    crowded.connections.deadlines = Deadlines(check_seconds=3_600, spare_seconds=0.1)
    with ExitStack() as stack:
        # Regular connections are only closed by the test's own checks.
        made = [stack.enter_context(connected(crowded.url)) for _ in range(3)]
        assert_closed(made[2])
        assert within(crowded, lambda: len(crowded.connections.held)) == 2


def test_trusted_proxy_may_hold_all_connections(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, max_connections=8, trusted_proxies="127.0.0.0/8")
    with serving(settings) as server, ExitStack() as stack:
        server.connections.deadlines = NEVER
        silent(server, stack, 7)
        assert exchange(server.url, request_bytes("GET", "/image")).status_code == 200
        silent(server, stack, 1)
        assert_problem(exchange(server.url, request_bytes("GET", "/image")), 503, "server_busy")
        assert exchange(server.url, request_bytes("GET", "/healthz")).status_code == 200


def admitted(connections: Connections, *hosts: str | None) -> list[bool]:
    """Return for successive connections from these hosts whether each is within the limits."""
    # Any distinct object can stand for a connection.
    return [connections.admit(cast("BoundedProtocol", object()), host) for host in hosts]


def test_addresses_of_one_network_share_a_quarter_of_connections() -> None:
    connections = Connections(most=8, trusted=(ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48")))
    same = ("2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:1")
    assert admitted(connections, *same) == [True, True, False]
    assert admitted(connections, "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1") == [True, True, False]
    # Clients behind a trusted proxy share its address, and a Unix socket has none.
    assert admitted(connections, "10.0.0.1", "::ffff:10.0.0.1", "2001:db8:1::1") == [True, True, True]
    assert admitted(connections, None, "198.51.100.1", "10.0.0.1", None) == [True, False, False, False]


def test_every_address_may_hold_one_connection() -> None:
    assert admitted(Connections(most=3), "192.0.2.1", "192.0.2.1", "192.0.2.2") == [True, False, True]


NOT_HTTP = {
    "not HTTP": b"hello\r\n\r\n",
    "an invalid version": b"GET / HTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two lengths": b"POST /image HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
    "an unknown encoding": b"POST /image HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: br\r\n\r\n",
    "an invalid chunk": b"POST /auth/token HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
}


@pytest.mark.parametrize("sent", NOT_HTTP.values(), ids=NOT_HTTP)
def test_invalid_http_gets_problem_with_logged_request_id(
    sent: bytes, checked: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    answer = exchange(checked.url, sent)
    assert_problem(answer, 400, "malformed_request")
    assert answer.headers["connection"] == "close"
    assert "responded with 400 malformed_request" in caplog.messages


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 1_000_000, 431, "headers_too_large"),
        (b"GET /?" + b"a" * 1_000_000, 414, "query_too_long"),
    ],
)
def test_oversized_head_is_rejected_and_its_rest_discarded(
    sent: bytes, status: int, code: str, checked: RunningServer
) -> None:
    with connected(checked.url) as connection:
        connection.sendall(sent)
        held = held_by(checked, connection)
        assert_problem(read_response(connection), status, code)
        check(checked, held)
        connection.sendall(b"a" * 100_000)
        assert is_held(checked, held)
        check(checked, held)
        wait_until(checked, lambda: held not in checked.connections.held)


@pytest.mark.parametrize(
    ("path", "code"),
    [("/image", "malformed_body"), ("/auth/token", "invalid_request"), ("/v1/images/generations", "malformed_body")],
)
def test_body_with_two_lengths_is_rejected_and_nothing_after_it_is_read(
    path: str, code: str, checked: RunningServer
) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Length": "5", "Connection": "keep-alive"}
    smuggled = request_bytes("GET", "/healthz")
    with connected(checked.url) as connection:
        connection.sendall(request_bytes("POST", path, headers=headers) + b"0\r\n\r\n" + smuggled)
        answer = read_response(connection)
        assert answer.status_code == 400
        assert code in answer.text
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-request-id"]
        assert_closed(connection)
