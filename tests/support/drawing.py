"""An in-process upstream with visible state, for tests that the fake HTTP server cannot serve."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread

from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.service.private.generation.received import PictureLimits
from pixyproxy.service.private.upstream.pool import PooledUpstream
from pixyproxy.service.private.upstream.upstream import PictureSink, PictureWriter
from tests.support import pictures

LIMITS = PictureLimits(max_bytes=10_000_000, max_pixels=100_000_000)
ANY_NUMBER = 1000


@dataclass
class FakeDrawer:
    """Draws the previews and pictures of each order, and waits between them while ``gate`` is closed.

    With an ``error`` it returns the first ``given`` pictures and fails. ``content`` is the content of every picture.
    ``unusable`` is a retained answer whose next picture cannot be stored, returned after the order has ``begun``.
    """

    name: str = "a fake"
    error: BaseException | None = None
    given: int = 0
    content: bytes | None = None
    unusable: bytes | None = None
    begun: bytes = b""
    answer: UpstreamAnswer = field(default_factory=UpstreamAnswer)
    gate: asyncio.Event | None = None
    asked: list[PictureOrder] = field(default_factory=list)
    inputs: list[list[bytes]] = field(default_factory=list)
    drawing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def prompts(self) -> list[str]:
        """The prompts of all orders so far."""
        return [order.prompt for order in self.asked]

    def close_gate(self) -> None:
        """Make all orders wait, from the previews on."""
        self.gate = asyncio.Event()

    def open_gate(self) -> None:
        """Let all waiting orders continue."""
        assert self.gate is not None
        self.gate.set()

    async def draw(self, order: PictureOrder, *, inputs: Sequence[Path], sink: PictureSink) -> UpstreamAnswer:
        """Record the order, then draw or fail."""
        self.asked.append(order)
        self.inputs.append([path.read_bytes() for path in inputs])
        for index in range(order.previews):
            await to_thread.run_sync(_put, sink.begin_preview(index), pictures.png(8, 8, seed=index))
        self.drawing.set()
        if self.gate is not None:
            await self.gate.wait()
        for index in range(order.count if self.error is None else self.given):
            content = self.content or pictures.png(32, 16, seed=10 * len(self.asked) + index)
            await to_thread.run_sync(_put, sink.begin_picture(), content)
        if self.begun:
            await to_thread.run_sync(sink.begin_picture().write, self.begun)
        if self.unusable is not None:
            await to_thread.run_sync(sink.keep, self.unusable)
        if self.error is not None:
            raise self.error
        return self.answer

    async def list_models(self) -> list[str]:
        """Return no models."""
        return []

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    def pooled(self, *, concurrency: int = ANY_NUMBER) -> PooledUpstream:
        """Return this drawer as an upstream of a pool."""
        return PooledUpstream(self.name, self, None, 1, concurrency, None)


def _put(writer: PictureWriter, content: bytes) -> None:
    writer.write(content)
    writer.finish()
