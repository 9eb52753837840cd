"""Stream pictures as base64, so that no file is ever fully in memory."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pybase64

from pixyproxy.data.threads import run_in_thread

PIECE_BYTES = 3 * 128 * 1024
"""Read from a file at a time; a multiple of base64's groups, so that only the last piece has padding."""


def base64_length(byte_size: int) -> int:
    """Return the length of so many bytes in base64."""
    return (byte_size + 2) // 3 * 4


async def base64_pieces(picture: bytes | Path) -> AsyncGenerator[bytes, None]:
    """Yield a picture or file in base64, piece by piece. Raise ``FileNotFoundError``."""
    if isinstance(picture, bytes):
        yield pybase64.b64encode(picture)
        return
    # If this is cancelled while the thread opens the file, only the stack can close it.
    with ExitStack() as held:
        file, piece, is_last = await run_in_thread(_open, picture, held)
        yield piece
        while not is_last:
            piece, is_last = await run_in_thread(_encode_next, file)
            yield piece


async def with_pictures(parts: Sequence[bytes], pictures: Sequence[bytes | Path]) -> AsyncGenerator[bytes, None]:
    """Yield the parts of a response with a picture in base64 between them, in as few pieces as possible."""
    pending = parts[0]
    for picture, part in zip(pictures, parts[1:], strict=True):
        async for piece in base64_pieces(picture):
            yield pending + piece
            pending = b""
        pending += part
    yield pending


def _open(path: Path, held: ExitStack) -> tuple[BinaryIO, bytes, bool]:
    file = held.enter_context(path.open("rb"))
    return file, *_encode_next(file)


def _encode_next(file: BinaryIO) -> tuple[bytes, bool]:
    """Return the next piece, and whether it is the last."""
    content = file.read(PIECE_BYTES)
    return pybase64.b64encode(content), len(content) < PIECE_BYTES
