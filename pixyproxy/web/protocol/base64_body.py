"""Pictures in base64 as they are sent, so that no file is ever whole in memory."""

from collections.abc import AsyncGenerator, Sequence
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


async def base64_pieces(picture: bytes | Path) -> AsyncGenerator[bytes, None]:
    """A picture or a file in base64, piece by piece. Raises ``FileNotFoundError``."""
    if isinstance(picture, bytes):
        yield pybase64.b64encode(picture)
        return
    # Whoever is cancelled while the thread opens it would never get to see the file, nor close it.
    with ExitStack() as held:
        file, piece, is_last = await run_in_thread(_open, picture, held)
        yield piece
        while not is_last:
            piece, is_last = await run_in_thread(_encode_next, file)
            yield piece


async def with_pictures(parts: Sequence[bytes], pictures: Sequence[bytes | Path]) -> AsyncGenerator[bytes, None]:
    """The parts of an answer with a picture in base64 between each two of them, in as few pieces as there can be."""
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
    """The next piece, and whether it is the last one."""
    content = file.read(PIECE_BYTES)
    return pybase64.b64encode(content), len(content) < PIECE_BYTES
