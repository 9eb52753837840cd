"""Cursors are opaque, unforgeable and valid only for their list."""

import base64

import pytest
from pydantic import SecretStr

from pixyproxy.core.exceptions import InvalidCursorException
from pixyproxy.core.models.image import ImageFilter, ImageId
from pixyproxy.service.cursors import CursorCodec

CODEC = CursorCodec(SecretStr("a secret"))
WANTED = ImageFilter(prompt="fox 🦊", mine=True)
LAST = ImageId(1234567890)
UNUSED_BITS = 3
"""The last characters before the padding may hold bits that base64 does not use."""


@pytest.mark.parametrize("last", [1, 1234567890, 2**63])
@pytest.mark.parametrize("wanted", [ImageFilter(), WANTED])
def test_cursor_decodes_to_its_id(last: int, wanted: ImageFilter) -> None:
    assert CODEC.decode(CODEC.encode(ImageId(last), wanted), wanted) == last


def test_another_process_with_the_secret_decodes_it() -> None:
    assert CursorCodec(SecretStr("a secret")).decode(CODEC.encode(LAST, WANTED), WANTED) == LAST


def test_cursor_needs_no_url_encoding() -> None:
    assert CODEC.encode(LAST, WANTED).rstrip("=").replace("-", "").replace("_", "").isalnum()


def test_cursor_does_not_reveal_the_id() -> None:
    cursor = CODEC.encode(LAST, WANTED)
    assert str(LAST) not in cursor
    decoded = base64.urlsafe_b64decode(cursor)
    assert str(LAST).encode() not in decoded
    assert LAST.to_bytes(4, "big") not in decoded
    assert LAST.to_bytes(4, "little") not in decoded


def test_cursor_with_any_changed_character_is_rejected() -> None:
    cursor = CODEC.encode(LAST, WANTED)
    signed = cursor.rstrip("=")[:-UNUSED_BITS]
    assert len(signed) > 20
    for position, character in enumerate(signed):
        altered = cursor[:position] + ("A" if character != "A" else "B") + cursor[position + 1 :]
        with pytest.raises(InvalidCursorException):
            CODEC.decode(altered, WANTED)


def test_cursor_of_another_secret_is_rejected() -> None:
    with pytest.raises(InvalidCursorException):
        CODEC.decode(CursorCodec(SecretStr("other")).encode(LAST, WANTED), WANTED)


@pytest.mark.parametrize(
    "other", [ImageFilter(), ImageFilter(prompt="fox 🦊"), ImageFilter(prompt="fox", mine=True), ImageFilter(mine=True)]
)
def test_cursor_of_another_filter_is_rejected(other: ImageFilter) -> None:
    with pytest.raises(InvalidCursorException):
        CODEC.decode(CODEC.encode(LAST, other), WANTED)


@pytest.mark.parametrize(
    "garbage", ["", "1", "x" * 100_000, "é🦊", "\0", "gAAAAA==", "../../etc/passwd", "\ud800", "%"]
)
def test_garbage_is_rejected(garbage: str) -> None:
    with pytest.raises(InvalidCursorException):
        CODEC.decode(garbage, WANTED)
