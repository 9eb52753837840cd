"""Bounds on what a request may bring besides its body, checked before anything is parsed."""

from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixyproxy.core.exceptions import ServerBusyException
from pixyproxy.web.errors.handler import answer_exception
from pixyproxy.web.middleware.url_prefix import route_path
from pixyproxy.web.server.connections import SPARE_CONNECTION

HEALTH_PATH = "/healthz"
MOST_QUERY_BYTES = 8 * 1024
MOST_PARAMETERS = 100
MOST_HEADERS = 100
MOST_HEADER_BYTES = 10_000
"""Of one field: the longest credential is a token of 8 KB."""
TOO_BUSY = "The server has as many connections as it can hold, or this address has. Try again shortly."


@dataclass
class RequestBounds:
    """Answers a request that is too large, ambiguous, or one too many, before it costs more than its answer.

    ``most_requests`` are handled at one time. Neither they nor the limits of connections keep ``/healthz`` from
    answering. A spare connection is closed after its answer.
    """

    app: ASGIApp
    most_requests: int
    active: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_spare = SPARE_CONNECTION in scope.get("state", {})
        refusal = _refusal(scope)
        if route_path(scope) != HEALTH_PATH and (is_spare or self.active >= self.most_requests):
            refusal = ServerBusyException(TOO_BUSY)

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        answer = send_last if is_spare else send
        if refusal is not None:
            response = await answer_exception(Request(scope), refusal)
            await response(scope, receive, answer)
            return
        self.active += 1
        try:
            await self.app(scope, receive, answer)
        finally:
            self.active -= 1


def _refusal(scope: Scope) -> Exception | None:
    """Return why a request is refused whatever it asks for."""
    query: bytes = scope["query_string"]
    if len(query) > MOST_QUERY_BYTES or query.count(b"&") >= MOST_PARAMETERS:
        return HTTPException(HTTPStatus.REQUEST_URI_TOO_LONG)
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > MOST_HEADERS or any(len(value) > MOST_HEADER_BYTES for _, value in headers):
        return HTTPException(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
        # Which of them gives the body's length? A proxy may have believed the other (RFC 9112 §6.1).
        return HTTPException(HTTPStatus.BAD_REQUEST, headers={"Connection": "close"})
    return None
