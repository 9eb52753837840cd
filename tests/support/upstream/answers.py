"""The body of a successful answer, its large parts built once."""

import base64
import functools
import json
import math
import time
from typing import Any

from tests.support import pictures
from tests.support.upstream.validation import OUTPUT_TOKENS, parsed_size

_DEFAULT_EDGE = 1024


def generation_parts(body: dict[str, Any], picture: bytes | None) -> list[bytes]:
    """Return the parts of a successful answer to `body`, which must be valid."""
    width, height = parsed_size(body.get("size")) or (_DEFAULT_EDGE, _DEFAULT_EDGE)
    wanted = body.get("output_format") or "png"
    quality = body.get("quality")
    if quality not in OUTPUT_TOKENS:
        quality = "medium"
    count = body.get("n") or 1
    item = _item(picture or _default_picture(wanted, width=width, height=height))
    facts = {
        "created": int(time.time()),
        "background": _effective_background(body),
        "output_format": wanted,
        "quality": quality,
        "size": f"{width}x{height}",
        "usage": _usage(body, count=count, quality=quality, pixels=width * height),
    }
    head = json.dumps(facts).encode().removesuffix(b"}") + b',"data":['
    return [head, item, *[b"," + item] * (count - 1), b"]}"]


def _effective_background(body: dict[str, Any]) -> str:
    return "transparent" if body.get("background") == "transparent" else "opaque"


def _usage(body: dict[str, Any], *, count: int, quality: str, pixels: int) -> dict[str, object]:
    """Return plausible token counts: about four letters a token, output by area."""
    text = math.ceil(len(str(body.get("prompt", ""))) / 4)
    output = count * round(OUTPUT_TOKENS[quality] * pixels / _DEFAULT_EDGE**2)
    return {
        "input_tokens": text,
        "input_tokens_details": {"text_tokens": text, "image_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": output},
        "total_tokens": text + output,
    }


@functools.lru_cache(maxsize=32)
def _item(picture: bytes) -> bytes:
    """Return a picture's member of `data`; a bytes object is only hashed once."""
    return b'{"b64_json":"%b"}' % base64.b64encode(picture)


@functools.lru_cache(maxsize=32)
def _default_picture(wanted: str, *, width: int, height: int) -> bytes:
    if wanted == "svg":
        return pictures.svg()
    draw = {"jpeg": pictures.jpeg, "webp": pictures.webp, "gif": pictures.gif}
    return draw.get(wanted, pictures.png)(width, height)
