"""Abstract scenes of the offline sketch."""

import math
from random import Random

from pixyproxy.service.private.upstream.offline.canvas import Blend, Canvas, Point, scatter_stars
from pixyproxy.service.private.upstream.offline.palette import Color, Palette, mix

_FAINT: Color = (95, 95, 100)
"""The light of an orbit's line, added to what is behind it."""


def draw_silk(canvas: Canvas, palette: Palette, rng: Random) -> None:
    """Draw flowing ribbons, each of many translucent strips."""
    backdrop = [mix(color, palette.ink, 0.55) for color in (*palette.sky[:2], *palette.ground[2:6])]
    canvas.fill_mesh(rng.sample(backdrop, 4), columns=2)
    accents = [mix(color, palette.paper, 0.12) for color in rng.sample(palette.accents, 4)]
    ribbons = [_ribbon(rng, first=accents[i], last=accents[i + 1], base=0.28 + 0.22 * i) for i in range(3)]
    canvas.strips(strip for ribbon in ribbons for strip in ribbon)


def _ribbon(rng: Random, *, first: Color, last: Color, base: float) -> list[tuple[list[Point], Color, float]]:
    bend, twist = rng.uniform(0.10, 0.2), rng.uniform(0.1, 0.2)
    speed, turn, phase = rng.uniform(0.5, 0.95), rng.uniform(0.4, 0.8), rng.uniform(0, math.tau)
    xs = [i / 70 for i in range(-1, 72)]

    def thread(share: float) -> list[Point]:
        return [
            (
                x,
                base
                + bend * math.sin(math.tau * speed * x + phase + 0.9 * share)
                + twist * (share - 0.5) * (1.1 + math.cos(math.tau * turn * x + phase * 1.7)),
            )
            for x in xs
        ]

    count = 26
    threads = [thread(i / count) for i in range(count + 1)]
    strips = []
    for i in range(count):
        # Brightest in the middle, like cloth; each strip covers the next, so that folds add up.
        shine = math.sin(math.pi * (i + 0.5) / count)
        outline = [*threads[i], *reversed(threads[min(i + 5, count)])]
        strips.append((outline, mix(first, last, i / count), 0.075 + 0.14 * shine))
    return strips


def draw_discs(canvas: Canvas, palette: Palette, rng: Random) -> None:
    """Draw overlapping discs that mix like ink on paper, or like light in the dark."""
    dark = palette.light == "night"
    ground = palette.ink if dark else palette.paper
    canvas.fill_mesh([mix(ground, rng.choice(palette.accents), rng.uniform(0.02, 0.2)) for _ in range(4)], columns=2)
    blend: Blend = "screen" if dark else "multiply"
    turn = rng.uniform(0, math.tau)
    for i in range(11):
        # The golden angle spreads any number of discs evenly (Vogel's sunflower).
        angle, distance = turn + 2.39996 * i, 0.11 * math.sqrt(i + 0.4)
        x = 0.5 + distance * math.cos(angle) * min(1.25, (canvas.width / canvas.height) ** 0.6)
        y = 0.5 + distance * math.sin(angle) * min(1.25, (canvas.height / canvas.width) ** 0.6)
        color = palette.accents[i % len(palette.accents)]
        tint = mix(color, ground, 0.45 if dark else 0.25), mix(color, ground, 0.85 if dark else 0.75)
        canvas.disc(
            (x, y),
            radius=rng.uniform(0.1, 0.27),
            colors=tint if rng.random() < 0.6 else tint[::-1],
            blend=blend,
            hole=rng.choice((0, 0, 0, 0.55, 0.8)),
        )
    seeds = [(rng.random(), rng.random(), rng.choice((0.003, 0.005, 0.008)), 0.8) for _ in range(26)]
    canvas.dots(seeds, color=palette.paper if dark else palette.ink)


