"""Pictures are told by their bytes: four formats within the limits pass, anything else does not."""

import hashlib
import random
from collections.abc import Callable

import pytest

from pixyproxy.core.exceptions import UpstreamAnswerException
from pixyproxy.service.private.upstream.picture import PictureLimits, UpstreamPicture, inspect_picture
from tests.support import pictures

LIMITS = PictureLimits(max_bytes=1_000_000, max_pixels=100_000_000)
FORMATS = {
    "image/png": pictures.png,
    "image/jpeg": pictures.jpeg,
    "image/webp": pictures.webp,
    "image/gif": pictures.gif,
}


def _inspect(content: bytes, limits: PictureLimits = LIMITS) -> UpstreamPicture:
    return inspect_picture(content, limits=limits)


@pytest.mark.parametrize(("media_type", "draw"), FORMATS.items(), ids=FORMATS)
def test_a_picture_is_what_its_bytes_say(media_type: str, draw: Callable[[int, int], bytes]) -> None:
    content = draw(48, 32)
    picture = _inspect(content)
    assert (picture.media_type, picture.width, picture.height) == (media_type, 48, 32)
    assert picture.content is content
    assert picture.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        pictures.svg(),
        b"<!DOCTYPE html><html></html>",
        b"BM" + bytes(60),
        b"II*\0" + bytes(60),
        b"%PDF-1.7\n",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBP",
        b"\xff\xd8\xff",
        bytes(1000),
    ],
    ids=["empty", "png's magic", "svg", "html", "bmp", "tiff", "pdf", "gif's magic", "webp's magic", "jpeg's", "zeros"],
)
def test_what_is_no_picture_of_these_formats_is_refused(content: bytes) -> None:
    with pytest.raises(UpstreamAnswerException):
        _inspect(content)


@pytest.mark.parametrize("draw", FORMATS.values(), ids=FORMATS)
def test_bytes_cut_anywhere_or_altered_are_refused_or_taken_and_raise_nothing_else(
    draw: Callable[[int, int], bytes],
) -> None:
    content, chosen = draw(48, 32), random.Random(1)
    broken = [content[:length] for length in range(min(len(content), 300))]
    for _ in range(500):
        altered = bytearray(content)
        for _ in range(chosen.randint(1, 4)):
            altered[chosen.randrange(min(len(altered), 200))] = chosen.randrange(256)
        broken.append(bytes(altered))
    refused = 0
    for candidate in broken:
        try:
            _inspect(candidate)
        except UpstreamAnswerException:
            refused += 1
    assert refused > 10


def test_a_header_that_claims_too_many_pixels_is_refused_without_a_warning() -> None:
    with pytest.raises(UpstreamAnswerException):
        _inspect(pictures.png_claiming(50_000, 50_000))


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (100_000, 1000)])
def test_the_most_pixels_are_taken_and_one_more_row_is_not(width: int, height: int) -> None:
    assert _inspect(pictures.png_claiming(width, height)).width == width
    with pytest.raises(UpstreamAnswerException):
        _inspect(pictures.png_claiming(width, height + 1))


def test_a_picture_without_pixels_is_refused() -> None:
    for width, height in ((0, 10), (10, 0), (0, 0)):
        with pytest.raises(UpstreamAnswerException):
            _inspect(pictures.png_claiming(width, height))


def test_the_most_bytes_are_taken_and_one_more_is_not() -> None:
    content = pictures.png(64, 64)
    assert len(_inspect(content, PictureLimits(max_bytes=len(content), max_pixels=64 * 64)).content) == len(content)
    with pytest.raises(UpstreamAnswerException):
        _inspect(content, PictureLimits(max_bytes=len(content) - 1, max_pixels=64 * 64))
