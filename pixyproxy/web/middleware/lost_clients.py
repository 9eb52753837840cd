"""Detect clients that disconnect before they receive their response, and notify the order they follow."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SCOPE_KEY = "pixyproxy.client"


@dataclass
class Client:
    """The client of a request. ``lost`` is awaited once if it disconnects before it has received the response."""

    receive: Receive
    lost: Callable[[], Awaitable[object]]
    gone: bool = False
    told: bool = False
    watch: "asyncio.Task[None] | None" = field(default=None, repr=False)

    def begin(self) -> None:
        """Watch the connection; the body must have been read."""
        self.watch = asyncio.create_task(self._wait())

    async def stop(self) -> None:
        """Stop watching; a loss that is being recorded is completed first."""
        if self.watch is not None:
            if not self.gone:
                self.watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.watch

    async def end(self, *, delivered: bool) -> None:
        """Stop watching, and record the loss unless the whole response was delivered."""
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
    """Check at the end of a response whether its client is still connected."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and check its client."""
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
            # After the last message uvicorn (0.54) reports every client as disconnected, so the watch ends before it.
            # Two iterations of the event loop let the watch notice a client that has disconnected by now.
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
    """Await ``lost`` if the client disconnects before it has received its response."""
    client = request.scope[SCOPE_KEY] = Client(request.receive, lost)
    client.begin()
