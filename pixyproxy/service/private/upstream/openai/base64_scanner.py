"""Finding the pictures in JSON of the Images API while it arrives.

A picture is most of such a text: 2 MB of base64 for 1.5 MB of PNG. The base64 is given on as it comes, so neither the
JSON nor the base64 is ever whole in memory; what is left, the skeleton, is small, and parsed in the end.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from pixyproxy.core.exceptions import UpstreamAnswerException

PICTURE_BEGINS = re.compile(
    rb'(?<!\\)"(?:b64_json"\s{0,16}:\s{0,16}"'
    rb'|url"\s{0,16}:\s{0,16}"(?=data:))'
)
"""A key with a picture as its string, wherever it stands: the quotes would be escaped inside of a string.

A ``url`` that begins with ``data:`` holds the picture itself.
"""
LONGEST_BEGINNING = len(b'"b64_json":"') + 32
MOST_SKELETON_BYTES = 256 * 1024
PLACEHOLDER = "*"
"""Stands in the skeleton for a picture that was cut out of it; it is not base64."""


class Base64Text(NamedTuple):
    """A piece of a picture's base64, as it came; ``last`` if the quote that ends it came too."""

    text: bytes
    last: bool


class Base64Scanner:
    """Splits JSON into the pictures' strings, given in pieces, and the skeleton around them.

    In the skeleton a ``PLACEHOLDER`` replaces each of those strings; an empty string is no picture. JSON escapes stay
    in the pieces as they came.
    """

    def __init__(self) -> None:
        self.skeleton = bytearray()
        self.pictures = 0
        """The pictures that have ended."""
        self.placeholder = PLACEHOLDER.encode()
        self._searched = 0
        self._inside = False
        self._has_begun = False

    def split(self, piece: bytes) -> Iterator[Base64Text]:
        """Yield the base64 in the next piece of the JSON. At each yield, the skeleton ends where that picture begins.

        Raises ``UpstreamAnswerException`` if the skeleton outgrows ``MOST_SKELETON_BYTES``; it then has all of the
        piece.
        """
        rest = piece
        while rest:
            if not self._inside:
                rest = self._read_skeleton(rest)
                continue
            text, quote, rest = rest.partition(b'"')
            if text or self._has_begun:
                self._has_begun = True
                yield Base64Text(text, last=bool(quote))
            if quote:
                self._end_picture()

    def _read_skeleton(self, piece: bytes) -> bytes:
        """Add the JSON around the pictures to the skeleton; return what came from where a picture begins."""
        before = len(self.skeleton)
        self.skeleton += piece
        begins = PICTURE_BEGINS.search(self.skeleton, max(self._searched, before - LONGEST_BEGINNING))
        length = len(self.skeleton) if begins is None else begins.end()
        if length > MOST_SKELETON_BYTES:
            raise UpstreamAnswerException
        self._inside = begins is not None
        # Of a picture that ``data:`` gave away, some may have come with an earlier piece.
        rest = piece[length - before :] if length >= before else bytes(self.skeleton[length:])
        del self.skeleton[length:]
        return rest

    def _end_picture(self) -> None:
        if self._has_begun:
            self.skeleton += self.placeholder
            self.pictures += 1
        self.skeleton += b'"'
        self._searched = len(self.skeleton)
        self._inside = self._has_begun = False
