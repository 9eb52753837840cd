"""Parse an event stream (HTML Living Standard, section 9.2) as it arrives."""

from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

LONGEST_NAME = 256
"""The maximum bytes of an event's or a field's name; no known name is longer."""
LF, CR = b"\n", b"\r"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""A stream may start with one."""


class Part(Enum):
    """The kind of a piece of an event."""

    NAME = auto()
    """The whole value of ``event:``."""
    DATA = auto()
    """The next piece of the value of ``data:``, its lines joined by line feeds."""
    END = auto()
    """The empty line that ends an event."""


class EventPart(NamedTuple):
    """A piece of an event, in the order of the stream."""

    part: Part
    text: bytes = b""


class EventLines:
    """Splits a stream that arrives in pieces into the parts of its events, without holding a line of data.

    Ignores comments, other fields and invalid lines. Lines may end with LF, CR LF or CR.
    """

    def __init__(self) -> None:
        self._field: bytes | None = None
        """The name of the line's field, after its colon."""
        self._kept = bytearray()
        """The line up to its colon, or an event's name."""
        self._at_value = False
        self._has_data = False
        self._after_cr = False

    def split(self, piece: bytes) -> Iterator[EventPart]:
        """Yield the parts in the next piece of the stream, of any length."""
        start = 0
        while start < len(piece):
            if self._after_cr and piece.startswith(LF, start):
                self._after_cr = False
                start += 1
                continue
            end = _line_end(piece, start)
            self._after_cr = piece.startswith(CR, end)
            yield from self._read(piece[start:end])
            if end < len(piece):
                yield from self._end_line()
            start = end + 1

    def _read(self, text: bytes) -> Iterator[EventPart]:
        if self._field is None:
            self._kept += text
            name, colon, rest = self._kept.partition(b":")
            if not colon and len(name) <= LONGEST_NAME:
                return
            self._field, text = bytes(name).removeprefix(BYTE_ORDER_MARK), bytes(rest)
            self._kept.clear()
            self._at_value = True
            if self._field == b"data" and self._has_data:
                yield EventPart(Part.DATA, LF)
        if self._at_value and text:
            # One space after the colon is not part of the value.
            text = text.removeprefix(b" ")
            self._at_value = False
        if self._field == b"data" and text:
            yield EventPart(Part.DATA, text)
        elif self._field == b"event" and len(self._kept) <= LONGEST_NAME:
            self._kept += text[: LONGEST_NAME + 1]

    def _end_line(self) -> Iterator[EventPart]:
        if self._field == b"event":
            yield EventPart(Part.NAME, bytes(self._kept))
        elif self._field == b"data":
            self._has_data = True
        elif self._field is None and not self._kept:
            self._has_data = False
            yield EventPart(Part.END)
        self._field = None
        self._kept.clear()


def _line_end(piece: bytes, start: int) -> int:
    """Return where the line ends, or the length of the piece if it does not."""
    line_feed = piece.find(LF, start)
    end = len(piece) if line_feed < 0 else line_feed
    carriage_return = piece.find(CR, start, end)
    return end if carriage_return < 0 else carriage_return
