"""Memory of an order that waits for its response: a thousand may do so at once."""

import asyncio
import gc
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from pixyproxy.core.exceptions import UpstreamSilentException
from pixyproxy.core.models.order import PictureOrder
from pixyproxy.service.private.upstream.openai.images import OpenAIUpstream
from tests.service.private.upstream.openai.adapters import open_adapter
from tests.service.private.upstream.openai.sinks import DiscardingSink

pytestmark = pytest.mark.anyio
ORDERS = 100
MOST_BYTES = 60_000
FOX = PictureOrder(prompt="a red fox", model="gpt-image-2.5-flare", previews=2)


async def test_waiting_order_takes_little_memory() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=ORDERS) as server:
        server.setblocking(False)  # noqa: FBT003  (the standard library's)
        adapter = open_adapter(f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        # Exclude what is loaded or built only once.
        async with waiting_orders(adapter, server, count=2):
            tracemalloc.start()
        before = traced_bytes()
        async with waiting_orders(adapter, server, count=ORDERS):
            after = traced_bytes()
        tracemalloc.stop()
        await adapter.close()
    assert (after - before) / ORDERS < MOST_BYTES


@asynccontextmanager
async def waiting_orders(adapter: OpenAIUpstream, server: socket.socket, *, count: int) -> AsyncIterator[None]:
    """Open orders that have been sent; close their connections at the end."""
    orders = [asyncio.create_task(adapter.draw(FOX, inputs=(), sink=DiscardingSink())) for _ in range(count)]
    loop = asyncio.get_running_loop()
    with ExitStack() as connections:
        for _ in orders:
            connection, _ = await loop.sock_accept(server)
            connections.enter_context(connection)
            await loop.sock_recv(connection, 65_536)
        yield
    outcomes = await asyncio.gather(*orders, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {UpstreamSilentException}


def traced_bytes() -> int:
    """Return the bytes of Python's own memory in use."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
