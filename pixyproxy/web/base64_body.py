"""Pictures in base64 as they are sent, so that no picture is ever whole in memory."""

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pybase64

from pixyproxy.data.threads import run_in_thread

PIECE_BYTES = 3 * 128 * 1024
"""Of a file at a time; whole groups of base64, so that only the last piece has padding."""


def base64_length(byte_size: int) -> int:
    """How long so many bytes are in base64."""
    return (byte_size + 2) // 3 * 4


async def base64_pieces(path: Path) -> AsyncIterator[bytes]:
    """A file in base64, piece by piece. Raises ``FileNotFoundError``."""
    # Whoever is cancelled while the thread opens it would never get to see the file, nor close it.
    with ExitStack() as held:
        file, piece, is_last = await run_in_thread(_open, path, held)
        yield piece
        while not is_last:
            piece, is_last = await run_in_thread(_encode_next, file)
            yield piece


def _open(path: Path, held: ExitStack) -> tuple[BinaryIO, bytes, bool]:
    file = held.enter_context(path.open("rb"))
    return file, *_encode_next(file)


def _encode_next(file: BinaryIO) -> tuple[bytes, bool]:
    """The next piece, and whether it is the last one.

    Whoever has the picture in an answer will not look at its URL at once, so its pages are given back for the next
    picture to be written to. A page that is new to the process costs more than what is written to it: 0.6 ms in place
    of 5 for a picture of 1.5 MB, on a virtual machine that gives free memory back to its host.
    """
    content = file.read(PIECE_BYTES)
    is_last = len(content) < PIECE_BYTES
    if is_last and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return pybase64.b64encode(content), is_last
