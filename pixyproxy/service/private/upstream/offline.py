"""The offline generator: sketches drawn here, for trying and testing PixyProxy without any key."""

from dataclasses import dataclass
from functools import partial

from anyio import CapacityLimiter, to_thread

from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.service.private.upstream.picture import PictureLimits, UpstreamPicture, inspect_picture
from pixyproxy.service.private.upstream.sketch.drawing import draw_sketch

OFFLINE_MODEL = "offline-sketch"
DEFAULT_EDGE = 1024
DEFAULT_COMPRESSION = 90


@dataclass(frozen=True)
class OfflineUpstream:
    """Draws a sketch that is the same for the same prompt, and says in the image's model what it is.

    It draws whatever size is asked for up to 2,048 pixels an edge; a larger one comes scaled down.
    """

    limits: PictureLimits
    threads: CapacityLimiter

    @property
    def name(self) -> str:
        """Says plainly that no image model is behind it."""
        return "offline sketches (no OPENAI_API_KEY is set)"

    def model_for(self, _prompt: ImagePrompt) -> str:
        """Never the model that was asked for."""
        return OFFLINE_MODEL

    async def draw(self, prompt: ImagePrompt) -> UpstreamPicture:
        """A sketch; nothing is bought."""
        width, height = _edges(prompt.size)
        drawing = partial(
            draw_sketch,
            prompt.prompt,
            width=width,
            height=height,
            picture_format=prompt.output_format or "png",
            quality=DEFAULT_COMPRESSION if prompt.output_compression is None else prompt.output_compression,
        )
        content = await to_thread.run_sync(drawing, limiter=self.threads)
        return inspect_picture(content, limits=self.limits)

    async def check(self) -> None:
        """It can always be used."""

    async def close(self) -> None:
        """It has no connections."""


def _edges(size: str | None) -> tuple[int, int]:
    if size is None or size == "auto":
        return DEFAULT_EDGE, DEFAULT_EDGE
    width, height = size.split("x")
    return int(width), int(height)
