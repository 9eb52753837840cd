"""Finding the pictures in JSON of the Images API while it arrives.

A picture is most of such a text: 2 MB of base64 for 1.5 MB of PNG. The base64 is given on as it comes, so neither the
JSON nor the base64 is ever whole in memory; what is left, the skeleton, is small, and parsed in the end.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from pixyproxy.core.exceptions import UpstreamAnswerException

PICTURE_BEGINS = re.compile(rb'(?<!\\)"b64_json"\s{0,16}:\s{0,16}"')
"""Unescaped quotes make this a key with a string behind it, wherever it stands: in a string they would be escaped."""
LONGEST_BEGINNING = len(b'"b64_json":"') + 32
MOST_SKELETON_BYTES = 256 * 1024


class Base64Text(NamedTuple):
    """A piece of a picture's base64, as it came; ``last`` if the quote that ends it came too."""

    text: bytes
    last: bool


class Base64Scanner:
    """Splits JSON into the strings under ``b64_json``, given in pieces, and the skeleton around them.

    In the skeleton those strings are empty. A JSON escape in one of them stays in it, to be refused with the base64:
    none of its characters needs one.
    """

    def __init__(self) -> None:
        self.skeleton = bytearray()
        self.pictures = 0
        """The strings that have ended."""
        self._searched = 0
        self._inside = False

    def split(self, piece: bytes) -> Iterator[Base64Text]:
        """The base64 in the next piece of the JSON. While one is looked at, the skeleton is what stands in front of it.

        Raises ``UpstreamAnswerException`` if the skeleton outgrows ``MOST_SKELETON_BYTES``.
        """
        rest = piece
        while rest:
            if not self._inside:
                rest = self._read_skeleton(rest)
                continue
            text, quote, rest = rest.partition(b'"')
            if quote:
                self._end_picture()
            yield Base64Text(text, last=bool(quote))

    def _read_skeleton(self, piece: bytes) -> bytes:
        """Take what stands around the pictures, up to where one begins; what is behind that is given back."""
        before = len(self.skeleton)
        self.skeleton += piece
        begins = PICTURE_BEGINS.search(self.skeleton, max(self._searched, before - LONGEST_BEGINNING))
        if begins is not None:
            del self.skeleton[begins.end() :]
            self._inside = True
        if len(self.skeleton) > MOST_SKELETON_BYTES:
            raise UpstreamAnswerException
        return piece[len(self.skeleton) - before :] if begins else b""

    def _end_picture(self) -> None:
        self.skeleton += b'"'
        self._searched = len(self.skeleton)
        self._inside = False
        self.pictures += 1
