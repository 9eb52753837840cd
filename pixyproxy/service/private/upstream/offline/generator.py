"""The offline generator: sketches to try and test PixyProxy without a key."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from pixyproxy.core.exceptions import PromptRefusedException
from pixyproxy.core.models.image import PictureFormat
from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.upstream.offline.drawing import draw_scene, encode_sketch, label_sketch
from pixyproxy.service.private.upstream.offline.retouch import draft_of, open_picture, retouch
from pixyproxy.service.private.upstream.upstream import OFFLINE_MODEL, PictureSink, PictureWriter

DEFAULT_SIZE = (1024, 1024)
DEFAULT_FORMAT: PictureFormat = "png"
DEFAULT_COMPRESSION = 90
SIZE = r"^(auto|[1-9][0-9]{0,3}x[1-9][0-9]{0,3})$"


@dataclass(frozen=True)
class OfflineUpstream:
    """Draws deterministic sketches and reports `offline-sketch` as their model.

    Draws any size up to 2,048 pixels an edge; larger sizes are scaled down.
    """

    @property
    def name(self) -> str:
        """A name that states that no image model is used."""
        return "offline sketches (no OPENAI_API_KEY is set)"

    async def draw(self, order: PictureOrder, *, inputs: Sequence[Path], sink: PictureSink) -> UpstreamAnswer:
        """Draw the sketches, with the first one's ordered previews; nothing is bought.

        Raise ``PromptRefusedException`` for options with unknown values, and the exceptions of the sink.
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
        """Return the name of the offline model."""
        return [OFFLINE_MODEL]

    async def close(self) -> None:
        """Do nothing: there are no connections."""


class _Options(BaseModel, hide_input_in_errors=True):
    """The options of an order that apply here; in a form, numbers are text."""

    size: Annotated[str, Field(pattern=SIZE)] | None = None
    output_format: PictureFormat | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    quality: str | None = None

    @property
    def edges(self) -> tuple[int, int] | None:
        """Width and height in pixels, if requested."""
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
    """Return the sketch with this number; deterministic for the same order and inputs."""
    given = {picture.field: path for picture, path in reversed(list(zip(order.inputs, inputs, strict=True)))}
    source = open_picture(given["image"]) if "image" in given else None
    width, height = options.edges or (source.size if source else DEFAULT_SIZE)
    variant = ",".join(picture.sha256 for picture in order.inputs) + (f"#{number}" if number else "")
    scene, palette = draw_scene(order.prompt, width=width, height=height, variant=variant)
    if source is not None:
        mask = open_picture(given["mask"]) if "mask" in given else None
        scene = retouch(source, scene, palette, mask=mask)
    label_sketch(scene, palette)
    return scene


def _deliver_draft(sketch: Image.Image, step: int, steps: int, options: _Options, writer: PictureWriter) -> None:
    _deliver(draft_of(sketch, step=step, steps=steps), options, writer)


def _deliver(picture: Image.Image, options: _Options, writer: PictureWriter) -> None:
    compression = options.output_compression
    content = encode_sketch(
        picture,
        picture_format=options.output_format or DEFAULT_FORMAT,
        quality=DEFAULT_COMPRESSION if compression is None else compression,
    )
    writer.write(content)
    writer.finish()


def _facts(options: _Options, size: tuple[int, int]) -> dict[str, Any]:
    facts = {
        "created": int(time.time()),
        "background": "opaque",
        "output_format": options.output_format or DEFAULT_FORMAT,
        "size": f"{size[0]}x{size[1]}",
    }
    return facts if options.quality is None else {**facts, "quality": options.quality}
