"""HEAD for every GET route."""

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class HeadMiddleware:
    """Respond to HEAD as to GET, without the content (RFC 9110 §9.3.2).

    The response ends with its headers. The server then reports the client as disconnected, which also stops the source
    of the content, such as an event stream or a file.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with HEAD as GET."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})

        # In place, so that the outer request log sees the endpoint.
        scope["method"] = "GET"
        try:
            await self.app(scope, receive, send_headers)
        finally:
            scope["method"] = "HEAD"
