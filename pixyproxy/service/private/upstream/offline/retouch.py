"""Edits of a given picture, and previews of a sketch."""

import math
import threading
from pathlib import Path

from PIL import GifImagePlugin, Image, ImageChops, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from pixyproxy.service.private.upstream.offline.drawing import fit
from pixyproxy.service.private.upstream.offline.palette import Palette

MOST_PIXELS = 40_000_000
"""The limit for a picture to edit: 160 MB decoded, until it is scaled down."""
STRIP_ROWS = 32
"""Rows of the smaller picture made at a time: Pillow copies its input, so it never gets a whole large picture."""

FORMATS = [plugin.format for plugin in (PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile)]
FORMATS += [WebPImagePlugin.WebPImageFile.format, GifImagePlugin.GifImageFile.format]

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)
"""Pillow's exceptions for a broken file or one that is not a picture; the warning only if warnings are errors."""


_decoding = threading.Lock()
"""Held while decoding, so that no two large pictures are in memory at once."""


def open_picture(path: Path) -> Image.Image | None:
    """Return the first frame of a picture as RGBA, upright, scaled down to the size it is drawn in.

    Return None if it cannot be decoded, or only with much memory.
    """
    try:
        with _decoding, Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return None
            return ImageOps.exif_transpose(_shrink(picture))
    except _UNREADABLE:
        return None


def _shrink(picture: Image.Image) -> Image.Image:
    """Return an RGBA copy of a picture in the size from ``fit``, with its metadata."""
    width, height = fit(*picture.size)
    # A JPEG is decoded at a fraction of its size.
    picture.draft("RGB", (width, height))
    picture.load()
    small = Image.new("RGBA", (width, height))
    small.info = dict(picture.info)
    scale = picture.height / height
    for top in range(0, height, STRIP_ROWS):
        rows = min(STRIP_ROWS, height - top)
        first, last = math.floor(top * scale), min(math.ceil((top + rows) * scale), picture.height)
        strip = picture.crop((0, first, picture.width, last)).convert("RGBA")
        bounds = (0, top * scale - first, picture.width, min((top + rows) * scale - first, strip.height))
        small.paste(strip.resize((width, rows), Image.Resampling.BOX, box=bounds), (0, top))
    return small


def retouch(source: Image.Image, scene: Image.Image, palette: Palette, *, mask: Image.Image | None) -> Image.Image:
    """Return ``source`` in the colours of ``palette`` under the light of ``scene``, in the size of ``scene``.

    With a ``mask``, change only its transparent area, as in the Images API; the scene is shown there.
    """
    paper = Image.new("RGBA", source.size, palette.paper)
    picture = ImageOps.fit(Image.alpha_composite(paper, source).convert("RGB"), scene.size)
    if mask is not None:
        kept = ImageOps.fit(mask.getchannel("A"), scene.size)
        return Image.composite(picture, scene, kept)
    toned = ImageOps.colorize(picture.convert("L"), black=palette.ink, mid=palette.accents[0], white=palette.paper)
    return Image.blend(picture, ImageChops.soft_light(toned, scene), 0.6)


def draft_of(sketch: Image.Image, *, step: int, steps: int) -> Image.Image:
    """Return a preview of ``sketch``, blurred less with each step (0 to ``steps`` - 1)."""
    factor = 8 * 2 ** (steps - step)
    small = sketch.resize((max(1, sketch.width // factor), max(1, sketch.height // factor)), Image.Resampling.BOX)
    return small.resize(sketch.size, Image.Resampling.BICUBIC)
