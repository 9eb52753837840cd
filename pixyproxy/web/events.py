"""Server-sent events (WHATWG HTML, "Server-sent events"), written as they are sent."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from pixyproxy.web.base64_body import base64_pieces

HEARTBEAT = b": heartbeat\n\n"
"""A comment, which clients ignore and proxies take for life."""


def event_stream(events: AsyncGenerator[bytes, None]) -> StreamingResponse:
    """An answer of events; proxies are told not to hold them back."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    # What a client did not stay for would be left to the garbage collector, an open file with it.
    closing = BackgroundTask(events.aclose)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers, background=closing)


def event(name: str, data: Any, *, event_id: int | None = None) -> bytes:  # noqa: ANN401  (any JSON)
    """One event with JSON for its data."""
    return _head(name, event_id) + json.dumps(data).encode("ascii") + b"\n\n"


async def event_with_picture(
    name: str, data: dict[str, Any], picture: Path, *, event_id: int | None = None
) -> AsyncGenerator[bytes, None]:
    """One event whose data has the picture of a file as ``b64_json``, piece by piece."""
    rest = json.dumps(data).encode("ascii").removeprefix(b"{")
    yield _head(name, event_id) + b'{"b64_json": "'
    async for piece in base64_pieces(picture):
        yield piece
    yield b'"' + (b"}" if rest == b"}" else b", " + rest) + b"\n\n"


def _head(name: str, event_id: int | None) -> bytes:
    identified = "" if event_id is None else f"id: {event_id}\n"
    return f"{identified}event: {name}\ndata: ".encode("ascii")
