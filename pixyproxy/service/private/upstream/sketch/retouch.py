"""What the offline generator makes of a picture that is there already: an edit of it, or a preview of a sketch."""

from pathlib import Path

from PIL import GifImagePlugin, Image, ImageChops, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from pixyproxy.service.private.upstream.sketch.palette import Palette

MOST_PIXELS = 40_000_000
"""Of a picture that is opened to be edited: 160 MB, decoded with an alpha channel."""

FORMATS = [plugin.format for plugin in (PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile)]
FORMATS += [WebPImagePlugin.WebPImageFile.format, GifImagePlugin.GifImageFile.format]

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)
"""What Pillow raises for a file that is no picture, or a broken one; the warning only where warnings are errors."""


def open_picture(path: Path) -> Image.Image | None:
    """The first frame of a picture, as RGBA and upright; None if it cannot be decoded, or only with much memory."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return None
            return ImageOps.exif_transpose(picture).convert("RGBA")
    except _UNREADABLE:
        return None


def retouch(source: Image.Image, scene: Image.Image, palette: Palette, *, mask: Image.Image | None) -> Image.Image:
    """Return ``source`` in the colours of ``palette`` under the light of ``scene``, which gives the size.

    With a ``mask``, only where that is transparent, as the Images API has it; there the scene itself is seen.
    """
    paper = Image.new("RGBA", source.size, palette.paper)
    picture = ImageOps.fit(Image.alpha_composite(paper, source).convert("RGB"), scene.size)
    if mask is not None:
        kept = ImageOps.fit(mask.getchannel("A"), scene.size)
        return Image.composite(picture, scene, kept)
    toned = ImageOps.colorize(picture.convert("L"), black=palette.ink, mid=palette.accents[0], white=palette.paper)
    return Image.blend(picture, ImageChops.soft_light(toned, scene), 0.6)


def draft_of(sketch: Image.Image, *, step: int, steps: int) -> Image.Image:
    """Return how ``sketch`` might have looked at a step (0 to ``steps`` - 1) on the way to it, ever less blurred."""
    factor = 8 * 2 ** (steps - step)
    small = sketch.resize((max(1, sketch.width // factor), max(1, sketch.height // factor)), Image.Resampling.BOX)
    return small.resize(sketch.size, Image.Resampling.BICUBIC)
