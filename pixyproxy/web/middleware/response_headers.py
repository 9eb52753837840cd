"""Headers of every response, including those of error handlers and pages."""

from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CREDENTIAL_HEADERS = "Authorization, X-API-Key"


@dataclass(frozen=True)
class ResponseHeaders:
    """Forbid caching unless a resource allows it, and vary responses by credential.

    Without ``Cache-Control`` a shared cache may store a response (RFC 9111 §4.2.2). Only requests with
    ``Authorization`` are exempt (§3.5), not those with ``X-API-Key``. ``Vary`` protects cacheable resources, and
    caches configured to store responses regardless.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and complete the response headers."""

        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers.add_vary_header(CREDENTIAL_HEADERS)
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self.app(scope, receive, send_completed)
