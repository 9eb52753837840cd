"""Sketches and their files."""

import io
from itertools import product
from typing import get_args

import pytest
from PIL import Image, ImageChops

from pixyproxy.core.models.image import PictureFormat
from pixyproxy.service.private.upstream.offline.generator import SOFTWARE, encode
from pixyproxy.service.private.upstream.offline.sketch import MAX_EDGE, Sketch

EVERY_SCENE = "hill", "peak", "dune", "forest", "sea", "planet", "pattern"

EXIF_SOFTWARE = 0x0131


def _draw(
    prompt: str = "a fox",
    *,
    size: tuple[int, int] = (96, 64),
    picture_format: PictureFormat = "png",
    quality: int = 90,
) -> bytes:
    sketch = Sketch(prompt, size)
    sketch.label()
    return encode(sketch.image, picture_format, quality)


def _open(picture: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image


@pytest.mark.parametrize(("scene", "light"), list(product(EVERY_SCENE, ("snow", "dusk", "night"))))
def test_the_same_arguments_give_the_same_bytes(scene: str, light: str) -> None:
    assert _draw(f"{scene} {light}") == _draw(f"{scene} {light}")


def test_other_prompts_give_other_bytes() -> None:
    assert len({_draw(f"fox {number}") for number in range(20)}) == 20


def test_another_variant_gives_another_picture_of_the_same_scene() -> None:
    first, other = (Sketch("night over the sea", (96, 64), variant=variant) for variant in ("", "#1"))
    assert (first.theme.scene, first.theme.light) == (other.theme.scene, other.theme.light) == ("sea", "night")
    assert first.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize("size", [(256, 256), (384, 200), (200, 300)])
@pytest.mark.parametrize("prompt", EVERY_SCENE)
def test_a_picture_has_many_colours_and_covers_every_corner(prompt: str, size: tuple[int, int]) -> None:
    image = Sketch(prompt, size).image
    assert len(image.getcolors(size[0] * size[1]) or ()) > 100
    corners = [image.getpixel((x, y)) for x, y in product((0, size[0] - 1), (0, size[1] - 1))]
    assert (0, 0, 0) not in corners


@pytest.mark.parametrize(
    ("prompt", "scene"),
    [
        ("a wood with deer", "forest"),
        ("two BOATS", "sea"),
        ("the moon over the cosmos", "orbits"),
        ("a desert sea", "sea"),
    ],
)
def test_words_of_the_prompt_choose_the_scene(prompt: str, scene: str) -> None:
    assert Sketch(prompt, (8, 8)).theme.scene == scene


def test_words_of_the_prompt_choose_the_colours() -> None:
    night, snow = (_open(_draw(f"{word} over the hills")).convert("L").resize((1, 1)) for word in ("night", "snow"))
    assert night.getpixel((0, 0)) < snow.getpixel((0, 0))  # type: ignore[operator]  # One channel: an int.


@pytest.mark.parametrize("picture_format", get_args(PictureFormat))
def test_the_format_and_the_size_are_those_asked_for(picture_format: PictureFormat) -> None:
    image = _open(_draw(size=(120, 80), picture_format=picture_format))
    assert image.format == picture_format.upper()
    assert image.size == (120, 80)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 7), (MAX_EDGE, 1), (1, MAX_EDGE), (33, 32)])
@pytest.mark.parametrize("prompt", EVERY_SCENE)
def test_every_scene_fits_into_every_size(prompt: str, size: tuple[int, int]) -> None:
    assert _open(_draw(prompt, size=size)).size == size


@pytest.mark.parametrize(
    "prompt",
    ["", "x" * 32_000, "海辺の夕日", "🦊🌊 la forêt", "a\x00b\n", "\ud800"],
    ids=["empty", "32,000 characters", "Japanese", "emoji", "control characters", "lone surrogate"],
)
def test_any_prompt_can_be_drawn(prompt: str) -> None:
    assert _open(_draw(prompt)).size == (96, 64)


@pytest.mark.parametrize("quality", [0, 1, 100])
@pytest.mark.parametrize("picture_format", ["jpeg", "webp"])
def test_any_quality_can_be_written(picture_format: PictureFormat, quality: int) -> None:
    assert _open(_draw(picture_format=picture_format, quality=quality)).format == picture_format.upper()


@pytest.mark.parametrize("picture_format", ["jpeg", "webp"])
def test_a_lower_quality_makes_a_smaller_file(picture_format: PictureFormat) -> None:
    low, high = (len(_draw(picture_format=picture_format, quality=quality)) for quality in (0, 90))
    assert low < high


@pytest.mark.parametrize(
    ("picture_format", "key", "value"), [("png", "Software", SOFTWARE), ("gif", "comment", SOFTWARE.encode())]
)
def test_the_metadata_says_what_made_the_picture(picture_format: PictureFormat, key: str, value: object) -> None:
    assert _open(_draw(picture_format=picture_format)).info[key] == value


@pytest.mark.parametrize("picture_format", ["jpeg", "webp"])
def test_the_exif_data_says_what_made_the_picture(picture_format: PictureFormat) -> None:
    assert _open(_draw(picture_format=picture_format)).getexif()[EXIF_SOFTWARE] == SOFTWARE


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (640, 360)])
def test_a_line_at_the_bottom_says_what_the_picture_is(size: tuple[int, int]) -> None:
    changed = _changed_by_the_label(size)
    assert changed is not None
    assert changed[3] - changed[1] >= 12
    assert changed[1] >= size[1] / 2


def test_a_line_that_could_not_be_read_is_left_out() -> None:
    assert _changed_by_the_label((20, 20)) is None


def _changed_by_the_label(size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return the box of the pixels that the label changes."""
    sketch = Sketch("sea", size)
    bare = sketch.image.copy()
    sketch.label()
    return ImageChops.difference(sketch.image, bare).getbbox()
