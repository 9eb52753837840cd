"""HTTP that no client library would send: raw bytes over a socket."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from urllib.parse import urlsplit

import httpx2

SECONDS = 20


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """Yield a connection to the server of a URL."""
    parts = urlsplit(url)
    with socket.create_connection((str(parts.hostname), parts.port or 80), timeout=SECONDS) as connection:
        yield connection


def exchange(url: str, request: bytes, *, method: str = "GET") -> httpx2.Response:
    """Return the response to exactly these bytes."""
    with connected(url) as connection:
        connection.sendall(request)
        return read_response(connection, method=method)


def read_response(connection: socket.socket, *, method: str = "GET") -> httpx2.Response:
    """Return the next response on a connection."""
    answer = HTTPResponse(connection, method=method)
    try:
        answer.begin()
        content = answer.read()
        return httpx2.Response(answer.status, headers=answer.getheaders(), content=content)
    finally:
        answer.close()


def request_bytes(
    method: str, target: str | bytes, *, headers: dict[str, str] | None = None, body: bytes | None = None
) -> bytes:
    """Return a request with its target unchanged, and a correct Content-Length if there is a body."""
    raw = target if isinstance(target, bytes) else target.encode("latin-1")
    lines = {"Host": "pixyproxy.test", "Connection": "close", **(headers or {})}
    if body is not None:
        lines["Content-Length"] = str(len(body))
    head = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in lines.items())
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method.encode(), raw, head, body or b"")


def abandon(url: str, *parts: bytes) -> None:
    """Send all or part of a request, and hang up without reading a byte."""
    with connected(url) as connection:
        for part in parts:
            connection.sendall(part)
