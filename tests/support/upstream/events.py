"""The events of a streamed response, as the Images API writes them."""

import json
import time
from dataclasses import dataclass
from typing import Any

from tests.support.upstream.answers import Order, drawn, encoded, usages_of_events

EVENT_STREAM = "text/event-stream; charset=utf-8"


@dataclass(frozen=True)
class Event:
    """One event, whose parts end with its empty line. The picture in it is never copied."""

    name: str
    parts: tuple[bytes, ...]

    @property
    def completes(self) -> bool:
        """Whether the event contains a finished picture."""
        return self.name.endswith(".completed")


def events_of(order: Order, picture: bytes | None, *, line_end: bytes = b"\n") -> list[Event]:
    """Return the partial pictures of `order`, then one completed event for each picture.

    Every completed event contains `picture`, or a drawn one. Partial pictures are drawn; each is smaller than the
    finished one and differs from all others.
    """
    family = "image_edit" if order.edits else "image_generation"
    facts = {"created_at": int(time.time()), **order.facts()}
    events = [
        _event(f"{family}.partial_image", _partial(order, index), {**facts, "partial_image_index": index}, line_end)
        for index in range(order.partial_images)
    ]
    finished = picture or drawn(order.output_format, order.width, order.height)
    completed = f"{family}.completed"
    events += [_event(completed, finished, {**facts, "usage": usage}, line_end) for usage in usages_of_events(order)]
    return events


def error_event(message: str, *, kind: str, code: str) -> Event:
    """Return the event with which the API ends a failed stream."""
    error = {"type": kind, "code": code, "message": message, "param": None}
    data = json.dumps({"type": "error", "error": error}).encode()
    return Event("error", (b"event: error\ndata: %b\n\n" % data,))


def _event(name: str, picture: bytes, facts: dict[str, Any], line_end: bytes) -> Event:
    head = b'event: %b%bdata: {"type":"%b","b64_json":"' % (name.encode(), line_end, name.encode())
    tail = b'",' + json.dumps(facts).encode().removeprefix(b"{") + line_end * 2
    return Event(name, (head, encoded(picture), tail))


def _partial(order: Order, index: int) -> bytes:
    shrink = 8 >> index
    return drawn(order.output_format, order.width // shrink, order.height // shrink, seed=index + 1)
