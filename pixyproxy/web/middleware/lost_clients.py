"""Clients that are gone before they have their answer: whoever follows an order for them is told."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SCOPE_KEY = "pixyproxy.client"


@dataclass
class Client:
    """The client of a request. ``lost`` is awaited, once, if it is gone before all of the answer was taken."""

    receive: Receive
    lost: Callable[[], Awaitable[object]]
    gone: bool = False
    told: bool = False
    watch: "asyncio.Task[None] | None" = field(default=None, repr=False)

    def begin(self) -> None:
        """Watch the connection; the body has been read."""
        self.watch = asyncio.create_task(self._wait())

    async def stop(self) -> None:
        """Stop watching; what is being written down of a loss is finished first."""
        if self.watch is not None:
            if not self.gone:
                self.watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.watch

    async def end(self, *, delivered: bool) -> None:
        """Stop watching, and note the loss unless all of the answer was taken."""
        await self.stop()
        if not delivered:
            await self._tell()

    async def _wait(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        await self._tell()

    async def _tell(self) -> None:
        if not self.told:
            self.told = True
            await self.lost()


class LostClients:
    """Looks, at the end of an answer, whether its client is still there."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        delivered = False

        async def send_and_look(message: Message) -> None:
            nonlocal delivered
            client: Client | None = scope.get(SCOPE_KEY)
            if client is None or message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            # After the last message the server reports every client as gone (uvicorn 0.54), so the watch ends before
            # that. Two turns of the event loop: one that is gone by now is noticed by the watch.
            await send({**message, "more_body": True})
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await client.stop()
            delivered = not client.gone
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await self.app(scope, receive, send_and_look)
        finally:
            client = scope.get(SCOPE_KEY)
            if client is not None:
                await asyncio.shield(client.end(delivered=delivered))


def note_when_lost(request: Request, lost: Callable[[], Awaitable[object]]) -> None:
    """Have ``lost`` awaited if the client is gone before it has its answer."""
    client = request.scope[SCOPE_KEY] = Client(request.receive, lost)
    client.begin()
