"""Draw a sketch for a prompt with Pillow, without any image model."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, product
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

from pixyproxy.service.private.upstream.offline.theme import Color, SceneName, Theme, mix

MAX_EDGE = 2048
"""The longest edge of a sketch in pixels."""
Outline = list[tuple[float, float]]
"""A polygon. Coordinates are in short edges of the picture, y downwards: a circle is a circle in every size."""

_LABELS = "offline sketch · no image model was used", "offline sketch", "sketch"
_BOTTOM: Outline = [(MAX_EDGE, MAX_EDGE), (0, MAX_EDGE)]
"""Completes a line from edge to edge to the outline of all that is below it."""
_EVERYWHERE: Outline = [(0, 0), (MAX_EDGE, 0), *_BOTTOM]


class Sketch:
    """A picture of a prompt; each `variant` differs. The same arguments and Pillow give the same picture."""

    def __init__(self, prompt: str, size: tuple[int, int], *, variant: str = "") -> None:
        # A str may contain lone surrogates, which strict UTF-8 rejects.
        self.rng = Random((prompt + variant).encode(errors="surrogatepass"))
        self.theme = Theme(prompt, self.rng)
        self.image = Image.new("RGB", size)
        self.unit = min(self.image.size)
        self.width, self.height = (edge / self.unit for edge in self.image.size)
        _SCENES[self.theme.scene](self)

    def fill(self, outlines: Sequence[Outline], *colors: Color, opacity: float = 1.0) -> None:
        """Fill the union of `outlines` with a gradient of `colors` from its top to its bottom.

        Pillow draws hard edges: the outlines are drawn into an enlarged mask of their bounding box, then scaled down.
        """
        xs, ys = ([value * self.unit for value in axis] for axis in zip(*chain(*outlines), strict=True))
        left, top = max(0, int(min(xs))), max(0, int(min(ys)))
        width = max(1, min(self.image.width, int(max(xs)) + 1) - left)
        height = max(1, min(self.image.height, int(max(ys)) + 1) - top)
        mask = Image.new("L", (width * 3, height * 3))
        pen = ImageDraw.Draw(mask)
        for outline in outlines:
            points = [((x * self.unit - left) * 3, (y * self.unit - top) * 3) for x, y in outline]
            pen.polygon(points, fill=round(255 * opacity))
        stops = colors * 2 if len(colors) == 1 else colors
        column = Image.frombytes("RGB", (1, len(stops)), bytes(chain(*stops)))
        column = column.resize((1, height), Image.Resampling.BILINEAR, box=(0, 0.5, 1, len(stops) - 0.5))
        # Widening by copying takes a tenth of the time of scaling both edges.
        self.image.paste(column.resize((width, height), Image.Resampling.NEAREST), (left, top), mask.reduce(3))

    def glow(self, center: tuple[float, float], radius: float, color: Color, strength: float) -> None:
        """Add light that fades with the distance from `center`."""
        r = max(1, round(radius * self.unit))
        # Pillow's radial gradient is 180 in the middle of its edges, where the light ends, and 255 in its corners.
        fade = [round(255 * strength * max(0.0, 1 - distance / 180) ** 2) for distance in range(256)]
        mask = Image.radial_gradient("L").point(fade).resize((2 * r, 2 * r), Image.Resampling.BILINEAR)
        left, top = (round(value * self.unit) - r for value in center)
        self.image.paste(color, (left, top, left + 2 * r, top + 2 * r), mask)

    def retouch(self, source: Image.Image, mask: Image.Image | None) -> None:
        """Become an edit of `source` (RGBA): recoloured, or where `mask` is opaque, unchanged."""
        paper = Image.new("RGBA", source.size, self.theme.paper)
        picture = ImageOps.fit(Image.alpha_composite(paper, source).convert("RGB"), self.image.size)
        if mask:
            self.image.paste(picture, mask=ImageOps.fit(mask.getchannel("A"), self.image.size))
        else:
            toned = ImageOps.colorize(picture.convert("L"), self.theme.ink, self.theme.paper, self.theme.accents[0])
            self.image = Image.blend(picture, ImageChops.soft_light(toned, self.image), 0.6)

    def label(self) -> None:
        """Write that it is a sketch: in the longest words that fit, centred, so that a square crop keeps them."""
        largest = max(11, round((self.image.width * self.image.height) ** 0.5 / 64))
        for text, size in product(_LABELS, (largest, 8)):
            font, em = ImageFont.load_default(size), size / self.unit
            length = font.getlength(text) / self.unit
            if length + 1.5 * em <= self.width and 1.9 * em <= self.height / 2:
                x, y = self.width / 2, self.height - 1.95 * em
                self.fill([_pill(x, y, 0.95 * em, length)], self.theme.ink, opacity=0.66)
                pen = ImageDraw.Draw(self.image)
                pen.text((x * self.unit, y * self.unit), text, fill=self.theme.paper, font=font, anchor="mm")
                return


def _pill(x: float, y: float, radius: float, length: float = 0.0) -> Outline:
    """Return the outline of a disc, or with a `length` of a horizontal stroke with round ends."""
    steps = 120 if radius > 0.01 else 16
    circle = [(math.cos(math.tau * step / steps), math.sin(math.tau * step / steps)) for step in range(steps + 1)]
    return [(x + radius * dx + math.copysign(length / 2, dx), y + radius * dy) for dx, dy in circle]


def _ridge(sketch: Sketch, base: float, height: float, octaves: int, *, crested: bool = False) -> Outline:
    """Return a line from edge to edge about `base`: a sum of sines, each faster and lower, or of sharp crests."""
    line = [(sketch.width * step / 200, base) for step in range(201)]
    for octave in range(octaves):
        speed, phase = 1.9**octave * sketch.rng.uniform(4, 8), sketch.rng.uniform(0, math.tau)
        waves = ((x, y, math.sin(speed * x + phase)) for x, y in line)
        line = [(x, y - height * 0.5**octave * (1 - 2 * abs(wave) if crested else wave)) for x, y, wave in waves]
    return line


def _stars(sketch: Sketch) -> list[Outline]:
    rng = sketch.rng
    places = [(rng.random() * sketch.width, rng.random() * sketch.height) for _ in range(200)]
    return [_pill(x, y, rng.choice((0.0006, 0.001, 0.0018))) for x, y in places]


def _draw_sky(sketch: Sketch, lamp: tuple[float, float]) -> None:
    theme, rng, radius = sketch.theme, sketch.rng, sketch.rng.uniform(0.06, 0.13)
    sketch.fill([_EVERYWHERE], *theme.sky, theme.sky[-1])
    if theme.light == "night":
        sketch.fill(_stars(sketch), theme.paper, opacity=0.85)
    sketch.glow(lamp, radius * 6, theme.lamp, 0.42)
    sketch.glow(lamp, radius * 2.4, theme.lamp, 0.5)
    sketch.fill([_pill(*lamp, radius)], theme.lamp, mix(theme.lamp, theme.sky[-1], 0.25))
    for _ in range(0 if theme.light == "night" else rng.randint(2, 4)):
        x, y = rng.uniform(0, 0.9) * sketch.width, rng.uniform(0.08, 0.36) * sketch.height
        rows = [_pill(x + rng.uniform(0, 0.12), y + 0.018 * row, 0.01, rng.uniform(0.06, 0.2)) for row in range(3)]
        sketch.fill(rows, theme.paper, opacity=0.36)


def _draw_land(sketch: Sketch, height: float, octaves: int, *, crested: bool = False, firs: int = 0) -> None:
    """Draw ridges that darken and grow towards the viewer."""
    theme, rng = sketch.theme, sketch.rng
    horizon = rng.uniform(0.44, 0.56) * sketch.height
    _draw_sky(sketch, (rng.uniform(0.2, 0.8) * sketch.width, horizon * rng.uniform(0.35, 0.85)))
    for layer, shade in enumerate(theme.ground):
        near = layer / len(theme.ground)
        base = horizon + (sketch.height - horizon) * near**1.1
        line = _ridge(sketch, base, height * (1 + near), octaves, crested=crested)
        outlines = [line + _BOTTOM]
        for x, foot in rng.choices(line, k=firs if layer else 0):
            size = rng.uniform(0.3, 1) * (0.03 + 0.1 * near)
            tiers = ((foot - tip * size, half * size) for tip, half in ((1, 0.11), (0.73, 0.165), (0.46, 0.22)))
            outlines += [[(x, y), (x + half, y + size / 2), (x - half, y + size / 2)] for y, half in tiers]
        haze = mix(shade, theme.sky[-1], 0.5 * (1 - near))
        sketch.fill(outlines, shade, haze, haze)


def _draw_sea(sketch: Sketch) -> None:
    """Draw a low sun over the sea, its glitter on the water, waves and a sail."""
    theme, ground, rng = sketch.theme, sketch.theme.ground, sketch.rng
    horizon, x = rng.uniform(0.5, 0.6) * sketch.height, rng.uniform(0.3, 0.7) * sketch.width
    _draw_sky(sketch, (x, horizon - rng.uniform(0.02, 0.2)))
    shore: Outline = [(0, horizon), (MAX_EDGE, horizon)]
    sketch.fill([shore + _BOTTOM], mix(ground[1], theme.sky[-1], 0.45), ground[2], ground[4])
    glitter = []
    for depth in (row / 26 for row in range(26)):
        center, length = x + rng.uniform(-0.1, 0.1) * (0.2 + depth), (0.03 + 0.13 * depth) * rng.uniform(0.5, 1.6)
        glitter.append(_pill(center, horizon + 0.012 + 0.3 * depth**1.4, 0.002 + 0.003 * depth, length))
    sketch.fill(glitter, theme.lamp, opacity=0.6)
    for layer, shade in enumerate(ground[3:]):
        line = _ridge(sketch, horizon + (sketch.height - horizon) * (0.5 + 0.15 * layer), 0.008 + 0.004 * layer, 2)
        sketch.fill([line + _BOTTOM], mix(shade, theme.sky[-1], 0.25 - 0.06 * layer), shade, opacity=0.82)
    x, y, size = x + rng.choice((-0.2, 0.2)), horizon + 0.035, rng.uniform(0.04, 0.06)
    boat = ((0, -1.5), (0, -0.1), (0.7, -0.1)), ((-0.6, 0), (0.8, 0), (0, 0.3))
    sketch.fill([[(x + dx * size, y + dy * size) for dx, dy in part] for part in boat], theme.paper)


def _draw_orbits(sketch: Sketch) -> None:
    """Draw a sun with rings about it and planets on them, in the dark or on paper."""
    theme, rng, night = sketch.theme, sketch.rng, sketch.theme.light == "night"
    ground, ink = (theme.ink, theme.paper) if night else (theme.paper, theme.ink)
    sketch.fill([_EVERYWHERE], *(mix(ground, color, 0.2) for color in rng.sample(theme.accents, 3)))
    sketch.fill(_stars(sketch), ink, opacity=0.7)
    x, y = rng.uniform(0.3, 0.7) * sketch.width, rng.uniform(0.35, 0.65) * sketch.height
    sketch.glow((x, y), 0.8, theme.accents[0], 0.5)
    sketch.fill([_pill(x, y, 0.085)], theme.lamp, mix(theme.lamp, theme.accents[0], 0.35))
    orbits = [0.2 + 0.11 * step + rng.uniform(-0.02, 0.02) for step in range(5)]
    sketch.fill([_pill(x, y, r) + _pill(x, y, r - 0.0026)[::-1] for r in orbits], ink, opacity=0.4)
    for orbit, color in zip(orbits, theme.accents, strict=True):
        angle, radius = rng.uniform(0, math.tau), rng.uniform(0.022, 0.05) * (1 if night else 2)
        planet = x + orbit * math.cos(angle), y + orbit * math.sin(angle)
        sketch.glow(planet, radius * 2.4, color, 0.4)
        sketch.fill([_pill(*planet, radius)], mix(color, theme.paper, 0.35), mix(color, theme.ink, 0.35))


def _draw_tiles(sketch: Sketch) -> None:
    """Draw tiles with discs about their corners, edges and middles, cut off at the tile."""
    rng, inks = sketch.rng, (*sketch.theme.accents, sketch.theme.ink, sketch.theme.paper)
    # Whole pixels, or the background would show between the tiles.
    edge = math.ceil(max(sketch.unit / rng.randint(5, 7), max(sketch.image.size) / 20)) / sketch.unit
    for column, row in product(range(math.ceil(sketch.width / edge)), range(math.ceil(sketch.height / edge))):
        x, y = rng.choice(((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0), (0.5, 1), (0.5, 0.5)))
        reach = 0.4 if x == y == 0.5 else 0.5 if x == 0.5 else 1
        for radius, color in zip((2, reach, reach * rng.choice((0, 0.4, 0.65))), rng.sample(inks, 3), strict=True):
            disc = [(min(max(px, 0), 1), min(max(py, 0), 1)) for px, py in _pill(x, y, radius)]
            sketch.fill([[((column + px) * edge, (row + py) * edge) for px, py in disc]], color)


_SCENES: dict[SceneName, Callable[[Sketch], None]] = {
    "hills": partial(_draw_land, height=0.035, octaves=3),
    "peaks": partial(_draw_land, height=0.08, octaves=7, crested=True),
    "dunes": partial(_draw_land, height=0.03, octaves=1, crested=True),
    "forest": partial(_draw_land, height=0.035, octaves=3, firs=60),
    "sea": _draw_sea,
    "orbits": _draw_orbits,
    "tiles": _draw_tiles,
}
