"""Limits on requests, except on their bodies, checked before anything is parsed."""

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
"""Of one header field: the longest credential is a token of 8 KB."""
TOO_BUSY = "The server, or your address, has too many open connections. Try again shortly."


@dataclass
class RequestBounds:
    """Reject oversized, ambiguous or excess requests before they cost more than their response.

    At most ``most_requests`` are handled concurrently. Neither this limit nor the connection limits apply to
    ``/healthz``. A spare connection is closed after its response.
    """

    app: ASGIApp
    most_requests: int
    active: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or reject it."""
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
    """Return the error that rejects a request on every route, or None."""
    query: bytes = scope["query_string"]
    if len(query) > MOST_QUERY_BYTES or query.count(b"&") >= MOST_PARAMETERS:
        return HTTPException(HTTPStatus.REQUEST_URI_TOO_LONG)
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > MOST_HEADERS or any(len(value) > MOST_HEADER_BYTES for _, value in headers):
        return HTTPException(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
        # The body length is ambiguous: a proxy may have used the other header (RFC 9112 §6.1).
        return HTTPException(HTTPStatus.BAD_REQUEST, headers={"Connection": "close"})
    return None
