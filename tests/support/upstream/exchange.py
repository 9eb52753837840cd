"""One request to the fake upstream, and the operations with which a behaviour responds."""

import asyncio
import hashlib
import http.client
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.upstream.answers import order_of, usage_of, whole_answer
from tests.support.upstream.behaviours import JSON, UNAUTHORIZED, Refusal
from tests.support.upstream.connection import Connection, HttpRequest
from tests.support.upstream.edits import refusal_of_edit
from tests.support.upstream.events import EVENT_STREAM, Event, events_of
from tests.support.upstream.forms import UploadedFile, form_of
from tests.support.upstream.ledger import LedgerLine
from tests.support.upstream.validation import refusal_of

if TYPE_CHECKING:
    import concurrent.futures

GENERATIONS_PATH = "/v1/images/generations"
EDITS_PATH = "/v1/images/edits"


@dataclass(frozen=True, kw_only=True)
class UpstreamRequest:
    """A request as it arrived; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    """The JSON object or the form's fields; empty if the bytes are neither."""
    raw: bytes
    files: tuple[UploadedFile, ...] = ()
    """Every file of a form, in order."""

    @property
    def prompt(self) -> str | None:
        """The prompt, if there is one."""
        prompt = self.body.get("prompt")
        return prompt if isinstance(prompt, str) else None

    @property
    def asks_for_pictures(self) -> bool:
        """Whether the request is a POST to generations or edits."""
        return self.method == "POST" and self.path.partition("?")[0] in {GENERATIONS_PATH, EDITS_PATH}


def request_of(received: HttpRequest) -> UpstreamRequest:
    """Return the request with its body parsed."""
    form = form_of(received.body, received.headers.get("content-type", ""))
    return UpstreamRequest(
        method=received.method,
        path=received.path,
        headers=received.headers,
        body=form.body if form else _object_of(received.body),
        raw=received.body,
        files=form.files if form else (),
    )


@dataclass(frozen=True)
class Answer:
    """A successful response, not yet sent. Its large parts are shared with other responses."""

    content_type: str
    parts: tuple[bytes, ...]
    size: int | None
    """In bytes; `None` if it is sent in chunks, as streams are."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The parts of the server that an exchange needs."""

    api_key: str
    picture: bytes | None
    released: "concurrent.futures.Future[None]"
    write_line: Callable[[LedgerLine], None]


class Exchange:
    """Responds to one recorded request; a `Behaviour` calls it. Only its first line in the ledger counts."""

    def __init__(self, connection: Connection, request: UpstreamRequest, surroundings: Surroundings) -> None:
        self.received = request
        self.request_id = f"req_{uuid.uuid4().hex}"
        self._connection = connection
        self._around = surroundings
        self._edits = request.path.partition("?")[0] == EDITS_PATH
        self._in_chunks = False
        self._is_settled = not request.asks_for_pictures
        self.is_bought = False
        body = {} if self._bad_parameter() else request.body
        inputs = sum(file.parameter == "image" for file in request.files)
        self.order = order_of(body, input_pictures=inputs, edits=self._edits)

    def refusal(self) -> Refusal | None:
        """Return the error that the real API would give for this request, if any."""
        if self.received.headers.get("authorization") != f"Bearer {self._around.api_key}":
            return UNAUTHORIZED
        return self._bad_parameter() if self.received.asks_for_pictures else None

    def settle(self, *, bought: bool, status: int | None = 200, pictures: int | None = None) -> None:
        """Write the request's line into the ledger, unless it has one; `pictures` defaults to n."""
        if self._is_settled:
            return
        self._is_settled, self.is_bought = True, bought
        made = self.order.count if pictures is None else pictures
        model = self.received.body.get("model")
        line = LedgerLine(
            request_id=self.request_id,
            path=self.received.path,
            sha256=hashlib.sha256(self.received.raw).hexdigest(),
            prompt=self.received.prompt,
            model=model if isinstance(model, str) else None,
            n=self.order.count,
            bought=bought,
            status=status,
            pictures=made if bought else 0,
            usage=usage_of(self.order) if bought else None,
        )
        self._around.write_line(line)

    def buy(self, picture: bytes | None = None) -> Answer:
        """Return the normal response, streamed if requested, and record it as bought.

        For a request that should be rejected, it is the response to an empty one.
        """
        if self.order.streams:
            parts = tuple(part for event in self.buy_events(picture) for part in event.parts)
            return Answer(EVENT_STREAM, parts, None)
        self.settle(bought=True)
        whole = whole_answer(self.order, picture or self._around.picture)
        return Answer(JSON, tuple(whole), sum(map(len, whole)))

    def buy_events(self, picture: bytes | None = None, *, line_end: bytes = b"\n") -> list[Event]:
        """Return the normal events, and record them as bought unless the ledger already has a line."""
        self.settle(bought=True)
        return events_of(self.order, picture or self._around.picture, line_end=line_end)

    async def deliver(self, answer: Answer) -> None:
        """Send a successful response."""
        await self.send_head(answer.size, content_type=answer.content_type)
        await self.write(*answer.parts)
        await self.end()

    async def send(
        self,
        *parts: bytes,
        status: int = 200,
        content_type: str = JSON,
        headers: Mapping[str, object] | None = None,
    ) -> None:
        """Send a whole response whose body is `parts`."""
        await self.send_head(sum(map(len, parts)), status=status, content_type=content_type, headers=headers)
        await self.write(*parts)

    async def send_head(
        self,
        size: int | None,
        *,
        status: int = 200,
        content_type: str = JSON,
        headers: Mapping[str, object] | None = None,
    ) -> None:
        """Send status and headers, announcing `size` bytes, or chunks if `None`.

        A request that is not bought by now never is. The ledger records that before the client can see the response.
        """
        self.settle(bought=False, status=status)
        self._in_chunks = size is None
        length = ("Transfer-Encoding", "chunked") if size is None else ("Content-Length", size)
        fields = [("Content-Type", content_type), ("x-request-id", self.request_id), length, *(headers or {}).items()]
        lines = [
            f"HTTP/1.1 {status} {http.client.responses.get(status, '')}",
            *(f"{name}: {value}" for name, value in fields),
        ]
        await self._connection.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def write(self, *parts: bytes) -> None:
        """Send bytes of the body, as one chunk if the body is chunked."""
        size = sum(map(len, parts))
        if self._in_chunks and size:
            await self._connection.send(b"%x\r\n" % size, *parts, b"\r\n")
        else:
            await self._connection.send(*parts)

    async def end(self) -> None:
        """End a chunked body; any other body needs no end marker."""
        if self._in_chunks:
            await self._connection.send(b"0\r\n\r\n")

    def hang_up(self) -> None:
        """Close the connection without another byte."""
        self._connection.close()

    async def wait_for_release(self) -> None:
        """Wait for the `release` that follows this request."""
        # Shielded: a wait that is cancelled with its connection must not cancel those of others.
        await asyncio.shield(asyncio.wrap_future(self._around.released))

    def _bad_parameter(self) -> Refusal | None:
        if self._edits:
            return refusal_of_edit(self.received.body, self.received.files)
        return refusal_of(self.received.body)


def _object_of(raw: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(raw)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
