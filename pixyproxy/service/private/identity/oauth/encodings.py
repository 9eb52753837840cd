"""Strict base64url and JSON: only input that every parser reads alike.

Python's own parsers also accept stray characters, duplicate members, infinity, lone surrogates and unlimited nesting,
which forged tokens exploit.
"""

import base64
import json
import math
import re
from typing import Any

MAX_DEPTH = 8
MARKS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)
"""Matches a whole JSON string, so that brackets in it do not count, or a bracket. Possessive, so it runs in O(n)."""


def encode_base64url(content: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def decode_base64url(text: str) -> bytes:
    """Return the decoded bytes. Raises ``ValueError`` if the text is not canonical base64url without padding."""
    content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    _require(encode_base64url(content) == text, "not canonical base64url")
    return content


def read_json_object(content: bytes) -> dict[str, Any]:
    """Return a JSON object from UTF-8: at most ``MAX_DEPTH`` deep, finite numbers. Raises ``ValueError``."""
    text = content.decode()
    _require_shallow(text)
    members = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
    _require(isinstance(members, dict), "not a JSON object")
    if "\\u" in text:
        # Neither databases nor logs can store an escaped lone surrogate.
        json.dumps(members, ensure_ascii=False).encode()
    return dict(members)


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001  (reads as a sentence)
    if not holds:
        raise ValueError(otherwise)


def _require_shallow(text: str) -> None:
    """Reject deep nesting before a parser recurses into it."""
    depth = 0
    for mark in MARKS.findall(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark, 0)
        _require(depth <= MAX_DEPTH, "JSON nested too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    _require(len(members) == len(pairs), "a JSON object with duplicate members")
    return members


def _finite(text: str) -> float:
    number = float(text)
    _require(math.isfinite(number), "a number that is not finite")
    return number
