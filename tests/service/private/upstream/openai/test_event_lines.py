"""Parsing an event stream gives the same events for any pieces and line ends."""

import random

import pytest

from pixyproxy.service.private.upstream.openai.event_lines import LONGEST_NAME, EventLines, Part
from tests.service.private.upstream.openai.sinks import cut_anywhere

LINES = (
    "event: first",
    "data: a",
    "data:b",
    "data:  c",
    "",
    ": a comment",
    "",
    "id: 7",
    "retry: 10",
    "event:",
    "data",
    "data:",
    "nonsense without a colon",
    "dat: x",
    "event: second",
    "data: x:y",
    "",
    "",
    "data: [DONE]",
    "",
)
EVENTS = [("first", "a\nb\n c"), ("", ""), ("second", "\nx:y"), ("", ""), ("", "[DONE]")]


def events_in(pieces: list[bytes]) -> list[tuple[str, str]]:
    """Return the names and data of the events."""
    lines, events = EventLines(), []
    name, data = b"", b""
    for piece in pieces:
        for part, text in lines.split(piece):
            if part is Part.NAME:
                name = text
            elif part is Part.DATA:
                data += text
            else:
                events.append((name.decode(), data.decode()))
                name, data = b"", b""
    return events


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("seed", range(20))
def test_events_do_not_depend_on_the_pieces(seed: int, line_end: bytes) -> None:
    stream = b"".join(line.encode() + line_end for line in LINES)
    assert events_in(list(cut_anywhere(stream, random.Random(seed)))) == EVENTS
    assert events_in([stream]) == EVENTS


def test_line_ends_may_be_mixed() -> None:
    assert events_in([b"data: a\rdata: b\r\ndata: c\n\r\n"]) == [("", "a\nb\nc")]


def test_byte_order_mark_is_ignored() -> None:
    assert events_in([b"\xef\xbb", b"\xbfevent: first\n\n"]) == [("first", "")]


def test_long_name_is_truncated() -> None:
    field, name = b"f" * 100_000, b"n" * 100_000
    ((kept, data),) = events_in([field, field + b": x\n", b"event: ", name, name, b"\ndata: y\n\n"])
    assert LONGEST_NAME < len(kept) <= 3 * LONGEST_NAME
    assert data == "y"


def test_data_is_passed_on_as_it_arrives() -> None:
    lines = EventLines()
    assert [list(lines.split(piece)) for piece in (b"data: ", b"one", b"two")] == [
        [],
        [(Part.DATA, b"one")],
        [(Part.DATA, b"two")],
    ]
