"""The offline generator's drawing."""

import io
from itertools import product
from typing import get_args

import pytest
from PIL import Image, ImageChops

from pixyproxy.core.models.image import PictureFormat
from pixyproxy.service.private.upstream.offline.drawing import (
    MAX_EDGE,
    SOFTWARE,
    draw_scene,
    encode_sketch,
    label_sketch,
)

EVERY_SCENE = "hill", "peak", "dune", "forest", "sea", "silk", "balloon", "pattern", "planet"

EXIF_SOFTWARE = 0x0131


def _draw(
    prompt: str = "a fox",
    *,
    width: int = 96,
    height: int = 64,
    picture_format: PictureFormat = "png",
    quality: int = 90,
) -> bytes:
    image, palette = draw_scene(prompt, width=width, height=height)
    label_sketch(image, palette)
    return encode_sketch(image, picture_format=picture_format, quality=quality)


def _open(picture: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image


@pytest.mark.parametrize(("scene", "light"), list(product(EVERY_SCENE, ("snow", "dusk", "night"))))
def test_drawing_is_deterministic(scene: str, light: str) -> None:
    assert _draw(f"{scene} {light}") == _draw(f"{scene} {light}")


def test_different_prompts_give_different_bytes() -> None:
    assert len({_draw(f"fox {number}") for number in range(20)}) == 20


def test_words_of_the_prompt_set_the_colours() -> None:
    night, snow = (_open(_draw(f"{word} over the hills")).convert("L").resize((1, 1)) for word in ("night", "snow"))
    assert night.getpixel((0, 0)) < snow.getpixel((0, 0))  # type: ignore[operator]  # One channel: an int.


@pytest.mark.parametrize("picture_format", get_args(PictureFormat))
def test_format_and_size_are_as_requested(picture_format: PictureFormat) -> None:
    image = _open(_draw(width=120, height=80, picture_format=picture_format))
    assert image.format == picture_format.upper()
    assert image.size == (120, 80)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 7), (MAX_EDGE, 1), (1, MAX_EDGE), (33, 32)])
@pytest.mark.parametrize("prompt", EVERY_SCENE)
def test_every_scene_can_be_drawn_in_every_size(prompt: str, size: tuple[int, int]) -> None:
    assert _open(_draw(prompt, width=size[0], height=size[1])).size == size


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [((4096, 1024), (2048, 512)), ((300, 9999), (61, 2048)), ((9999, 1), (2048, 1)), ((2048, 40), (2048, 40))],
)
def test_size_above_the_limit_is_scaled_down(asked: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert _open(_draw(width=asked[0], height=asked[1])).size == drawn


@pytest.mark.parametrize(
    "prompt",
    ["", "x" * 32_000, "海辺の夕日", "🦊🌊 la forêt", "a\x00b\n", "\ud800"],
    ids=["empty", "32,000 characters", "Japanese", "emoji", "control characters", "lone surrogate"],
)
def test_any_prompt_can_be_drawn(prompt: str) -> None:
    assert _open(_draw(prompt)).size == (96, 64)


@pytest.mark.parametrize("quality", [0, 1, 100])
@pytest.mark.parametrize("picture_format", ["jpeg", "webp"])
def test_every_quality_can_be_encoded(picture_format: PictureFormat, quality: int) -> None:
    assert _open(_draw(picture_format=picture_format, quality=quality)).format == picture_format.upper()


@pytest.mark.parametrize("picture_format", ["jpeg", "webp"])
def test_lower_quality_makes_a_smaller_file(picture_format: PictureFormat) -> None:
    low, high = (len(_draw(picture_format=picture_format, quality=quality)) for quality in (0, 90))
    assert low < high


@pytest.mark.parametrize(
    ("picture_format", "key", "value"), [("png", "Software", SOFTWARE), ("gif", "comment", SOFTWARE.encode())]
)
def test_metadata_names_the_software(picture_format: PictureFormat, key: str, value: object) -> None:
    assert _open(_draw(picture_format=picture_format)).info[key] == value


@pytest.mark.parametrize("picture_format", ["jpeg", "webp"])
def test_exif_data_names_the_software(picture_format: PictureFormat) -> None:
    assert _open(_draw(picture_format=picture_format)).getexif()[EXIF_SOFTWARE] == SOFTWARE


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (640, 360)])
def test_label_is_drawn_at_the_bottom(size: tuple[int, int]) -> None:
    changed = _changed_by_the_line(*size)
    assert changed is not None
    assert changed[3] - changed[1] >= 12
    assert changed[1] >= size[1] / 2


def test_illegible_label_is_left_out() -> None:
    assert _changed_by_the_line(20, 20) is None


def _changed_by_the_line(width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return the box of the pixels in which the sketch differs from its bare scene."""
    bare, _ = draw_scene("silk", width=width, height=height)
    return ImageChops.difference(_open(_draw("silk", width=width, height=height)), bare).getbbox()
