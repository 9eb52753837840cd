"""HEAD wherever there is GET."""

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class HeadMiddleware:
    """Answer HEAD as GET would be answered, without the content (RFC 9110 §9.3.2).

    The answer ends with its headers: the server then reports the client as gone, which also ends whatever would have
    produced the content, such as a stream of events or the reading of a file.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, HEAD as GET."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})

        # In place, so that the request log outside learns the endpoint.
        scope["method"] = "GET"
        try:
            await self.app(scope, receive, send_headers)
        finally:
            scope["method"] = "HEAD"
