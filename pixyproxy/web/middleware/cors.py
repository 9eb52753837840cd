"""Cross-origin requests (WHATWG Fetch, "CORS protocol"): which responses scripts of other sites may read."""

import re
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import ALL_METHODS, CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixyproxy.web.middleware.url_prefix import route_path

PUBLIC = re.compile(r"/image(/.*)?|/\.well-known/.*")
"""Paths readable without a credential: pictures, their details and lists, key set and metadata."""
READING = ("GET", "HEAD")
READING_HEADERS = ("Cache-Control", "If-Modified-Since", "If-None-Match", "If-Range", "Pragma", "Range")
EXPOSED_HEADERS = (
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
    "X-Should-Retry",
)
"""Response headers that scripts may read beside those that CORS always allows."""


class _ReadableByAll(CORSMiddleware):
    """CORS for resources that are the same for every origin.

    The header is sent even without an ``Origin`` and does not vary by it, so that a cache can serve a script the
    response it stored for an ``<img>``.
    """

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:  # noqa: ARG002  (overrides)
        """Send a message; add the CORS headers if it starts a response."""
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(self.simple_headers)
        await send(message)


class CorsMiddleware:
    """Allow scripts of every origin to read public resources, and those of ``origins`` to use the whole API.

    Preflight requests are answered here. ``Access-Control-Allow-Credentials`` is never sent: scripts must set
    credential headers themselves, so no site can use credentials that the browser stores for another.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)
        self._public = _ReadableByAll(
            app,
            allow_origins=("*",),
            allow_methods=READING,
            allow_headers=READING_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )
        self._private: ASGIApp = app
        if origins:
            self._private = CORSMiddleware(
                app,
                allow_origins=self._origins,
                allow_methods=ALL_METHODS,
                # SDKs send their own headers (`x-stainless-…`), which change with each release.
                allow_headers=("*",),
                expose_headers=EXPOSED_HEADERS,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer a preflight."""
        is_public = scope["type"] == "http" and self._is_public(scope)
        await (self._public if is_public else self._private)(scope, receive, send)

    def _is_public(self, scope: Scope) -> bool:
        """Return whether the request, or the one a preflight asks about, only needs what every origin may do."""
        if PUBLIC.fullmatch(route_path(scope)) is None:
            return False
        if scope["method"] == "OPTIONS":
            return not {"*", Headers(scope=scope).get("origin")} & self._origins
        return scope["method"] in READING
