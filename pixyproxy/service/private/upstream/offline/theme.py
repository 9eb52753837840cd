"""Choose the scene, the light and the colours of a sketch from the words of its prompt."""

import math
import re
from random import Random
from typing import Literal, TypedDict, get_args

Color = tuple[int, int, int]
"""8-bit sRGB."""
Light = Literal["day", "dusk", "night"]
SceneName = Literal["hills", "peaks", "dunes", "forest", "sea", "orbits", "tiles"]


class Hints(TypedDict, total=False):
    """What words suggest; missing keys are left to chance. The hue is in degrees."""

    hue: float
    light: Light
    scene: SceneName


_HINTS: dict[str, Hints] = {
    "sunset sunrise dusk dawn evening": {"hue": 38, "light": "dusk"},
    "fire flame lava volcano ember dragon": {"hue": 30, "light": "dusk", "scene": "peaks"},
    "star galaxy space planet cosmos universe astronaut": {"hue": 285, "light": "night", "scene": "orbits"},
    "night midnight moon moonlight": {"hue": 268, "light": "night"},
    "sea ocean wave beach lake harbour harbor boat ship sail whale": {"hue": 228, "scene": "sea"},
    "snow winter ice frost arctic": {"hue": 238, "light": "day", "scene": "peaks"},
    "desert sand dune camel sahara": {"hue": 58, "scene": "dunes"},
    "mountain alp peak summit": {"scene": "peaks"},
    "forest tree wood jungle fox deer bear": {"hue": 158, "scene": "forest"},
    "autumn harvest wheat": {"hue": 58, "light": "dusk"},
    "meadow field hill valley garden spring": {"hue": 135, "light": "day", "scene": "hills"},
    "music dance wind dream silk aurora jazz": {"hue": 305, "light": "night", "scene": "orbits"},
    "flower rose blossom cherry candy balloon": {"hue": 358, "light": "day", "scene": "orbits"},
    "city street house robot machine pattern geometric logo": {"scene": "tiles"},
}
"""Singular words and what they suggest; where two entries disagree, the earlier one wins."""

_LIGHTS = {
    "day": ((0.78, 0.085, 0), (0.88, 0.06, 14), (0.965, 0.035, 55), (0.83, 0.055, 8), (0.36, 0.085, -22)),
    "dusk": ((0.43, 0.11, -95), (0.66, 0.15, -40), (0.88, 0.12, 32), (0.70, 0.12, -12), (0.20, 0.065, -92)),
    "night": ((0.17, 0.05, 8), (0.27, 0.075, 0), (0.45, 0.09, -28), (0.43, 0.08, -22), (0.13, 0.035, 6)),
}
"""Three colours of the sky from the zenith down, the farthest and the nearest ground: lightness, chroma, hue offset."""
_HARMONIES = (-48, -20, 8, 36, 190), (-28, 0, 28, 165, 200), (0, 25, 120, 145, 240)
"""Hue offsets of the accents: analogous with a complement, split complement, triad."""


class Theme:
    """The scene, the light and the colours that `prompt` suggests; `rng` decides what it leaves open."""

    def __init__(self, prompt: str, rng: Random) -> None:
        words = set(re.findall(r"[a-z]+", prompt.lower()))
        words |= {word.removesuffix("s") for word in words}
        hints: Hints = {}
        for names, suggested in reversed(_HINTS.items()):
            if not words.isdisjoint(names.split()):
                hints.update(suggested)
        self.scene: SceneName = hints.get("scene", rng.choice(get_args(SceneName)))
        self.light: Light = hints.get("light", rng.choices(get_args(Light), weights=(3, 2, 1))[0])
        hue = hints.get("hue", rng.uniform(0, 360)) + rng.uniform(-10, 10)
        if self.light == "dusk" and hue > 75:
            # Only red to yellow: the zenith of a cold dusk would be green.
            hue = rng.uniform(0, 75)
        *sky, far, near = _LIGHTS[self.light]
        ramp = [[a + (b - a) * step / 6 for a, b in zip(far, near, strict=True)] for step in range(7)]
        self.sky = [oklch(lightness, chroma, hue + offset) for lightness, chroma, offset in sky]
        self.ground = [oklch(lightness, chroma, hue + offset) for lightness, chroma, offset in ramp]
        self.accents = [oklch(0.80 - 0.045 * i, 0.14, hue + turn) for i, turn in enumerate(rng.choice(_HARMONIES))]
        self.lamp, self.paper, self.ink = oklch(0.965, 0.06, 92), oklch(0.965, 0.018, hue + 40), oklch(0.22, 0.045, hue)


def oklch(lightness: float, chroma: float, hue: float) -> Color:
    """Return the sRGB colour of OKLCH (0…1, 0…0.4, degrees), its chroma lowered until sRGB contains it.

    Equal steps of lightness look equal for every hue (Björn Ottosson, "A perceptual color space for image processing").
    """
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    if chroma > 0 and not 0 <= min(red, green, blue) <= max(red, green, blue) <= 1:
        return oklch(lightness, max(0, chroma - 0.004), hue)
    # The exact curve is linear below 0.003; the difference is at most 3 of 255.
    red, green, blue = (round(255 * max(0, 1.055 * channel ** (1 / 2.4) - 0.055)) for channel in (red, green, blue))
    return red, green, blue


def mix(first: Color, second: Color, share: float) -> Color:
    """Return `first` with `share` (0…1) of `second` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
