"""One connection to the fake upstream: requests read, recorded and answered."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast

from tests.support.upstream.answers import generation_parts
from tests.support.upstream.behaviours import JSON, UNAUTHORIZED, Refusal
from tests.support.upstream.validation import refusal_of

if TYPE_CHECKING:
    from tests.support.upstream.server import FakeUpstream, Server


@dataclass(frozen=True, kw_only=True)
class UpstreamRequest:
    """One request as it arrived; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    """The parsed JSON object, empty where the bytes are no JSON object."""
    raw: bytes


class Exchange(BaseHTTPRequestHandler):
    """One connection: reads a request, records it, lets a `Behaviour` answer it."""

    protocol_version = "HTTP/1.1"
    server_version = "FakeUpstream"
    disable_nagle_algorithm = True
    received: UpstreamRequest
    _release: threading.Event

    @property
    def upstream(self) -> "FakeUpstream":
        """The server that this exchange belongs to."""
        return cast("Server", self.server).upstream

    def handle(self) -> None:
        """Serve the connection until it ends; half of the faults end it early."""
        with (
            self.upstream.keeping(self.connection),
            contextlib.suppress(ConnectionError),
        ):
            super().handle()

    def take_request(self) -> None:
        """Record the request before anything else, then answer it."""
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.received = UpstreamRequest(
            method=self.command,
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=_object_of(raw),
            raw=raw,
        )
        behaviour, self._release = self.upstream.record(self.received)
        self.pause(self.upstream.delay)
        behaviour.answer(self)

    # The standard library chooses these names.
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = take_request  # noqa: N815

    def refusal(self) -> Refusal | None:
        """Return what the real API would refuse this request with, if anything."""
        if self.received.headers.get("authorization") != f"Bearer {self.upstream.api_key}":
            return UNAUTHORIZED
        return refusal_of(self.received.body)

    def generation(self, picture: bytes | None = None) -> list[bytes]:
        """Return the usual answer's body in parts, the large ones prebuilt.

        For a request that ought to be refused, it is the answer to an empty one.
        """
        body = {} if refusal_of(self.received.body) else self.received.body
        return generation_parts(body, picture or self.upstream.picture)

    def send(
        self,
        *parts: bytes,
        status: int = 200,
        content_type: str = JSON,
        headers: Mapping[str, object] | None = None,
    ) -> None:
        """Send a whole answer whose body is `parts`."""
        size = sum(map(len, parts))
        self.send_head(size, status=status, content_type=content_type, headers=headers or {})
        self.write(*parts)

    def send_head(
        self,
        size: int | None,
        *,
        status: int = 200,
        content_type: str = JSON,
        headers: Mapping[str, object] | None = None,
    ) -> None:
        """Send status and headers, promising `size` bytes, or chunks where `None`."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("x-request-id", f"req_{time.monotonic_ns():x}")
        if size is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(size))
        for name, value in (headers or {}).items():
            self.send_header(name, str(value))
        self.end_headers()

    def write(self, *parts: bytes) -> None:
        """Send bytes of the body."""
        for part in parts:
            self.wfile.write(part)

    def hang_up(self) -> None:
        """Close the connection without another byte."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def pause(self, seconds: float) -> None:
        """Wait, but never longer than the server lives."""
        if self.upstream.closing.wait(seconds):
            raise _ClosingError

    def wait_for_release(self) -> None:
        """Wait for the `release` that follows this request."""
        self._release.wait()
        if self.upstream.closing.is_set():
            raise _ClosingError

    def log_message(self, *_: object) -> None:
        """Stay silent; the recorded requests are the log."""


class _ClosingError(ConnectionError):
    """The server closes; whoever waits for an answer gets none."""


def _object_of(raw: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(raw)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
