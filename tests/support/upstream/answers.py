"""The parameters of an order, its cost, and the body of its response, whose large parts are built once."""

import base64
import functools
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support import pictures
from tests.support.upstream.tokens import QUALITIES, output_tokens
from tests.support.upstream.validation import parsed_size

INPUT_PICTURE_TOKENS = 323
"""Image tokens of every input picture of an edit: the cost of a 512x512 one in 2025, used here for any size."""

PARTIAL_PICTURE_TOKENS = 100
"""Output tokens that every partial picture adds, according to OpenAI's guide."""

_DEFAULT_EDGE = 1024


@dataclass(frozen=True, kw_only=True)
class Order:
    """A valid request, with the API's defaults filled in."""

    model: object
    """`None` if no model is named."""
    width: int
    height: int
    output_format: str
    quality: str
    background: str
    count: int
    partial_images: int
    """0 if no stream is requested."""
    text_tokens: int
    input_pictures: int
    streams: bool
    edits: bool

    def facts(self) -> dict[str, object]:
        """Return the parameters that every response and event repeats."""
        return {
            "background": self.background,
            "output_format": self.output_format,
            "quality": self.quality,
            "size": f"{self.width}x{self.height}",
        }


def order_of(body: Mapping[str, Any], *, input_pictures: int = 0, edits: bool = False) -> Order:
    """Return the order in `body`, which must be valid or empty."""
    width, height = parsed_size(body.get("size")) or (_DEFAULT_EDGE, _DEFAULT_EDGE)
    quality = body.get("quality")
    streams = body.get("stream") is True
    return Order(
        model=body.get("model"),
        width=width,
        height=height,
        output_format=body.get("output_format") or "png",
        quality=quality if quality in QUALITIES else "medium",
        background="transparent" if body.get("background") == "transparent" else "opaque",
        count=body.get("n") or 1,
        partial_images=(body.get("partial_images") or 0) if streams else 0,
        text_tokens=math.ceil(len(str(body.get("prompt", ""))) / 4),
        input_pictures=input_pictures,
        streams=streams,
        edits=edits,
    )


def usage_of(order: Order) -> dict[str, Any]:
    """Return plausible token counts: about four letters per token, output as published for the model."""
    output = order.count * _output_tokens(order) + order.partial_images * PARTIAL_PICTURE_TOKENS
    usage = usage_with(order.text_tokens, order.input_pictures * INPUT_PICTURE_TOKENS, output)
    return {**usage, "output_tokens_details": {"text_tokens": 0, "image_tokens": output}}


def usages_of_events(order: Order) -> list[dict[str, Any]]:
    """Return the usage of every completed picture of a stream; their sum is `usage_of`.

    The first one includes the input and the partial pictures, which are bought once.
    """
    each = _output_tokens(order)
    first = each + order.partial_images * PARTIAL_PICTURE_TOKENS
    head = usage_with(order.text_tokens, order.input_pictures * INPUT_PICTURE_TOKENS, first)
    return [head, *[usage_with(0, 0, each)] * (order.count - 1)]


def usage_with(text: int, image: int, output: int) -> dict[str, Any]:
    """Return OpenAI's usage object for these token counts."""
    return {
        "input_tokens": text + image,
        "input_tokens_details": {"text_tokens": text, "image_tokens": image},
        "output_tokens": output,
        "total_tokens": text + image + output,
    }


def whole_answer(order: Order, picture: bytes | None) -> list[bytes]:
    """Return the parts of the JSON response to `order`, with `picture` n times, or a drawn one."""
    item = _item(picture or drawn(order.output_format, order.width, order.height))
    facts = {"created": int(time.time()), **order.facts(), "usage": usage_of(order)}
    head = json.dumps(facts).encode().removesuffix(b"}") + b',"data":['
    return [head, item, *[b",", item] * (order.count - 1), b"]}"]


@functools.lru_cache(maxsize=32)
def encoded(picture: bytes) -> bytes:
    """Return `picture` in base64; a bytes object is only hashed once."""
    return base64.b64encode(picture)


@functools.lru_cache(maxsize=64)
def drawn(output_format: str, width: int, height: int, *, seed: int = 0) -> bytes:
    """Return a picture in one of the API's formats; another `seed` gives another picture."""
    if output_format == "svg":
        return pictures.svg()
    draw = {"jpeg": pictures.jpeg, "webp": pictures.webp, "gif": pictures.gif}
    return draw.get(output_format, pictures.png)(width, height, seed=seed)


def _output_tokens(order: Order) -> int:
    return output_tokens(order.model, quality=order.quality, width=order.width, height=order.height)


@functools.lru_cache(maxsize=32)
def _item(picture: bytes) -> bytes:
    """Return a picture's member of `data`."""
    return b'{"b64_json":"%b"}' % encoded(picture)
