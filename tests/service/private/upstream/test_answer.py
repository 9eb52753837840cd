"""Reading an answer piece by piece: the picture comes out whole, however it was cut."""

import base64
import json
import random

import pytest

from pixyproxy.core.exceptions import PictureUnusableException, UpstreamAnswerException
from pixyproxy.service.private.upstream.answer import MOST_SKELETON_BYTES, AnswerReader


def read(answer: bytes, *, piece: int = 65_536, max_bytes: int = 10_000_000) -> bytes:
    """What a reader makes of an answer that arrives in pieces of this length."""
    reader = AnswerReader(max_bytes=max_bytes)
    for start in range(0, len(answer), piece):
        reader.feed(answer[start : start + piece])
    return reader.finish()


def answer_with(b64_json: object, **more: object) -> bytes:
    return json.dumps({"created": 1, "data": [{"b64_json": b64_json}], **more}).encode()


@pytest.mark.parametrize("seed", range(40))
def test_a_picture_is_read_whatever_the_pieces_and_its_length(seed: int) -> None:
    source = random.Random(seed)
    picture = source.randbytes(source.randrange(1, 300))
    document = {
        "note": 'says "b64_json": "zz" and "b64_json":"',
        "data": [{"revised_prompt": '"b64_json":"', "b64_json": base64.b64encode(picture).decode()}],
        "usage": {"total_tokens": 1},
    }
    answer = json.dumps(document, indent=source.choice([None, 1])).encode()
    for piece in (1, 2, 3, 7, 100, len(answer)):
        assert read(answer, piece=piece) == picture


def test_the_first_of_several_pictures_is_given() -> None:
    data = [{"b64_json": base64.b64encode(text).decode()} for text in (b"first", b"second")]
    assert read(json.dumps({"data": data}).encode(), piece=5) == b"first"


@pytest.mark.parametrize("piece", [1, 5, 1000])
@pytest.mark.parametrize("b64_json", ["A", "AA", "AAA", "AA==AA==", "AA==AAAA", "A!AA", "AA=A", "AA\nAA", "AA\\/A"])
def test_bad_base64_is_refused(b64_json: str, piece: int) -> None:
    with pytest.raises(UpstreamAnswerException):
        read(answer_with(b64_json), piece=piece)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"<html>",
        b'{"data": []}',
        b'{"data": null}',
        b'{"data": [{}]}',
        b'{"data": [{"url": "http://x"}], "b64_json": "AAAA"}',
        b'{"data": [{"b64_json": "AAAA"}]',
        b'{"data": [{"b64_json": "AAAA',
        b'{"data": [{"b64_json": "AAAA"}]} more',
        b'{"data": [{"b64\\u005fjson": "AAAA"}]}',
    ],
)
def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    with pytest.raises(UpstreamAnswerException):
        read(answer, piece=3)


def test_a_picture_that_is_too_large_is_refused_before_it_is_whole() -> None:
    reader = AnswerReader(max_bytes=1000)
    reader.feed(b'{"data": [{"b64_json": "')
    with pytest.raises(PictureUnusableException):
        reader.feed(b"A" * 2000)


def test_a_flood_around_the_picture_is_refused_before_it_is_whole() -> None:
    reader = AnswerReader(max_bytes=1000)
    with pytest.raises(UpstreamAnswerException):
        reader.feed(b" " * (MOST_SKELETON_BYTES + 1))
