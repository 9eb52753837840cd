"""The path of ``PUBLIC_URL``: the prefix of all URLs if a reverse proxy serves PixyProxy under a path."""

from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

WELL_KNOWN = "/.well-known/"


def route_path(scope: Scope) -> str:
    """Return the path without the prefix, as routes declare it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


@dataclass(frozen=True)
class UrlPrefixMiddleware:
    """Set ``prefix`` as the ``root_path`` of every request, whether or not the proxy has removed it from the path.

    ``prefix`` starts with a slash and does not end with one. It is added to paths that do not start with it, as ASGI
    requires. For an issuer with a path, clients request ``/.well-known/…/prefix`` (RFC 8414 §3.1), which is served as
    the document under the prefix. ``Location`` headers get the prefix.
    """

    app: ASGIApp
    prefix: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the prefix."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if path == self.prefix:
            # The page's links are relative to the folder.
            query = scope["query_string"].decode("latin-1")
            await RedirectResponse(f"{path}/?{query}" if query else f"{path}/")(scope, receive, send)
            return
        if path.startswith(WELL_KNOWN):
            path = path.removesuffix(self.prefix)
        if not path.startswith(f"{self.prefix}/"):
            path = self.prefix + path

        async def send_below(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("location", "").startswith("/"):
                    headers["location"] = self.prefix + headers["location"]
            await send(message)

        # In place, so that the outer request log sees the endpoint.
        scope.update(path=path, root_path=self.prefix)
        await self.app(scope, receive, send_below)