def draw_tiles(canvas: Canvas, palette: Palette, rng: Random) -> None:
    """Draw a grid of tiles with quarter discs, discs, leaves and arcs."""
    canvas.fill((palette.paper,))
    across = rng.randint(5, 7)
    edge = max(canvas.short / across, max(canvas.width, canvas.height) / (3 * across))
    columns, rows = math.ceil(canvas.width / edge - 0.01), math.ceil(canvas.height / edge - 0.01)
    inks = [*palette.accents, mix(palette.ink, palette.accents[0], 0.2), palette.paper]
    strips: list[tuple[list[Point], Color, float]] = []
    for row in range(rows):
        for column in range(columns):
            back, front, detail = rng.sample(inks, 3)
            corners = [
                ((column + x) * edge / canvas.width, (row + y) * edge / canvas.height)
                for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))
            ]
            strips.append((corners, back, 1.0))
            for outline, accented in _tile(rng):
                placed = [((column + x) * edge / canvas.width, (row + y) * edge / canvas.height) for x, y in outline]
                strips.append((placed, detail if accented else front, 1.0))
    canvas.strips(strips)
    canvas.glow((rng.random(), 0), radius=1.2, color=palette.lamp, strength=0.22)


def _tile(rng: Random) -> list[tuple[list[Point], bool]]:
    """Return the outlines on one tile of edge 1, and whether each has the tile's second colour."""
    turns = rng.randrange(4)
    kind = rng.choice(("quarter", "quarter", "arcs", "half", "disc", "leaf", "plain"))
    if kind == "quarter":
        shapes = [(_sector((0, 0), 1, quarters=1), False)]
    elif kind == "arcs":
        shapes = [(_sector((0, 0), radius, quarters=1), i == 1) for i, radius in enumerate((1, 0.68, 0.36))]
    elif kind == "half":
        shapes = [(_sector((0.5, 0), 0.5, quarters=2), False), (_sector((0.5, 0.5), 0.5, quarters=2), True)]
    elif kind == "disc":
        shapes = [(_sector((0.5, 0.5), 0.38, quarters=4), False), (_sector((0.5, 0.5), 0.16, quarters=4), True)]
    elif kind == "leaf":
        arc = _sector((0, 0), 1, quarters=1)[1:]
        shapes = [([*arc, *((1 - x, 1 - y) for x, y in arc)], False)]
    else:
        shapes = []
    return [([_turn(point, turns) for point in outline], accented) for outline, accented in shapes]


def _sector(center: Point, radius: float, *, quarters: int) -> list[Point]:
    """Return a sector of a disc that opens downwards from the direction of x, its centre first."""
    steps = 12 * quarters
    angles = (math.tau / 4 * quarters * i / steps for i in range(steps + 1))
    arc = [(center[0] + radius * math.cos(angle), center[1] + radius * math.sin(angle)) for angle in angles]
    return [center, *arc]


def _turn(point: Point, turns: int) -> Point:
    """Return `point` after quarter `turns` about the middle of its tile."""
    x, y = point
    for _ in range(turns):
        x, y = 1 - y, x
    return x, y


def draw_orbits(canvas: Canvas, palette: Palette, rng: Random) -> None:
    """Draw a sun with rings about it and planets on them."""
    dark = [mix(color, palette.ink, rng.uniform(0.76, 0.94)) for color in palette.accents]
    canvas.fill_mesh([rng.choice(dark) for _ in range(6)], columns=3)
    canvas.dots(scatter_stars(rng, count=220), color=palette.paper)
    center = rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.65)
    canvas.glow(center, radius=0.75, color=palette.accents[0], strength=0.55)
    orbit = 0.2
    for color in palette.accents:
        canvas.disc(center, radius=orbit, colors=(_FAINT,), blend="screen", hole=1 - 0.0026 / orbit)
        angle = rng.uniform(0, math.tau)
        place = (
            center[0] + orbit * math.cos(angle) * canvas.short / canvas.width,
            center[1] + orbit * math.sin(angle) * canvas.short / canvas.height,
        )
        _draw_planet(canvas, palette, at=place, radius=rng.uniform(0.022, 0.05), color=color)
        orbit += rng.uniform(0.085, 0.14)
    canvas.glow(center, radius=0.26, color=palette.lamp, strength=0.8)
    canvas.disc(center, radius=0.085, colors=(palette.lamp, mix(palette.lamp, palette.accents[0], 0.35)))


def _draw_planet(canvas: Canvas, palette: Palette, *, at: Point, radius: float, color: Color) -> None:
    canvas.glow(at, radius=radius * 2.4, color=color, strength=0.4)
    canvas.disc(at, radius=radius, colors=(mix(color, palette.paper, 0.35), mix(color, palette.ink, 0.35)))
