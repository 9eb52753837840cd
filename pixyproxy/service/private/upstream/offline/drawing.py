"""Draw a picture from a prompt without an image model.

Used when no OPENAI_API_KEY is set, so that PixyProxy can be tried. Each picture is marked as a sketch: in a line at its
bottom, and in its `Software` metadata.
"""

import hashlib
import io
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw, ImageFilter, ImageFont, PngImagePlugin

from pixyproxy.core.models.image import PictureFormat
from pixyproxy.service.private.upstream.offline.abstracts import draw_discs, draw_orbits, draw_silk, draw_tiles
from pixyproxy.service.private.upstream.offline.canvas import Canvas
from pixyproxy.service.private.upstream.offline.landscapes import (
    draw_dunes,
    draw_forest,
    draw_hills,
    draw_peaks,
    draw_sea,
)
from pixyproxy.service.private.upstream.offline.palette import Palette, SceneName, choose_palette, read_mood

MAX_EDGE = 2048
"""The longest edge, in pixels."""

SOFTWARE = "PixyProxy offline-sketch"
"""The `Software` metadata of every sketch."""


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_SCENES: dict[SceneName, Callable[[Canvas, Palette, Random], None]] = {
    "hills": draw_hills,
    "peaks": draw_peaks,
    "dunes": draw_dunes,
    "forest": draw_forest,
    "sea": draw_sea,
    "silk": draw_silk,
    "discs": draw_discs,
    "tiles": draw_tiles,
    "orbits": draw_orbits,
}

_LABELS = ("offline sketch · no image model was used", "offline sketch", "sketch")
"""The visible label, and shorter ones for pictures where it does not fit."""

_SMALLEST_LETTERS = 8
"""In pixels; Pillow's bundled font is not legible below this."""

_EXIF_SOFTWARE = 0x0131
"""The tag `Software` (Exif 2.32, section 4.6.4)."""


def draw_scene(prompt: str, *, width: int, height: int, variant: str = "") -> tuple[Image.Image, Palette]:
    """Draw a picture for `prompt`, without the label, and return it with its colours.

    The result is deterministic for one version of Pillow; another `variant` gives another picture of the same subject.
    `width` and `height` are at least 1. If one of them exceeds `MAX_EDGE`, the picture is scaled down to it, keeping
    the ratio.
    """
    # A str may hold lone surrogates, which strict UTF-8 rejects.
    seed = hashlib.sha256((prompt + variant).encode(errors="surrogatepass")).digest()
    rng = Random(int.from_bytes(seed))
    mood = read_mood(prompt)
    palette = choose_palette(rng, mood=mood)
    free_scene = rng.choice(list(_SCENES))
    width, height = fit(width, height)
    canvas = Canvas(width=width, height=height)
    _SCENES[mood.scene or free_scene](canvas, palette, rng)
    return canvas.image, palette


def fit(width: int, height: int) -> tuple[int, int]:
    """Return the size with the same ratio whose longer edge is at most `MAX_EDGE`."""
    scale = min(1.0, MAX_EDGE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def label_sketch(image: Image.Image, palette: Palette) -> None:
    """Write the label at the bottom on a plate of frosted glass, if there is space for it."""
    fitting = _fit_label(*image.size)
    if fitting is None:
        return
    text, font, size = fitting
    plate_width, plate_height = round(font.getlength(text) + 1.5 * size), round(1.9 * size)
    # Centre it, so that a square crop of a wide picture, as in the gallery, keeps it.
    left, top = (image.width - plate_width) // 2, image.height - plate_height - min(size, plate_height // 2)
    box = left, top, left + plate_width, top + plate_height
    glass = image.crop(box).filter(ImageFilter.GaussianBlur(size / 2))
    glass = Image.blend(glass, Image.new("RGB", glass.size, palette.ink), 0.62)
    pen = ImageDraw.Draw(glass)
    pen.text((plate_width / 2, plate_height / 2), text, fill=palette.paper, font=font, anchor="mm")
    image.paste(glass, box, _rounded_mask(glass.size))


def _fit_label(width: int, height: int) -> tuple[str, _Font, int] | None:
    """Return the longest legible label for a picture of this size, its font and the font's size, or None."""
    wanted = max(_SMALLEST_LETTERS + 3, round((width * height) ** 0.5 / 64))
    for text in _LABELS:
        for size in range(wanted, _SMALLEST_LETTERS - 1, -1):
            font = ImageFont.load_default(size)
            if font.getlength(text) + 1.5 * size <= width and 1.9 * size <= height / 2:
                return text, font, size
    return None


def _rounded_mask(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius=mask.height / 2, fill=255)
    return mask.reduce(4)


def encode_sketch(image: Image.Image, *, picture_format: PictureFormat, quality: int) -> bytes:
    """Return the picture's file with `Software` metadata. `quality` (0-100) applies to jpeg and webp."""
    file = io.BytesIO()
    # Pillow treats a JPEG quality of 0 as "not given".
    quality = max(1, quality)
    if picture_format == "png":
        text = PngImagePlugin.PngInfo()
        text.add_text("Software", SOFTWARE)
        image.save(file, "PNG", compress_level=3, pnginfo=text)
    elif picture_format == "gif":
        image.quantize(256).save(file, "GIF", comment=SOFTWARE.encode())
    else:
        exif = Image.Exif()
        exif[_EXIF_SOFTWARE] = SOFTWARE
        # Method 2 of WebP's 0-6 takes half the time of the default 4; files are a few per cent larger.
        image.save(file, picture_format.upper(), quality=quality, exif=exif, method=2)
    return file.getvalue()
