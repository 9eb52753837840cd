"""The OpenAI adapter under test, with a fake upstream or a test's own server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from pixyproxy.core.models.upstream import UpstreamSettings
from pixyproxy.service.private.guarded_http import open_guarded_http_client
from pixyproxy.service.private.upstream.openai.images import OpenAIUpstream, open_openai_upstream

SHORT = 0.3
"""Seconds for a server that never responds; everything else responds long before ``LONG`` is over."""
MIDDLING = 2.0
"""Seconds for a stream that never ends but sends something before they are over."""
LONG = 20.0

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def open_adapter(
    base_url: str,
    *,
    timeout_seconds: float = LONG,
    connect_seconds: float = LONG,
    allowed_hosts: Sequence[str] = (),
    **more: Any,  # noqa: ANN401  (any setting of an upstream)
) -> OpenAIUpstream:
    """Return an adapter, which the caller closes; ``more`` are further upstream settings."""
    return open_openai_upstream(
        UpstreamSettings.model_validate({"name": "fake", "base_url": base_url, "api_key": "sk-x", **more}),
        timeout_seconds=timeout_seconds,
        connect_seconds=connect_seconds,
        targets=open_guarded_http_client(allowed_hosts),
        link_pauses=(0.0, 0.0),
    )


@asynccontextmanager
async def adapter_of(answer: Conversation, *, timeout_seconds: float = LONG) -> AsyncIterator[OpenAIUpstream]:
    """Open an adapter whose upstream responds with these bytes after the request's head."""
    async with serving(answer) as base_url:
        adapter = open_adapter(base_url, timeout_seconds=timeout_seconds)
        try:
            yield adapter
        finally:
            await adapter.close()


@asynccontextmanager
async def serving(answer: Conversation) -> AsyncIterator[str]:
    """Serve this conversation; yield the base URL."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"


def saying(answer: bytes) -> Conversation:
    """Return a conversation that ends after these bytes."""

    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return say


def whole(body: bytes, *, content_type: str, status: str = "200 OK", headers: str = "") -> bytes:
    """Return an HTTP response with a correct Content-Length."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body
