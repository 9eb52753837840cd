"""Pictures as they arrive, and the checks that every one of them has to pass."""

import hashlib
import io
from dataclasses import dataclass
from typing import Protocol

from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from pixyproxy.core.exceptions import PictureUnusableException
from pixyproxy.core.models.image import ImagePrompt, MediaType

MEDIA_TYPES: dict[str, MediaType] = {
    PngImagePlugin.PngImageFile.format: "image/png",
    JpegImagePlugin.JpegImageFile.format: "image/jpeg",
    WebPImagePlugin.WebPImageFile.format: "image/webp",
    GifImagePlugin.GifImageFile.format: "image/gif",
}
"""Pillow's format to media type; importing the plugins registers them, and no others."""

# Pillow's guard warns about large pictures; ``PictureLimits`` refuses them, and nothing is decoded here.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class UpstreamPicture:
    """A picture that passed the checks: its bytes as the upstream made them, and what they turned out to be.

    ``sha256`` is 64 hex digits, sizes are in pixels.
    """

    content: bytes
    media_type: MediaType
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class PictureLimits:
    """What is accepted at the most: the picture's bytes, and its width times its height."""

    max_bytes: int
    max_pixels: int


class Upstream(Protocol):
    """Something that draws a picture for a prompt."""

    @property
    def name(self) -> str:
        """What to call it in the log and to an operator."""

    def model_for(self, prompt: ImagePrompt) -> str:
        """What will draw the picture."""

    async def draw(self, prompt: ImagePrompt) -> UpstreamPicture:
        """One picture, checked. Raises ``ImageGenerationException``; each class says what may have been bought."""

    async def check(self) -> None:
        """Prove without buying anything that it can be used. Raises ``ImageGenerationException``."""

    async def close(self) -> None:
        """Close its connections."""


def inspect_picture(content: bytes, *, limits: PictureLimits) -> UpstreamPicture:
    """The picture in these bytes, told by its magic bytes and header alone, whatever anyone called it.

    Raises ``PictureUnusableException`` for anything but a PNG, JPEG, WebP or GIF within the limits.
    """
    if len(content) > limits.max_bytes:
        raise PictureUnusableException
    try:
        with Image.open(io.BytesIO(content), formats=list(MEDIA_TYPES)) as picture:
            picture_format, (width, height) = picture.format, picture.size
    except (OSError, ValueError, SyntaxError) as error:
        raise PictureUnusableException from error
    if width < 1 or height < 1 or width * height > limits.max_pixels:
        raise PictureUnusableException
    return UpstreamPicture(
        content=content,
        media_type=MEDIA_TYPES[picture_format or ""],
        width=width,
        height=height,
        sha256=hashlib.sha256(content).hexdigest(),
    )
