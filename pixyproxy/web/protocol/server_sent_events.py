"""Server-sent events (WHATWG HTML, "Server-sent events"), formatted while they are sent."""

import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from pixyproxy.core.models.tenant import TenantId
from pixyproxy.web.protocol.base64_body import base64_pieces

HEARTBEAT = b": heartbeat\n\n"
"""A comment: clients ignore it, and proxies keep the connection open."""
RETRY_SECONDS = "5"


@dataclass(frozen=True)
class Followers:
    """Counts the waiting requests of each tenant in one process, ``most`` at a time.

    They cost only a connection, so without this limit one tenant could hold all connections.
    """

    most: int
    counts: Counter[TenantId] = field(default_factory=Counter)

    @contextmanager
    def one_of(self, tenant_id: TenantId) -> Iterator[None]:
        """Count a request inside the block. Raise 429 if the tenant has too many."""
        if self.counts[tenant_id] >= self.most:
            raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": RETRY_SECONDS})
        self.counts[tenant_id] += 1
        try:
            yield
        finally:
            self.counts[tenant_id] -= 1


class EventStream(StreamingResponse):
    """A response of events, sent within ``place``; proxies must not buffer it."""

    def __init__(self, events: AsyncGenerator[bytes, None], place: AbstractContextManager[None]) -> None:
        """Neither send anything nor enter ``place`` before the response is sent."""
        headers = {"X-Accel-Buffering": "no"}
        # If the client disconnects, an unclosed generator would keep its file open until garbage collection.
        closing = BackgroundTask(events.aclose)
        super().__init__(events, media_type="text/event-stream", headers=headers, background=closing)
        self.place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, unless the client disconnects."""
        with self.place:
            await super().__call__(scope, receive, send)


def event_stream(
    events: AsyncGenerator[bytes, None], *, place: AbstractContextManager[None] | None = None
) -> EventStream:
    """Return a response of events, which are sent within ``place``."""
    return EventStream(events, place or nullcontext())


def event(name: str, data: Any, *, event_id: int | None = None) -> bytes:  # noqa: ANN401  (any JSON)
    """Return one event with JSON data."""
    return _head(name, event_id) + json.dumps(data).encode("ascii") + b"\n\n"


async def event_with_picture(
    name: str, data: dict[str, Any], picture: bytes | Path, *, event_id: int | None = None
) -> AsyncGenerator[bytes, None]:
    """Yield one event, piece by piece, with a picture or the content of a file as ``b64_json``.

    Raise ``FileNotFoundError`` before the first piece.
    """
    rest = json.dumps(data).encode("ascii").removeprefix(b"{")
    async with aclosing(base64_pieces(picture)) as pieces:
        yield _head(name, event_id) + b'{"b64_json": "' + await anext(pieces)
        async for piece in pieces:
            yield piece
    yield b'"' + (b"}" if rest == b"}" else b", " + rest) + b"\n\n"


def _head(name: str, event_id: int | None) -> bytes:
    identified = "" if event_id is None else f"id: {event_id}\n"
    return f"{identified}event: {name}\ndata: ".encode("ascii")
