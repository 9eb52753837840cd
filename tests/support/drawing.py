"""An upstream inside the process whose state a test sees: for what the fake HTTP server is too far away."""

import asyncio
from dataclasses import dataclass, field

from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.service.private.upstream.picture import PictureLimits, UpstreamPicture, inspect_picture
from tests.support import pictures

LIMITS = PictureLimits(max_bytes=10_000_000, max_pixels=100_000_000)


@dataclass
class FakeDrawer:
    """Draws a picture for each prompt; fails with ``error`` if there is one, and waits while ``gate`` is closed."""

    error: BaseException | None = None
    gate: asyncio.Event | None = None
    asked: list[ImagePrompt] = field(default_factory=list)
    drawing: asyncio.Event = field(default_factory=asyncio.Event)
    name: str = "a fake"

    def model_for(self, prompt: ImagePrompt) -> str:
        """The model that was asked for, or its own."""
        return prompt.model or "fake"

    def open_gate(self) -> None:
        """Let everyone who waits go on."""
        assert self.gate is not None
        self.gate.set()

    async def draw(self, prompt: ImagePrompt) -> UpstreamPicture:
        """Remember the prompt, then draw or fail."""
        self.asked.append(prompt)
        self.drawing.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        content = pictures.png(32, 16, seed=len(self.asked))
        return inspect_picture(content, limits=LIMITS)

    async def check(self) -> None:
        """It can always be used."""

    async def close(self) -> None:
        """It has no connections."""
