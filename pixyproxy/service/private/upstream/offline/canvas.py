"""A canvas with size-independent coordinates and smooth edges.

Pillow draws hard edges. Each shape is therefore drawn into an enlarged mask that is scaled down; only the shape's
bounding box is enlarged, which saves time and memory.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Literal

from PIL import Image, ImageChops, ImageDraw

from pixyproxy.service.private.upstream.offline.palette import Color, mix

Point = tuple[float, float]
"""x from the left edge (0) to the right (1), y from the top (0) to the bottom (1)."""

Dot = tuple[float, float, float, float]
"""A small disc: x, y, radius in short edges, opacity (0…1)."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, as in Pillow."""

Blend = Literal["normal", "multiply", "screen"]

_GRADIENT_STEPS = 256


class Canvas:
    """An RGB picture of `width` x `height` pixels.

    Positions are `Point`s; radii and other lengths are multiples of the short edge.
    """

    def __init__(self, *, width: int, height: int) -> None:
        """Start with a black picture."""
        self.image = Image.new("RGB", (width, height))
        self.width, self.height = width, height
        self.short = min(width, height)
        self._oversampling = 4 if max(width, height) <= 512 else 3 if max(width, height) <= 1024 else 2

    def fill(self, colors: Sequence[Color]) -> None:
        """Cover the picture with a gradient of `colors` from the top to the bottom."""
        self.image.paste(_vertical_gradient(colors, size=self.image.size))

    def fill_mesh(self, colors: Sequence[Color], *, columns: int) -> None:
        """Cover the picture with soft patches: `colors` row by row, `columns` of them in each row."""
        mesh = Image.new("RGB", (columns, len(colors) // columns))
        mesh.putdata(list(colors))
        self.image.paste(mesh.resize(self.image.size, Image.Resampling.BICUBIC))

    def polygons(self, shapes: Iterable[Sequence[Point]], *, colors: Sequence[Color], opacity: float = 1.0) -> None:
        """Fill the union of `shapes` with a gradient of `colors` over its height."""
        scaled = [[(x * self.width, y * self.height) for x, y in shape] for shape in shapes]
        box = self._clip(_bounds(point for shape in scaled for point in shape))
        if box is None:
            return
        factor = self._oversampling
        mask, pen = self._begin_mask(box)
        for shape in scaled:
            pen.polygon([((x - box[0]) * factor, (y - box[1]) * factor) for x, y in shape], fill=round(255 * opacity))
        size = box[2] - box[0], box[3] - box[1]
        self.image.paste(_vertical_gradient(colors, size=size), box, mask.reduce(factor))

    def disc(
        self, center: Point, *, radius: float, colors: Sequence[Color], blend: Blend = "normal", hole: float = 0.0
    ) -> None:
        """Draw a disc, or with a `hole` (0…1, its share of the radius) a ring."""
        x, y, r = center[0] * self.width, center[1] * self.height, radius * self.short
        box = self._clip((x - r, y - r, x + r, y + r))
        if box is None:
            return
        mask, pen = self._begin_mask(box)
        self._circle(pen, box, circle=(x, y, r), value=255)
        if hole:
            self._circle(pen, box, circle=(x, y, r * hole), value=0)
        paint = _vertical_gradient(colors, size=(box[2] - box[0], box[3] - box[1]))
        if blend != "normal":
            mixed = ImageChops.multiply if blend == "multiply" else ImageChops.screen
            paint = mixed(self.image.crop(box), paint)
        self.image.paste(paint, box, mask.reduce(self._oversampling))

    def dots(self, dots: Sequence[Dot], *, color: Color) -> None:
        """Draw many small discs of one colour; where they overlap, the last one's opacity counts."""
        box = (0, 0, self.width, self.height)
        mask, pen = self._begin_mask(box)
        for x, y, radius, opacity in dots:
            # A dot cannot be smaller than a pixel, so make it fainter instead.
            r = max(0.5, radius * self.short)
            value = round(255 * opacity * min(1.0, radius * self.short / r))
            self._circle(pen, box, circle=(x * self.width, y * self.height, r), value=value)
        self.image.paste(color, box, mask.reduce(self._oversampling))

    def streaks(self, streaks: Iterable[tuple[Point, float, float]], *, color: Color, opacity: float) -> None:
        """Draw horizontal strokes with round ends: (centre, length in widths, thickness in short edges)."""
        factor = self._oversampling
        box = (0, 0, self.width, self.height)
        mask, pen = self._begin_mask(box)
        for (x, y), length, thickness in streaks:
            half = max(0.5, thickness * self.short / 2) * factor
            left, right = ((x + side * length / 2) * self.width * factor for side in (-1, 1))
            middle = y * self.height * factor
            pen.rounded_rectangle(
                (left - half, middle - half, right + half, middle + half), radius=half, fill=round(255 * opacity)
            )
        self.image.paste(color, box, mask.reduce(factor))

    def glow(self, center: Point, *, radius: float, color: Color, strength: float) -> None:
        """Add light that fades with the distance from `center`."""
        r = max(1, round(radius * self.short))
        # Pillow's radial gradient is 255 in its corners and 180 at the middle of its edges, where the light must end.
        fade = [round(255 * strength * max(0.0, 1 - distance / 180) ** 2) for distance in range(256)]
        mask = Image.radial_gradient("L").point(fade).resize((2 * r, 2 * r), Image.Resampling.BILINEAR)
        left, top = round(center[0] * self.width) - r, round(center[1] * self.height) - r
        self.image.paste(color, (left, top, left + 2 * r, top + 2 * r), mask)

    def strips(self, strips: Iterable[tuple[Sequence[Point], Color, float]]) -> None:
        """Lay many translucent polygons (outline, colour, opacity) over each other.

        They share one enlarged copy of the picture, many times faster than one mask each.
        """
        large = self.image.resize((self.width * 2, self.height * 2), Image.Resampling.BILINEAR)
        pen = ImageDraw.Draw(large, "RGBA")
        for outline, color, opacity in strips:
            points = [(x * large.width, y * large.height) for x, y in outline]
            pen.polygon(points, fill=(*color, round(255 * opacity)))
        self.image = large.reduce(2)

    def _begin_mask(self, box: Box) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """Return an empty, enlarged mask for `box` and the pen to draw into it."""
        factor = self._oversampling
        mask = Image.new("L", ((box[2] - box[0]) * factor, (box[3] - box[1]) * factor))
        return mask, ImageDraw.Draw(mask)

    def _circle(self, pen: ImageDraw.ImageDraw, box: Box, *, circle: tuple[float, float, float], value: int) -> None:
        """Draw a circle (x, y, radius in pixels of the picture) into the mask of `box`."""
        factor = self._oversampling
        x, y, r = circle
        left, top = (x - r - box[0]) * factor, (y - r - box[1]) * factor
        pen.ellipse((left, top, left + 2 * r * factor, top + 2 * r * factor), fill=value)

    def _clip(self, bounds: tuple[float, float, float, float]) -> Box | None:
        """Return the whole pixels of the picture that `bounds` touches, or None."""
        left, top = max(0, int(bounds[0])), max(0, int(bounds[1]))
        right, bottom = min(self.width, int(bounds[2]) + 1), min(self.height, int(bounds[3]) + 1)
        return (left, top, right, bottom) if left < right and top < bottom else None


def scatter_stars(rng: Random, *, count: int) -> list[Dot]:
    """Return stars of three sizes all over the picture."""
    return [
        (rng.random(), rng.random(), rng.choice((0.0008, 0.0012, 0.0021)), rng.uniform(0.25, 0.95))
        for _ in range(count)
    ]


def _bounds(points: Iterable[Point]) -> tuple[float, float, float, float]:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _vertical_gradient(colors: Sequence[Color], *, size: tuple[int, int]) -> Image.Image:
    """Return a picture that runs evenly through `colors` from top to bottom."""
    if len(colors) == 1:
        return Image.new("RGB", size, colors[0])
    strip = Image.new("RGB", (1, _GRADIENT_STEPS))
    spans = len(colors) - 1
    shades = []
    for step in range(_GRADIENT_STEPS):
        position = step / (_GRADIENT_STEPS - 1) * spans
        index = min(int(position), spans - 1)
        shades.append(mix(colors[index], colors[index + 1], position - index))
    strip.putdata(shades)
    # Scale smoothly to the height first, one pixel wide, then copy to the width: ten times faster than both at once.
    return strip.resize((1, size[1]), Image.Resampling.BILINEAR).resize(size, Image.Resampling.NEAREST)
