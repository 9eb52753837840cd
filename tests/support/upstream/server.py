"""The fake upstream itself: its port, its event loop, and its controls for tests."""

import asyncio
import collections
import concurrent.futures
import contextlib
import functools
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.support.upstream.answers import drawn
from tests.support.upstream.behaviours import NORMAL, PICTURES_PATH, Behaviour, Refusal, Verbatim
from tests.support.upstream.connection import Connection
from tests.support.upstream.exchange import Exchange, Surroundings, UpstreamRequest, request_of
from tests.support.upstream.ledger import Ledger, LedgerLine
from tests.support.upstream.models import MODELS_PATH, models_answer
from tests.support.upstream.posts import Post

API_KEY = "sk-fake-upstream-key"
"""The key that a `FakeUpstream` accepts by default."""

# A burst of clients must find the server slow, but not refusing connections.
_BACKLOG = 4096


class FakeUpstream:
    """The Images API on a free port of 127.0.0.1, in one thread for all connections.

    `picture`, `delay` (seconds before any response) and `api_key` may be changed while it serves; every method may be
    called from any thread. The ledger is also appended to `ledger_file`. An upstream that does not `remember` keeps
    neither requests nor ledger in memory, for long runs.
    """

    def __init__(  # noqa: PLR0913  (all are named, and all are optional)
        self,
        *,
        port: int = 0,
        api_key: str = API_KEY,
        picture: bytes | None = None,
        delay: float = 0.0,
        ledger_file: Path | None = None,
        remember: bool = True,
    ) -> None:
        """Bind the port at once; serve after `start` or `with`."""
        self.api_key = api_key
        self.picture = picture
        self.delay = delay
        self._remember = remember
        self._ledger = Ledger(ledger_file, remember=remember)
        self._state = _State()
        self._socket = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        self._port: int = self._socket.getsockname()[1]
        self._socket.setblocking(False)  # noqa: FBT003  (the standard library's signature)
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Start serving."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @property
    def base_url(self) -> str:
        """The base URL for the SDK: it ends in /v1, and stays valid after `close`."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def requests(self) -> list[UpstreamRequest]:
        """Every request so far, in order of arrival, including those never answered."""
        with self._state.changed:
            return list(self._state.requests)

    @property
    def ledger(self) -> list[LedgerLine]:
        """The line of every POST that requested pictures, from the moment its outcome was decided."""
        return self._ledger.lines

    @property
    def posts(self) -> list[Post]:
        """Return every POST that requested pictures, in order of arrival; `ended` of one in progress is not set."""
        with self._state.changed:
            return list(self._state.posts)

    @property
    def posts_by_prompt(self) -> collections.Counter[str]:
        """The number of POSTs that requested pictures by prompt, including those never answered."""
        with self._state.changed:
            return collections.Counter(self._state.counts)

    def start(self) -> None:
        """Serve until `close`."""
        self._thread.start()

    def close(self) -> None:
        """Stop at once: cut hung requests and idle connections without waiting."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()
        self._loop.close()
        self._socket.close()
        self._ledger.close()

    def behave(self, behaviour: Behaviour) -> None:
        """Use `behaviour` for every later request, until changed."""
        with self._state.changed:
            self._state.lasting = behaviour

    def behave_once(self, behaviour: Behaviour) -> None:
        """Use `behaviour` for one request, before the lasting behaviour."""
        with self._state.changed:
            self._state.queued.append(behaviour)

    def behave_for(self, prompt_part: str, behaviour: Behaviour, *, times: int | None = None) -> None:
        """Use the behaviour for requests whose prompt contains `prompt_part`, before all others.

        If several match, the one set first is used. It is removed after `times` requests.
        """
        with self._state.changed:
            self._state.rules.append(_Rule(prompt_part, behaviour, times))

    def release(self) -> None:
        """Send every hung request its normal response."""
        with self._state.changed:
            released, self._state.released = self._state.released, concurrent.futures.Future()
        released.set_result(None)

    def reset(self) -> None:
        """Behave normally, release hung requests, and clear all requests, the ledger and settings."""
        self.release()
        self.picture, self.delay = None, 0.0
        self._ledger.clear()
        with self._state.changed:
            self._state.lasting = NORMAL
            self._state.queued.clear()
            self._state.rules.clear()
            self._state.requests.clear()
            self._state.counts.clear()
            self._state.posts = []

    def wait_for_requests(self, count: int, *, seconds: float = 30.0) -> None:
        """Return once `count` requests have arrived, or raise `TimeoutError`."""
        state = self._state
        with state.changed:
            if not state.changed.wait_for(lambda: len(state.requests) >= count, seconds):
                message = f"{len(state.requests)} of {count} requests in {seconds} s"
                raise TimeoutError(message)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        """Accept until `close`; then end every connection, whatever it waits for."""
        accepting = asyncio.create_task(self._accept())
        await self._closing.wait()
        outcome = [accepting, *self._state.connections]
        for task in outcome:
            task.cancel()
        await asyncio.gather(*outcome, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            accepted, _ = await self._loop.sock_accept(self._socket)
            connection = Connection(accepted)
            task = asyncio.create_task(self._converse(connection))
            self._state.connections.add(task)
            # Not within the task: one that is cancelled before it starts would leave its socket open.
            task.add_done_callback(functools.partial(self._end, connection))

    def _end(self, connection: Connection, task: asyncio.Task[None]) -> None:
        connection.close()
        self._state.connections.discard(task)

    async def _converse(self, connection: Connection) -> None:
        """Respond to a connection's requests until it ends; half of the faults end it early."""
        with contextlib.suppress(ConnectionError):
            while connection.is_open and (received := await connection.read_request()):
                await self._answer(connection, request_of(received))
                if received.is_last:
                    break

    async def _answer(self, connection: Connection, request: UpstreamRequest) -> None:
        """Record the request before anything else, then respond."""
        behaviour, released, post = self._record(request)
        around = Surroundings(
            api_key=self.api_key, picture=self.picture, released=released, write_line=self._ledger.pen()
        )
        exchange = Exchange(connection, request, around)
        try:
            await asyncio.sleep(self.delay)
            await behaviour.answer(exchange)
            post.delivered = exchange.is_bought and connection.is_open
        finally:
            exchange.settle(bought=False, status=None)
            post.ended = time.monotonic()

    def _record(self, request: UpstreamRequest) -> "tuple[Behaviour, concurrent.futures.Future[None], Post]":
        """Record a request; return its behaviour, its release event, and its post."""
        model = request.body.get("model")
        post = Post(
            prompt=request.prompt or "",
            model=model if isinstance(model, str) else None,
            key=request.headers.get("idempotency-key"),
        )
        state = self._state
        with state.changed:
            if self._remember:
                state.requests.append(request)
            state.changed.notify_all()
            if not request.asks_for_pictures:
                return _beside_pictures(request), state.released, post
            state.counts[post.prompt] += 1
            if self._remember:
                state.posts.append(post)
            return state.next_behaviour(post.prompt), state.released, post


@dataclass
class _Rule:
    """The behaviour for requests whose prompt contains `prompt_part`, and how often it still applies."""

    prompt_part: str
    behaviour: Behaviour
    times: int | None


@dataclass(kw_only=True)
class _State:
    """State shared by requests and the test, guarded by `changed`; only the event loop uses `connections`."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    requests: list[UpstreamRequest] = field(default_factory=list)
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    posts: list[Post] = field(default_factory=list)
    lasting: Behaviour = NORMAL
    queued: collections.deque[Behaviour] = field(default_factory=collections.deque)
    rules: list[_Rule] = field(default_factory=list)
    released: "concurrent.futures.Future[None]" = field(default_factory=concurrent.futures.Future)
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    def next_behaviour(self, prompt: str) -> Behaviour:
        """Return the behaviour for a request with this prompt, and count the use."""
        rule = next((rule for rule in self.rules if rule.prompt_part in prompt), None)
        if rule is None:
            return self.queued.popleft() if self.queued else self.lasting
        if rule.times is not None:
            rule.times -= 1
            if not rule.times:
                self.rules.remove(rule)
        return rule.behaviour


@contextlib.contextmanager
def refusing_base_url() -> Iterator[str]:
    """Yield a base URL whose port refuses every connection while the block lasts.

    The port is bound but never listens, so that nothing else can listen there.
    """
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


@dataclass(frozen=True)
class _ForKeyHolders:
    """A response that requires the right key."""

    behaviour: Behaviour

    async def answer(self, exchange: Exchange) -> None:
        """Send the error or the response."""
        await (exchange.refusal() or self.behaviour).answer(exchange)


def _beside_pictures(request: UpstreamRequest) -> Behaviour:
    """Return the response to a request that is not for pictures."""
    path = request.path.partition("?")[0]
    if request.method == "GET" and (path == MODELS_PATH or path.startswith(f"{MODELS_PATH}/")):
        return _ForKeyHolders(models_answer(path))
    named = re.fullmatch(rf"{PICTURES_PATH}/(\d+)x(\d+)\.(\w+)", path)
    if request.method == "GET" and named:
        picture = drawn(named[3], int(named[1]), int(named[2]))
        return _ForKeyHolders(Verbatim(body=picture, content_type=f"image/{named[3]}"))
    message = f"Invalid URL ({request.method} {request.path})"
    return Refusal(status=404, message=message, code="unknown_url")
