"""How long this process keeps memory that it has freed; glibc alone, elsewhere nothing is done."""

import asyncio
import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of mallopt(3)."""
MEBIBYTE = 1024 * 1024
KEPT_BYTES = 16 * MEBIBYTE
LARGE_BYTES = 4 * MEBIBYTE
KEPT_SECONDS = 5.0
"""Giving back takes a millisecond, and tens of them after a rush, in which nobody else gets memory."""


def keep_freed_memory() -> None:
    """Have freed memory kept for what comes next, in one place for all threads, but for blocks of 4 MB and more.

    Each read from a socket needs a buffer of 256 KB, and a picture several of 1.5 MB, which glibc would take from the
    system, page by page, and give back at once: of the time that it takes to receive a picture that is half.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(M_ARENA_MAX, 1)
        library.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


async def give_back_memory_forever() -> None:
    """Give back what is free every few seconds, so that a rush of large pictures does not stay for good."""
    library = _glibc()
    while library is not None:
        await asyncio.sleep(KEPT_SECONDS)
        await asyncio.to_thread(library.malloc_trim, 0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if library is not None and hasattr(library, "malloc_trim") else None
