"""Colours of the offline sketch: the mood of the prompt's words, and a harmonious palette.

Colours are chosen in OKLCH (Björn Ottosson, "A perceptual color space for image processing", 2020), where equal steps
of lightness look equal for every hue: a palette of any hue keeps its contrast.
"""

import math
import re
from dataclasses import dataclass
from random import Random
from typing import Literal

Color = tuple[int, int, int]
"""8-bit sRGB."""

Light = Literal["day", "dusk", "night"]
"""The time of day, which sets how dark the sky and the ground are."""

SceneName = Literal["hills", "peaks", "dunes", "forest", "sea", "silk", "discs", "tiles", "orbits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """The mood suggested by the prompt; None leaves the choice to the seed."""

    hue: float | None = None
    light: Light | None = None
    scene: SceneName | None = None


_MOODS: tuple[tuple[str, Mood], ...] = (
    ("sunset sunrise dusk dawn evening", Mood(hue=38, light="dusk")),
    ("fire flame lava volcano ember dragon", Mood(hue=30, light="dusk", scene="peaks")),
    ("star galaxy space planet cosmos universe astronaut", Mood(hue=285, light="night", scene="orbits")),
    ("night midnight moon moonlight", Mood(hue=268, light="night")),
    ("sea ocean wave beach lake harbour harbor boat ship sail whale", Mood(hue=228, scene="sea")),
    ("snow winter ice frost arctic", Mood(hue=238, light="day", scene="peaks")),
    ("desert sand dune camel sahara", Mood(hue=58, scene="dunes")),
    ("mountain alp peak summit", Mood(scene="peaks")),
    ("forest tree wood jungle fox deer bear", Mood(hue=158, scene="forest")),
    ("autumn harvest wheat", Mood(hue=58, light="dusk")),
    ("meadow field hill valley garden spring", Mood(hue=135, light="day", scene="hills")),
    ("music dance wind dream silk aurora jazz", Mood(hue=305, light="night", scene="silk")),
    ("flower rose blossom cherry candy balloon", Mood(hue=358, light="day", scene="discs")),
    ("city street house robot machine pattern geometric logo", Mood(scene="tiles")),
)
"""Singular words and their mood. The first matching line wins."""


def read_mood(prompt: str) -> Mood:
    """Return the mood suggested by the words of `prompt`."""
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    words |= {word.removesuffix("s") for word in words}
    moods = [mood for names, mood in _MOODS if not words.isdisjoint(names.split())]
    return Mood(
        hue=next((mood.hue for mood in moods if mood.hue is not None), None),
        light=next((mood.light for mood in moods if mood.light), None),
        scene=next((mood.scene for mood in moods if mood.scene), None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """The colours of one picture."""

    light: Light
    sky: tuple[Color, ...]
    """From the zenith to the horizon."""
    ground: tuple[Color, ...]
    """From the farthest layer to the nearest."""
    accents: tuple[Color, ...]
    """Five clear colours of similar weight."""
    lamp: Color
    """The sun or the moon."""
    paper: Color
    ink: Color


@dataclass(frozen=True, slots=True)
class _Scheme:
    """Lightness, chroma and hue offset of a light's anchor colours."""

    sky: tuple[tuple[float, float, float], ...]
    far: tuple[float, float, float]
    near: tuple[float, float, float]
    lamp: tuple[float, float, float]


_SCHEMES: dict[Light, _Scheme] = {
    "day": _Scheme(
        sky=((0.78, 0.085, 0), (0.88, 0.06, 14), (0.965, 0.035, 55)),
        far=(0.83, 0.055, 8),
        near=(0.36, 0.085, -22),
        lamp=(0.975, 0.06, 90),
    ),
    "dusk": _Scheme(
        sky=((0.43, 0.11, -95), (0.66, 0.15, -40), (0.80, 0.14, 5), (0.92, 0.09, 48)),
        far=(0.70, 0.12, -12),
        near=(0.20, 0.065, -92),
        lamp=(0.96, 0.075, 92),
    ),
    "night": _Scheme(
        sky=((0.17, 0.05, 8), (0.27, 0.075, 0), (0.45, 0.09, -28)),
        far=(0.43, 0.08, -22),
        near=(0.13, 0.035, 6),
        lamp=(0.95, 0.045, 95),
    ),
}

_LIGHTS: tuple[Light, ...] = ("day", "day", "day", "dusk", "dusk", "night")
"""The seed's choices, mostly days: a gallery of nights would be gloomy."""

_WARMEST = 75.0
"""The last hue (from red to yellow) for a dusk."""

_HARMONIES: tuple[tuple[float, ...], ...] = (
    (-48, -20, 8, 36, 190),
    (-28, 0, 28, 165, 200),
    (0, 25, 120, 145, 240),
    (-60, -30, 0, 30, 60),
)
"""Hue offsets: analogous with a complement, split complement, triad, analogous."""


def choose_palette(rng: Random, *, mood: Mood) -> Palette:
    """Return a palette for `mood`; `rng` decides what it leaves open."""
    free_hue, free_light = rng.uniform(0, 360), rng.choice(_LIGHTS)
    harmony, drift = rng.choice(_HARMONIES), rng.uniform(-10, 10)
    light = mood.light or free_light
    hue = (free_hue if mood.hue is None else mood.hue) + drift
    if light == "dusk" and hue % 360 > _WARMEST:
        # The zenith of a cold dusk would be green.
        hue = _WARMEST * free_hue / 360
    scheme = _SCHEMES[light]
    return Palette(
        light=light,
        sky=tuple(oklch(lightness, chroma, hue + offset) for lightness, chroma, offset in scheme.sky),
        ground=_ramp(scheme.far, scheme.near, hue=hue, steps=7),
        accents=tuple(oklch(0.80 - 0.045 * i, 0.14, hue + offset) for i, offset in enumerate(harmony)),
        # The sun is warm whatever the sky's hue, so it takes no hue from the palette.
        lamp=oklch(*scheme.lamp),
        paper=oklch(0.965, 0.018, hue + 40),
        ink=oklch(0.22, 0.045, hue),
    )


def _ramp(
    far: tuple[float, float, float], near: tuple[float, float, float], *, hue: float, steps: int
) -> tuple[Color, ...]:
    """Return `steps` colours from `far` to `near`, with hues as offsets to `hue`."""
    shades = (tuple(a + (b - a) * i / (steps - 1) for a, b in zip(far, near, strict=True)) for i in range(steps))
    return tuple(oklch(lightness, chroma, hue + offset) for lightness, chroma, offset in shades)


def oklch(lightness: float, chroma: float, hue: float) -> Color:
    """Return the sRGB colour of OKLCH (0…1, 0…0.4, degrees), lowering its chroma until it is in sRGB."""
    channels = _to_linear_srgb(lightness, chroma, math.radians(hue))
    while min(channels) < 0 or max(channels) > 1:
        chroma *= 0.94
        if chroma < 0.002:
            channels = tuple(min(1.0, max(0.0, channel)) for channel in channels)
            break
        channels = _to_linear_srgb(lightness, chroma, math.radians(hue))
    red, green, blue = (round(255 * _encode_gamma(channel)) for channel in channels)
    return red, green, blue


def _to_linear_srgb(lightness: float, chroma: float, angle: float) -> tuple[float, ...]:
    a, b = chroma * math.cos(angle), chroma * math.sin(angle)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def _encode_gamma(channel: float) -> float:
    return 12.92 * channel if channel <= 0.0031308 else 1.055 * channel ** (1 / 2.4) - 0.055


def mix(first: Color, second: Color, share: float) -> Color:
    """Return `first` with `share` (0…1) of `second` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
