"""A limit on request bodies whose error uses the application's own format."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixyproxy.web.middleware.url_prefix import route_path


@dataclass(frozen=True)
class BodyLimitMiddleware:
    """Raise 413 when a body is read that exceeds ``max_bytes`` or declares a greater length.

    ``max_bytes_of`` has different limits for some paths.

    Starlette's own limit (1.10) replaces the application's error response with plain text. The exception is raised
    where the body is read, after routing, so the request log knows the endpoint.
    """

    app: ASGIApp
    max_bytes: int
    max_bytes_of: Mapping[str, int]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counted body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        max_bytes = self.max_bytes_of.get(route_path(scope), self.max_bytes)
        claimed = Headers(scope=scope).get("content-length", "")
        received = int(claimed) if claimed.isdecimal() else 0
        counted = 0

        async def receive_limited() -> Message:
            nonlocal counted
            if received > max_bytes:
                raise HTTPException(413)
            message = await receive()
            counted += len(message.get("body", b""))
            if counted > max_bytes:
                raise HTTPException(413)
            return message

        await self.app(scope, receive_limited, send)
