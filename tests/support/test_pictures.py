"""The pictures for tests have the documented properties."""

import io

import pytest
from PIL import Image, PngImagePlugin

from tests.support import pictures


def test_pictures_are_deterministic_and_differ_by_seed() -> None:
    for draw in (pictures.png, pictures.jpeg, pictures.webp, pictures.gif):
        assert draw(64, 48) == draw(64, 48) != draw(64, 48, seed=1)
        with Image.open(io.BytesIO(draw(64, 48))) as picture:
            picture.load()
            assert picture.size == (64, 48)
            assert getattr(picture, "n_frames", 1) == (1 + (draw is pictures.gif))


@pytest.mark.parametrize("size", [200_000, 1_470_000, 5_000_000])
def test_noise_png_has_the_requested_size(size: int) -> None:
    noise = pictures.noise_png(size)

    assert len(noise) == pytest.approx(size, rel=0.02)
    with Image.open(io.BytesIO(noise)) as picture:
        picture.load()


def test_transparent_png_shows_only_its_right_half() -> None:
    with Image.open(io.BytesIO(pictures.transparent_png(64, 48))) as picture:
        assert (picture.mode, picture.size) == ("RGBA", (64, 48))
        alpha = picture.getchannel("A")
        assert alpha.crop((0, 0, 32, 48)).getextrema() == (0, 0)
        assert alpha.crop((32, 0, 64, 48)).getextrema() == (255, 255)


def test_claiming_png_has_a_valid_header() -> None:
    with PngImagePlugin.PngImageFile(io.BytesIO(pictures.png_claiming(50_000, 50_000))) as picture:
        assert picture.size == (50_000, 50_000)
