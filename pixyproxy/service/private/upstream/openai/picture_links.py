"""Fetch pictures that a response only links to."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import httpx2
from anyio import fail_after

from pixyproxy.core.exceptions import PictureUnusableException, WebhookTargetException
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.guarded_http import GuardedHttpClient
from pixyproxy.service.private.upstream.upstream import PictureWriter

logger = logging.getLogger(__name__)

MOST_REDIRECTS = 3
PIECE_BYTES = 1024 * 1024
PAUSES = (0.5, 2.0, 5.0)
"""Seconds before each further attempt: the picture is paid for, and a storage may have it a moment later."""
PASSING = frozenset({404, 408, 425, 429})
"""Client error statuses that may be temporary."""
PICTURE = "picture"
"""Marks a picture's request, in its extensions; the response is not read into memory."""


class _FailedFetchError(Exception):
    """A failed attempt to fetch a picture; the message is the reason. ``is_final``: a retry would fail too."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


@dataclass(frozen=True)
class PictureLinks:
    """Fetches pictures by URL: from the upstream's own host with its client, from others through ``targets``.

    The own host is the same scheme, name and port. ``headers`` hold its credential and are sent nowhere else.
    """

    upstream: str
    base_url: httpx2.URL
    client: httpx2.AsyncClient
    headers: Mapping[str, str]
    targets: GuardedHttpClient
    timeout_seconds: float
    pauses: tuple[float, ...] = PAUSES

    async def fetch(self, text: str, writer: PictureWriter) -> None:
        """Write the picture at a URL, byte for byte.

        Raise ``PictureUnusableException`` if it cannot be fetched within ``timeout_seconds``, and the writer's
        exceptions.
        """
        try:
            with fail_after(self.timeout_seconds):
                await self._fetch(text, writer)
        except (_FailedFetchError, TimeoutError) as error:
            logger.warning("%s: a picture cannot be fetched: %s", self.upstream, str(error) or "it took too long")
            raise PictureUnusableException from error
        await run_in_thread(writer.finish)

    async def close(self) -> None:
        """Close the connections to other hosts."""
        await self.targets.close()

    async def _fetch(self, text: str, writer: PictureWriter) -> None:
        """Write the picture; after a failed attempt continue where it broke off. Raise ``_FailedFetchError``."""
        received = 0
        for pause in (*self.pauses, None):
            try:
                async with aclosing(self._pieces(text, received)) as pieces:
                    async for piece in pieces:
                        await run_in_thread(writer.write, piece)
                        received += len(piece)
            except _FailedFetchError as error:
                if pause is None or error.is_final:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def _pieces(self, text: str, start: int) -> AsyncGenerator[bytes, None]:
        """Yield the picture from byte ``start`` on. Raise ``_FailedFetchError``."""
        try:
            async with self._open(text, start) as response:
                _require_picture(response, start)
                packed = "content-encoding" in response.headers
                body = response.aiter_bytes(PIECE_BYTES) if packed else response.aiter_raw(PIECE_BYTES)
                async with aclosing(body) as pieces:
                    async for piece in pieces:
                        yield piece
        except httpx2.InvalidURL as error:
            reason = "its URL is malformed"
            raise _FailedFetchError(reason, is_final=True) from error
        except httpx2.HTTPError as error:
            raise _FailedFetchError(type(error).__name__) from error

    @asynccontextmanager
    async def _open(self, text: str, start: int) -> AsyncIterator[httpx2.Response]:
        """Open the response at a URL; follow redirects and check each URL."""
        url = self.base_url.join(text)
        for _ in range(MOST_REDIRECTS):
            response = await self._get(url, start)
            try:
                if not response.has_redirect_location:
                    yield response
                    return
                url = url.join(response.headers["location"])
            finally:
                await response.aclose()
        reason = "too many redirects"
        raise _FailedFetchError(reason, is_final=True)

    async def _get(self, url: httpx2.URL, start: int) -> httpx2.Response:
        headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        if _origin(url) == _origin(self.base_url):
            request = self.client.build_request(
                "GET", url, headers={**self.headers, **headers}, extensions={PICTURE: True}
            )
            return await self.client.send(request, stream=True)
        try:
            target = await self.targets.check(str(url))
        except WebhookTargetException as error:
            reason = f"{url.host!r} is not public and not listed in PIXYPROXY_PICTURE_ALLOWED_HOSTS"
            raise _FailedFetchError(reason, is_final=True) from error
        return await self.targets.get(target, headers=headers)


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _require_picture(response: httpx2.Response, start: int) -> None:
    """Raise ``_FailedFetchError`` unless the response holds the picture from byte ``start`` on."""
    if start:
        begins = response.headers.get("content-range", "").startswith(f"bytes {start}-")
        if response.status_code != httpx2.codes.PARTIAL_CONTENT or not begins:
            reason = "the download broke off and cannot be resumed"
            raise _FailedFetchError(reason, is_final=True)
    elif response.status_code != httpx2.codes.OK:
        reason = f"its host responded with status {response.status_code}"
        raise _FailedFetchError(reason, is_final=response.is_client_error and response.status_code not in PASSING)
