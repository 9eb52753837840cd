"""Behaviours with a duration: a number of seconds, or until a test opens a gate."""

import asyncio
import concurrent.futures
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.upstream.behaviours import NORMAL, Behaviour
from tests.support.upstream.events import EVENT_STREAM

if TYPE_CHECKING:
    from tests.support.upstream.exchange import Exchange


@dataclass(frozen=True, kw_only=True)
class Delayed:
    """Behave as ``then`` after this many seconds."""

    seconds: float
    then: Behaviour = NORMAL

    async def answer(self, exchange: "Exchange") -> None:
        """Wait, then answer."""
        await asyncio.sleep(self.seconds)
        await self.then.answer(exchange)


@dataclass(frozen=True)
class Gate:
    """Hold every request until ``open``, then send the normal response.

    Unlike ``HANG``, a gate holds only its own requests. In a stream, all events but the last are sent before the gate.
    """

    _opened: "concurrent.futures.Future[None]" = field(default_factory=concurrent.futures.Future)

    def open(self) -> None:
        """Let every current and later request pass."""
        if not self._opened.done():
            self._opened.set_result(None)

    @property
    def is_open(self) -> bool:
        """Whether requests pass."""
        return self._opened.done()

    async def answer(self, exchange: "Exchange") -> None:
        """Wait for ``open``; in a stream, send the previews first."""
        if exchange.refusal() or not exchange.order.streams:
            await self._wait()
            await NORMAL.answer(exchange)
            return
        *previews, last = exchange.buy_events()
        await exchange.send_head(None, content_type=EVENT_STREAM)
        for preview in previews:
            await exchange.write(*preview.parts)
        await self._wait()
        await exchange.write(*last.parts)
        await exchange.end()

    async def _wait(self) -> None:
        # Shielded: a wait that is cancelled with its connection must not cancel those of others.
        await asyncio.shield(asyncio.wrap_future(self._opened))
