"""base64url and JSON, read so strictly that every reader understands the same by them.

What Python's own readers take besides (stray characters, duplicate members, infinity, lone surrogates, nesting without
end) is where forged tokens hide.
"""

import base64
import json
import math
import re
from typing import Any

MAX_DEPTH = 8
MARKS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)
"""A string of JSON, so that what is in it does not count, or a bracket. It never goes back, so it is linear."""


def encode_base64url(content: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def decode_base64url(text: str) -> bytes:
    """The bytes behind the one text that stands for them. Raises ``ValueError`` on any other text."""
    content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    _require(encode_base64url(content) == text, "no canonical base64url")
    return content


def read_json_object(content: bytes) -> dict[str, Any]:
    """An object of JSON in UTF-8, at most ``MAX_DEPTH`` deep, its numbers finite. Raises ``ValueError``."""
    text = content.decode()
    _require_shallow(text)
    members = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
    _require(isinstance(members, dict), "no JSON object")
    if "\\u" in text:
        # An escaped lone surrogate is a string that neither a database nor a log can hold.
        json.dumps(members, ensure_ascii=False).encode()
    return dict(members)


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001  (reads as a sentence)
    if not holds:
        raise ValueError(otherwise)


def _require_shallow(text: str) -> None:
    """Refuse what nests deeply before a parser recurses into it."""
    depth = 0
    for mark in MARKS.findall(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark, 0)
        _require(depth <= MAX_DEPTH, "JSON that nests too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    _require(len(members) == len(pairs), "a JSON object with duplicate members")
    return members


def _finite(text: str) -> float:
    number = float(text)
    _require(math.isfinite(number), "a number that is not finite")
    return number
