"""Strict reading of base64url and JSON."""

import base64
import json
import random
from itertools import product

import pytest

from pixyproxy.service.private.identity.oauth.encodings import (
    MAX_DEPTH,
    decode_base64url,
    encode_base64url,
    read_json_object,
)


@pytest.mark.parametrize("length", range(9))
def test_base64url_round_trips(length: int) -> None:
    content = random.Random(length).randbytes(length)
    assert decode_base64url(encode_base64url(content)) == content


@pytest.mark.parametrize(
    "text",
    ["A", "AB", "AAAAA", "AA==", "AAA=", " AAAA", "AA AA", "AAAA\n", "AA+A", "AA/A", "AA*A", "ÄAAA", "\ud800AAA"],
)
def test_noncanonical_base64url_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_base64url(text)


def test_only_canonical_texts_of_three_characters_decode() -> None:
    alphabet = "AQgw19-_+/="
    contents = {text: _decoded(text) for text in map("".join, product(alphabet, repeat=3))}
    encoded = {
        text: base64.urlsafe_b64encode(content).rstrip(b"=").decode() for text, content in contents.items() if content
    }
    # Eight of the characters are digits, and in four of them the bits that two bytes leave over are zero.
    assert len(encoded) == 8 * 8 * 4
    assert [text for text, again in encoded.items() if again != text] == []


def _decoded(text: str) -> bytes | None:
    try:
        return decode_base64url(text)
    except ValueError:
        return None


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"a": [1, 2.5, -0.0, None, True, "b"], "c": {"d": {}}},
        {"brackets in a text": '[[[[[[[[[["{{{{{{{{{{\\'},
        {'[[[[[[[[[["': 1},
        {"emoji": "😀 and \u2028"},
    ],
    ids=repr,
)
def test_json_object_round_trips(members: dict[str, object]) -> None:
    assert read_json_object(json.dumps(members).encode()) == members
    assert read_json_object(json.dumps(members, ensure_ascii=False).encode()) == members


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def test_json_deeper_than_the_limit_is_rejected() -> None:
    assert read_json_object(nested(MAX_DEPTH))
    with pytest.raises(ValueError, match="too deeply"):
        read_json_object(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"1",
        b'"a"',
        b"[]",
        b"{",
        b"{}{}",
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e400}',
        b'{"a":-1e400}',
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":"' + b'\\"' * 100_000,
        b'"' * 100_001,
    ],
    ids=lambda content: content[:20].decode("ascii", "replace").encode("ascii", "replace").decode(),
)
def test_ambiguous_json_is_rejected(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_json_object(content)
