"""Scenes of the offline sketch with a horizon: a sky, a sun or moon, and layers that darken towards the viewer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from pixyproxy.service.private.upstream.offline.canvas import Canvas, Point, scatter_stars
from pixyproxy.service.private.upstream.offline.palette import Palette, mix

Profile = Callable[[float], float]
"""The height of a ridge over its base line, about -1…1, at x = 0…1."""

_SAMPLES = 160


@dataclass(frozen=True, slots=True)
class _Relief:
    """The shape of a scene's ground."""

    profile: Callable[[Random], Profile]
    horizon: float
    height: float
    """The height of the farthest ridge above its base line, in heights of the picture."""
    nearness: float
    """The nearest ridge's height as a multiple of the farthest's."""
    firs: bool = False
    frosted: bool = False


def draw_hills(canvas: Canvas, palette: Palette, rng: Random) -> None:
    """Draw rolling hills."""
    _draw_ground(canvas, palette, rng, _Relief(_rolling, horizon=0.53, height=0.035, nearness=2.2))


def draw_peaks(canvas: Canvas, palette: Palette, rng: Random) -> None:
    """Draw jagged mountains with mist between the ranges."""
    _draw_ground(canvas, palette, rng, _Relief(_jagged, horizon=0.47, height=0.15, nearness=0.55, frosted=True))


def draw_dunes(canvas: Canvas, palette: Palette, rng: Random) -> None:
    """Draw dunes with sharp crests."""
    _draw_ground(canvas, palette, rng, _Relief(_crested, horizon=0.58, height=0.03, nearness=2.0))


def draw_forest(canvas: Canvas, palette: Palette, rng: Random) -> None:
    """Draw hills with firs on them."""
    _draw_ground(canvas, palette, rng, _Relief(_rolling, horizon=0.45, height=0.04, nearness=1.4, firs=True))


