"""Find the pictures in JSON of the Images API while it arrives.

Most of such a text is a picture: 2 MB of base64 for 1.5 MB of PNG. The base64 is passed on as it arrives, so neither
the JSON nor the base64 is ever complete in memory; the rest, the skeleton, is small and parsed at the end.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from pixyproxy.core.exceptions import UpstreamAnswerException

PICTURE_BEGINS = re.compile(
    rb'(?<!\\)"(?:b64_json"\s{0,16}:\s{0,16}"'
    rb'|url"\s{0,16}:\s{0,16}"(?=data:))'
)
"""A key with a picture as its string, at any depth: inside a string the quotes would be escaped.

A ``url`` that starts with ``data:`` holds the picture itself.
"""
LONGEST_BEGINNING = len(b'"b64_json":"') + 32
MOST_SKELETON_BYTES = 256 * 1024
PLACEHOLDER = "*"
"""Replaces a picture in the skeleton; it is not valid base64."""


class Base64Text(NamedTuple):
    """A piece of a picture's base64, unchanged; ``last`` if its closing quote was read."""

    text: bytes
    last: bool


class Base64Scanner:
    """Splits JSON into the pictures' strings, in pieces, and the skeleton around them.

    A ``PLACEHOLDER`` replaces each of those strings in the skeleton; an empty string is not a picture. The pieces keep
    their JSON escapes.
    """

    def __init__(self) -> None:
        self.skeleton = bytearray()
        self.pictures = 0
        """The number of complete pictures."""
        self.placeholder = PLACEHOLDER.encode()
        self._searched = 0
        self._inside = False
        self._has_begun = False

    def split(self, piece: bytes) -> Iterator[Base64Text]:
        """Yield the base64 in the next piece of the JSON. At each yield, the skeleton ends where that picture starts.

        Raise ``UpstreamAnswerException`` if the skeleton outgrows ``MOST_SKELETON_BYTES``; it then contains the whole
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
        """Add the JSON around the pictures to the skeleton; return the rest from the start of a picture."""
        before = len(self.skeleton)
        self.skeleton += piece
        begins = PICTURE_BEGINS.search(self.skeleton, max(self._searched, before - LONGEST_BEGINNING))
        length = len(self.skeleton) if begins is None else begins.end()
        if length > MOST_SKELETON_BYTES:
            raise UpstreamAnswerException
        self._inside = begins is not None
        # A picture recognized by ``data:`` may have started in an earlier piece.
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
