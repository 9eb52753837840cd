"""Read server-sent events one by one, as a client does."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2


@dataclass(frozen=True)
class ReceivedEvent:
    """One event; a comment, such as a heartbeat, has the name ``:`` and its text as data."""

    id: str | None
    name: str
    data: Any


@contextmanager
def following(
    client: httpx2.Client, guid: str, *, last_event_id: str | None = None
) -> Iterator[Iterator[ReceivedEvent]]:
    """Yield the events of a generation inside the block."""
    with _events_of(client, f"/generation/{guid}/events", last_event_id) as events:
        yield events


@contextmanager
def following_all(client: httpx2.Client, *, last_event_id: str | None = None) -> Iterator[Iterator[ReceivedEvent]]:
    """Yield the events of all generations of a tenant inside the block."""
    with _events_of(client, "/generation/events", last_event_id) as events:
        yield events


@contextmanager
def _events_of(client: httpx2.Client, path: str, last_event_id: str | None) -> Iterator[Iterator[ReceivedEvent]]:
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    with client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == httpx2.codes.OK, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield events_in(answer.iter_lines())


def events_in(lines: Iterator[str]) -> Iterator[ReceivedEvent]:
    """Yield the events in the lines of a stream."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            yield ReceivedEvent(None, ":", line[1:].strip())
        elif line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif fields:
            yield ReceivedEvent(fields.get("id"), fields["event"], json.loads(fields["data"]))
            fields = {}


def followed_to_the_end(client: httpx2.Client, guid: str, *, last_event_id: str | None = None) -> list[ReceivedEvent]:
    """Return all events of a generation until the final one."""
    with following(client, guid, last_event_id=last_event_id) as events:
        return list(events)