def draw_sea(canvas: Canvas, palette: Palette, rng: Random) -> None:
    """Draw a low sun over the sea, its glitter on the water, and waves in front."""
    horizon, lamp_x = rng.uniform(0.50, 0.60), rng.uniform(0.3, 0.7)
    radius = rng.uniform(0.09, 0.14)
    _draw_sky(canvas, palette, rng, lamp=(lamp_x, horizon - rng.uniform(0.02, 0.2)), radius=radius)
    headland = _rolling(rng)
    shore = _ridge(lambda x: headland(x) * max(0.0, abs(x - lamp_x) - 0.18), base=horizon, height=0.16)
    canvas.polygons([[*shore, (1, horizon), (0, horizon)]], colors=(palette.ground[1], palette.ground[0]))
    water = mix(palette.ground[1], palette.sky[-1], 0.45), palette.ground[2], palette.ground[4]
    canvas.polygons([[(0, horizon), (1, horizon), (1, 1), (0, 1)]], colors=water)
    _draw_glitter(canvas, palette, rng, horizon=horizon, lamp_x=lamp_x)
    _draw_sail(canvas, palette, at=(lamp_x + rng.choice((-1, 1)) * rng.uniform(0.16, 0.26), horizon + 0.035))
    for layer in range(4):
        swell, base = _swell(rng), 0.76 + 0.075 * layer
        crest = mix(palette.ground[3 + layer // 2], palette.sky[-1], 0.28 - 0.06 * layer)
        outline = [*_ridge(swell, base=base, height=0.012 + 0.005 * layer), (1, 1), (0, 1)]
        canvas.polygons([outline], colors=(crest, palette.ground[3 + layer]), opacity=0.82)


def _draw_ground(canvas: Canvas, palette: Palette, rng: Random, relief: _Relief) -> None:
    lamp = rng.uniform(0.2, 0.8), rng.uniform(0.2, relief.horizon - 0.08)
    _draw_sky(canvas, palette, rng, lamp=lamp, radius=rng.uniform(0.06, 0.12))
    layers = len(palette.ground) - 1
    for layer in range(layers):
        share = layer / (layers - 1)
        base = relief.horizon + (0.97 - relief.horizon) * share**1.15
        height = relief.height * (1 + (relief.nearness - 1) * share)
        outline = _ridge(relief.profile(rng), base=base, height=height)
        shade, haze = palette.ground[layer], mix(palette.ground[layer], palette.sky[-1], 0.5 * (1 - share))
        top = mix(shade, palette.paper, 0.35 * (1 - share)) if relief.frosted and palette.light != "night" else shade
        shapes = [[*outline, (1, 1), (0, 1)]]
        if relief.firs and layer > 0:
            shapes += _firs(outline, rng, canvas=canvas, height=0.03 + 0.1 * share)
        canvas.polygons(shapes, colors=(top, haze, haze))


def _draw_sky(canvas: Canvas, palette: Palette, rng: Random, *, lamp: Point, radius: float) -> None:
    canvas.fill((*palette.sky, palette.sky[-1]))
    if palette.light == "night":
        canvas.dots(scatter_stars(rng, count=220), color=palette.paper)
    canvas.glow(lamp, radius=radius * 6, color=palette.lamp, strength=0.42)
    canvas.glow(lamp, radius=radius * 2.4, color=palette.lamp, strength=0.5)
    canvas.disc(lamp, radius=radius, colors=(palette.lamp, mix(palette.lamp, palette.sky[-1], 0.25)))
    if palette.light != "night":
        _draw_clouds(canvas, palette, rng)


def _draw_clouds(canvas: Canvas, palette: Palette, rng: Random) -> None:
    gap = 0.018 * canvas.short / canvas.height
    for _ in range(rng.randint(2, 4)):
        x, y, length = rng.uniform(0.05, 0.95), rng.uniform(0.08, 0.36), rng.uniform(0.12, 0.26)
        bank = [
            ((x + rng.uniform(-0.35, 0.35) * length, y + row * gap), length * rng.uniform(0.5, 1), 0.02)
            for row in range(3)
        ]
        canvas.streaks(bank, color=palette.paper, opacity=0.36)


def _draw_glitter(canvas: Canvas, palette: Palette, rng: Random, *, horizon: float, lamp_x: float) -> None:
    strokes = []
    for row in range(26):
        depth = (row + rng.random()) / 26
        spread = 0.03 + 0.13 * depth
        x = lamp_x + rng.uniform(-1, 1) * spread * 0.6
        strokes.append(((x, horizon + 0.012 + 0.3 * depth**1.4), spread * rng.uniform(0.5, 1.6), 0.003 + 0.006 * depth))
    canvas.streaks(strokes, color=palette.lamp, opacity=0.6)


def _draw_sail(canvas: Canvas, palette: Palette, *, at: Point) -> None:
    def place(points: Sequence[Point]) -> list[Point]:
        size = 0.05 * canvas.short
        return [(at[0] + x * size / canvas.width, at[1] + y * size / canvas.height) for x, y in points]

    sails = place(((0.05, -1.5), (0.05, -0.08), (0.75, -0.08))), place(((-0.05, -1.25), (-0.05, -0.08), (-0.5, -0.08)))
    canvas.polygons(sails, colors=(palette.paper, mix(palette.paper, palette.sky[-1], 0.3)))
    canvas.polygons([place(((-0.65, 0), (0.8, 0), (0.5, 0.25), (-0.4, 0.25)))], colors=(palette.ground[-1],))


def _ridge(profile: Profile, *, base: float, height: float) -> list[Point]:
    """Return the outline of a ridge from the left edge to the right."""
    xs = [i / _SAMPLES for i in range(_SAMPLES + 1)]
    return [(x, base - height * profile(x)) for x in xs]


def _waves(rng: Random, *, octaves: int, frequency: float) -> Profile:
    """Return a sum of sines, each faster and lower than the one before."""
    terms = [
        (0.5**octave, frequency * 1.9**octave * rng.uniform(0.8, 1.2), rng.uniform(0, math.tau))
        for octave in range(octaves)
    ]
    return lambda x: sum(high * math.sin(math.tau * speed * x + phase) for high, speed, phase in terms)


def _rolling(rng: Random) -> Profile:
    return _waves(rng, octaves=4, frequency=rng.uniform(0.7, 1.3))


def _swell(rng: Random) -> Profile:
    return _waves(rng, octaves=2, frequency=rng.uniform(1.8, 3.0))


def _crested(rng: Random) -> Profile:
    speed, phase, lean = rng.uniform(0.8, 1.7), rng.random(), _waves(rng, octaves=1, frequency=0.7)
    return lambda x: 1.7 * (1 - abs(math.sin(math.pi * (speed * x + phase + 0.12 * lean(x))))) ** 1.15 + 0.4 * lean(x)


def _jagged(rng: Random) -> Profile:
    """Return a ridge by midpoint displacement."""
    heights = [rng.uniform(-0.3, 0.3), rng.uniform(0.2, 1), rng.uniform(-0.4, 0.4), rng.uniform(0.2, 1), 0.0]
    rough = 0.42
    while len(heights) <= _SAMPLES / 2:
        between = [(a + b) / 2 + rng.uniform(-rough, rough) for a, b in pairwise(heights)]
        heights = [height for pair in zip(heights, between, strict=False) for height in pair] + heights[-1:]
        rough *= 0.52
    last = len(heights) - 1

    def profile(x: float) -> float:
        index = min(int(x * last), last - 1)
        return heights[index] + (heights[index + 1] - heights[index]) * (x * last - index)

    return profile


def _firs(outline: Sequence[Point], rng: Random, *, canvas: Canvas, height: float) -> list[list[Point]]:
    """Return firs standing on `outline`; the tallest is `height` (in short edges) high."""
    tall, wide = height * canvas.short / canvas.height, height * canvas.short / canvas.width
    count = min(_SAMPLES, round(1.6 / wide)) if wide > 1 / _SAMPLES else _SAMPLES
    firs: list[list[Point]] = []
    for i in range(count):
        x, foot = outline[round((i + rng.uniform(0, 0.9)) / count * (_SAMPLES - 1))]
        scale = rng.uniform(0.45, 1) * (1.0 if rng.random() < 0.7 else 0.4)
        for tier in range(3):
            tip, half = (1 - 0.27 * tier) * tall * scale, (0.11 + 0.055 * tier) * wide * scale
            skirt = foot - tip + 0.5 * tall * scale
            firs.append([(x, foot - tip), (x + half, skirt), (x - half, skirt)])
    return firs
