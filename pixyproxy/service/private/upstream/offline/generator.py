"""An upstream that draws sketches with Pillow, for trying and testing PixyProxy without an API key."""

import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from PIL import Image, ImageOps, PngImagePlugin
from pydantic import BaseModel, Field, ValidationError

from pixyproxy.core.exceptions import PromptRefusedException
from pixyproxy.core.models.image import PictureFormat
from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.upstream.offline.sketch import MAX_EDGE, Sketch
from pixyproxy.service.private.upstream.upstream import OFFLINE_MODEL, PictureSink, PictureWriter

DEFAULT_SIZE = (1024, 1024)
DEFAULT_FORMAT: PictureFormat = "png"
DEFAULT_COMPRESSION = 90
SIZE = r"^(auto|[1-9][0-9]{0,3}x[1-9][0-9]{0,3})$"
SOFTWARE = "PixyProxy offline-sketch"
"""The `Software` metadata of every sketch: Exif 2.32, section 4.6.4, has it as tag 0x0131."""
MAX_INPUT_PIXELS = 40_000_000
"""The largest picture that can be edited; decoded, it takes 160 MB until it is scaled down."""

_decoding = threading.Lock()
"""Held while a picture is decoded, so that only one large picture is in memory."""


@dataclass(frozen=True)
class OfflineUpstream:
    """Draw sketches: the same order gives the same pictures. Sizes above ``MAX_EDGE`` are scaled down."""

    @property
    def name(self) -> str:
        """Return a name that says that no image model is used."""
        return "offline sketches (no OPENAI_API_KEY is set)"

    async def draw(self, order: PictureOrder, *, inputs: Sequence[Path], sink: PictureSink) -> UpstreamAnswer:
        """Draw the pictures of an order into ``sink``, with previews of the first one.

        Raise ``PromptRefusedException`` for invalid options, and what the sink raises.
        """
        options = _read_options(order)
        size = DEFAULT_SIZE
        for number in range(order.count):
            sketch = await run_in_thread(_draw, order, options, inputs, number)
            size = sketch.size
            for step in range(order.previews if number == 0 else 0):
                await run_in_thread(_deliver_draft, sketch, step, order.previews, options, sink.begin_preview(step))
            await run_in_thread(_deliver, sketch, options, sink.begin_picture())
        return UpstreamAnswer(facts=_facts(options, size), revised_prompts=(None,) * order.count)

    async def list_models(self) -> list[str]:
        """Return the only model."""
        return [OFFLINE_MODEL]

    async def close(self) -> None:
        """Do nothing: there are no connections."""


class _Options(BaseModel, hide_input_in_errors=True):
    """The options of an order that change a sketch or its facts; numbers from forms are text."""

    size: Annotated[str, Field(pattern=SIZE)] | None = None
    output_format: PictureFormat | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    quality: str | None = None

    @property
    def edges(self) -> tuple[int, int] | None:
        """Return width and height in pixels, or None for an automatic size."""
        if self.size in (None, "auto"):
            return None
        width, height = self.size.split("x")
        return int(width), int(height)


def _read_options(order: PictureOrder) -> _Options:
    try:
        return _Options.model_validate(order.options)
    except ValidationError as error:
        parameter = str(error.errors()[0]["loc"][0])
        context = {"upstream_code": "invalid_value", "upstream_param": parameter}
        raise PromptRefusedException(context=context) from error


def _draw(order: PictureOrder, options: _Options, inputs: Sequence[Path], number: int) -> Image.Image:
    """Return the picture of this number; the same order with the same inputs gives the same picture."""
    given = {picture.field: path for picture, path in reversed(list(zip(order.inputs, inputs, strict=True)))}
    source = open_picture(given["image"]) if "image" in given else None
    size = fit(options.edges or (source.size if source else DEFAULT_SIZE))
    variant = ",".join(picture.sha256 for picture in order.inputs) + (f"#{number}" if number else "")
    sketch = Sketch(order.prompt, size, variant=variant)
    if source:
        sketch.retouch(source, open_picture(given["mask"]) if "mask" in given else None)
    sketch.label()
    return sketch.image


def _deliver_draft(picture: Image.Image, step: int, steps: int, options: _Options, writer: PictureWriter) -> None:
    """Write how the picture might have looked at a step (0 to ``steps`` - 1): less blurred at every step."""
    factor = 8 * 2 ** (steps - step)
    small = picture.resize((max(1, picture.width // factor), max(1, picture.height // factor)), Image.Resampling.BOX)
    _deliver(small.resize(picture.size, Image.Resampling.BICUBIC), options, writer)


def _deliver(picture: Image.Image, options: _Options, writer: PictureWriter) -> None:
    compression = options.output_compression
    quality = DEFAULT_COMPRESSION if compression is None else compression
    writer.write(encode(picture, options.output_format or DEFAULT_FORMAT, quality))
    writer.finish()


def encode(picture: Image.Image, picture_format: PictureFormat, quality: int) -> bytes:
    """Return the file of a picture, with ``SOFTWARE`` in its metadata; ``quality`` (0-100) is for jpeg and webp."""
    file = io.BytesIO()
    text, exif = PngImagePlugin.PngInfo(), Image.Exif()
    text.add_text("Software", SOFTWARE)
    exif[0x0131] = SOFTWARE
    if picture_format == "png":
        picture.save(file, "PNG", compress_level=3, pnginfo=text)
    elif picture_format == "gif":
        picture.quantize(256).save(file, "GIF", comment=SOFTWARE.encode())
    else:
        # Pillow takes a JPEG quality of 0 as missing. WebP's method 2 takes half the time of the default 4.
        picture.save(file, picture_format.upper(), quality=max(1, quality), exif=exif, method=2)
    return file.getvalue()


def fit(size: tuple[int, int], max_edge: int = MAX_EDGE) -> tuple[int, int]:
    """Return the size in the same ratio whose longer edge is at most ``max_edge``."""
    scale = min(1.0, max_edge / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def open_picture(path: Path) -> Image.Image | None:
    """Return a picture as RGBA, upright and no larger than a sketch; None if it is too large or cannot be decoded."""
    try:
        with _decoding:
            sample = _decode(path)
            small = sample.convert("RGBA").resize(fit(sample.size), Image.Resampling.BOX)
            return ImageOps.exif_transpose(small)
    # What Pillow raises for broken files and other files; the warning only where warnings are errors.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def _decode(path: Path) -> Image.Image:
    """Return the first frame of a picture, with edges of at most twice ``MAX_EDGE``.

    A larger picture is sampled: to average its pixels Pillow would copy them all, in as much memory again.
    """
    with Image.open(path, formats=["PNG", "JPEG", "WEBP", "GIF"]) as picture:
        if picture.width * picture.height > MAX_INPUT_PIXELS:
            raise Image.DecompressionBombError
        # A large JPEG is decoded at a fraction of its size.
        picture.draft("RGB", fit(picture.size))
        return picture.resize(fit(picture.size, 2 * MAX_EDGE), Image.Resampling.NEAREST)


def _facts(options: _Options, size: tuple[int, int]) -> dict[str, Any]:
    facts = {
        "created": int(time.time()),
        "background": "opaque",
        "output_format": options.output_format or DEFAULT_FORMAT,
        "size": f"{size[0]}x{size[1]}",
    }
    return facts if options.quality is None else {**facts, "quality": options.quality}
