"""The fake upstream's HTTP: requests from clients other than the SDK, and very many of them at once."""

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from tests.support import upstream
from tests.support.raw_http import connected, exchange, read_response, request_bytes
from tests.support.upstream import FakeUpstream

BODY = json.dumps({"prompt": "a red fox"}).encode()


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream() as started:
        yield started


def _post(fake: FakeUpstream, *, body: bytes | None = BODY, **headers: str) -> bytes:
    given = {"Authorization": f"Bearer {fake.api_key}", "Connection": "keep-alive", **headers}
    return request_bytes("POST", upstream.GENERATIONS_PATH, headers=given, body=body)


def _answers(connection: socket.socket, fake: FakeUpstream, request: bytes) -> bool:
    connection.sendall(request)
    return read_response(connection).status_code == 200 and bool(fake.requests)


def test_a_connection_serves_requests_in_sequence(fake: FakeUpstream) -> None:
    with connected(fake.base_url) as connection:
        assert all(_answers(connection, fake, _post(fake)) for _ in range(3))

    assert len(fake.ledger) == 3


def test_a_request_may_arrive_byte_by_byte(fake: FakeUpstream) -> None:
    with connected(fake.base_url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in _post(fake):
            connection.sendall(bytes([byte]))
        assert read_response(connection).status_code == 200


def test_a_body_may_be_chunked(fake: FakeUpstream) -> None:
    chunks = b"5\r\n%b\r\n%x;extension\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
    with connected(fake.base_url) as connection:
        head = _post(fake, body=None, **{"Transfer-Encoding": "chunked"})
        assert _answers(connection, fake, head + chunks)
        assert _answers(connection, fake, _post(fake))

    assert [request.raw for request in fake.requests] == [BODY, BODY]


def test_a_client_may_expect_100_continue_before_sending_a_body(fake: FakeUpstream) -> None:
    with connected(fake.base_url) as connection:
        connection.sendall(_post(fake, body=None, **{"Expect": "100-continue", "Content-Length": str(len(BODY))}))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert _answers(connection, fake, BODY)


def test_connection_close_is_respected(fake: FakeUpstream) -> None:
    with connected(fake.base_url) as connection:
        assert _answers(connection, fake, _post(fake, Connection="close"))
        assert connection.recv(1) == b""


def test_a_truncated_request_is_ignored(fake: FakeUpstream) -> None:
    for part in (b"", b"POST ", _post(fake)[:-1]):
        with connected(fake.base_url) as connection:
            connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""

    assert fake.requests == []


def test_other_methods_and_paths_are_not_found(fake: FakeUpstream) -> None:
    for method, path in (("GET", upstream.GENERATIONS_PATH), ("POST", "/v1/models"), ("DELETE", "/v1/models/x")):
        answer = exchange(fake.base_url, request_bytes(method, path, body=b""))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")

    assert fake.ledger == []


def test_hundreds_of_concurrent_requests_are_all_answered(fake: FakeUpstream) -> None:
    fake.behave(upstream.HANG)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(fake.base_url)) for _ in range(300)]
        for connection in connections:
            connection.sendall(_post(fake))
        fake.wait_for_requests(300, seconds=20)
        assert fake.ledger == []
        fake.release()
        assert {read_response(connection).status_code for connection in connections} == {200}

    assert sum(line.bought for line in fake.ledger) == 300
