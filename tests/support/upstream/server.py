"""The fake upstream itself: its port, its threads, and what a test may tell it."""

import contextlib
import socket
import socketserver
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from tests.support.upstream.behaviours import NORMAL, Behaviour, Refusal
from tests.support.upstream.exchange import Exchange, UpstreamRequest

API_KEY = "sk-fake-upstream-key"
"""The key that a `FakeUpstream` accepts unless it is given another."""

GENERATIONS_PATH = "/v1/images/generations"


class FakeUpstream:
    """The Images API on a free port of 127.0.0.1, in a thread of its own.

    `picture`, `delay` (seconds before any answer) and `api_key` may be changed while
    it serves; every method may be called from any thread.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        api_key: str = API_KEY,
        picture: bytes | None = None,
        delay: float = 0.0,
    ) -> None:
        """Bind the port at once; serve from `start` or `with` on."""
        self.api_key = api_key
        self.picture = picture
        self.delay = delay
        self.closing = threading.Event()
        self._state = _State()
        self._server = Server(("127.0.0.1", port), upstream=self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        """Start serving."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @property
    def base_url(self) -> str:
        """The URL to give to the SDK: it ends in /v1."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def requests(self) -> list[UpstreamRequest]:
        """Every request so far, in order of arrival, also those never answered."""
        with self._state.changed:
            return list(self._state.requests)

    def start(self) -> None:
        """Serve until `close`."""
        self._thread.start()

    def close(self) -> None:
        """Stop at once: hung requests and idle connections are cut, none waited for."""
        self.closing.set()
        self.release()
        self._server.shutdown()
        self._cut_connections()
        self._server.server_close()
        self._thread.join()

    def behave(self, behaviour: Behaviour) -> None:
        """Give every later request `behaviour`, until told otherwise."""
        with self._state.changed:
            self._state.lasting = behaviour

    def behave_once(self, behaviour: Behaviour) -> None:
        """Queue `behaviour` for one request, ahead of the lasting one."""
        with self._state.changed:
            self._state.queued.append(behaviour)

    def release(self) -> None:
        """Let every request that hangs now get its usual answer."""
        with self._state.changed:
            self._state.release.set()
            self._state.release = threading.Event()

    def reset(self) -> None:
        """Behave normally, release what hangs, forget all requests and settings."""
        self.release()
        self.picture, self.delay = None, 0.0
        with self._state.changed:
            self._state.lasting = NORMAL
            self._state.queued.clear()
            self._state.requests.clear()

    def wait_for_requests(self, count: int, *, seconds: float = 5.0) -> None:
        """Return once `count` requests have arrived, or raise `TimeoutError`."""
        state = self._state
        with state.changed:
            if not state.changed.wait_for(lambda: len(state.requests) >= count, seconds):
                message = f"{len(state.requests)} of {count} requests in {seconds} s"
                raise TimeoutError(message)

    @contextlib.contextmanager
    def keeping(self, connection: socket.socket) -> Iterator[None]:
        """Know an open connection while the block lasts, so that `close` can cut it."""
        with self._state.changed:
            self._state.connections.add(connection)
        try:
            yield
        finally:
            with self._state.changed:
                self._state.connections.discard(connection)

    def _cut_connections(self) -> None:
        """End the threads that wait for a next request or write to a slow client."""
        with self._state.changed:
            for connection in self._state.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def record(self, request: UpstreamRequest) -> tuple[Behaviour, threading.Event]:
        """Record a request; return what it gets, and the event that releases it."""
        with self._state.changed:
            self._state.requests.append(request)
            self._state.changed.notify_all()
            if request.path != GENERATIONS_PATH or request.method != "POST":
                return _unknown_url(request), self._state.release
            queued = self._state.queued
            behaviour = queued.popleft() if queued else self._state.lasting
            return behaviour, self._state.release


@dataclass(kw_only=True)
class _State:
    """What requests and the test share, guarded by `changed`."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    requests: list[UpstreamRequest] = field(default_factory=list)
    lasting: Behaviour = NORMAL
    queued: deque[Behaviour] = field(default_factory=deque)
    release: threading.Event = field(default_factory=threading.Event)
    connections: set[socket.socket] = field(default_factory=set)


class Server(socketserver.ThreadingTCPServer):
    """Gives every connection a thread of its own."""

    allow_reuse_address = True
    daemon_threads = True
    # A burst of clients must find the server slow, not refusing.
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], *, upstream: FakeUpstream) -> None:
        """Bind the address for `upstream`."""
        self.upstream = upstream
        super().__init__(address, Exchange)


@contextlib.contextmanager
def refusing_base_url() -> Iterator[str]:
    """Yield a base URL whose port refuses every connection while the block lasts.

    The port is bound but never listens, so that nothing else can come to listen there.
    """
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


def _unknown_url(request: UpstreamRequest) -> Refusal:
    message = f"Invalid URL ({request.method} {request.path})"
    return Refusal(status=404, message=message, code="unknown_url")
