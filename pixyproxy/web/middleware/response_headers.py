"""Headers that every answer carries, whichever resource, error handler or page made it."""

from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CREDENTIAL_HEADERS = "Authorization, X-API-Key"


@dataclass(frozen=True)
class ResponseHeaders:
    """Keep answers out of caches unless a resource allows it, and apart by credential in any case.

    Without ``Cache-Control`` a shared cache may store an answer (RFC 9111 §4.2.2), and only a request with
    ``Authorization`` is exempt (§3.5), not one with ``X-API-Key``. ``Vary`` protects what a resource declares
    cacheable, and what a cache was configured to store regardless.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and complete the headers of its answer."""

        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers.add_vary_header(CREDENTIAL_HEADERS)
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self.app(scope, receive, send_completed)
