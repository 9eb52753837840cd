"""Temporary files in memory: tests commit all the time, and each commit waits for a disk, which may be busy."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import get_temp_dir
from pathlib import Path

_VARIABLE = "TMPDIR"
_MEMORY = Path("/dev/shm")  # noqa: S108  (a folder of our own is made there)
_ROOM_BYTES = 2 << 30
"""Several times what all tests leave behind."""


@contextmanager
def temporary_files_in_memory() -> Iterator[None]:
    """Keep the temporary files of this process, and of those that it starts, in memory, and remove them in the end.

    They stay where they are if TMPDIR says where that is, or where memory is no place for files and programs.
    """
    if _VARIABLE in os.environ or not _is_of_use():
        yield
        return
    # What multiprocessing removes when this process ends, later than all else, has to be elsewhere.
    get_temp_dir()
    with (
        tempfile.TemporaryDirectory(prefix="pixyproxy-tests-", dir=_MEMORY, ignore_cleanup_errors=True) as folder,
        _removed_after_death(folder),
    ):
        os.environ[_VARIABLE] = folder
        # What it was found to be before is found anew.
        tempfile.tempdir = None
        try:
            yield
        finally:
            del os.environ[_VARIABLE]
            tempfile.tempdir = None


@contextmanager
def _removed_after_death(folder: str) -> Iterator[None]:
    """Let a shell remove the folder when this process dies, however it does: memory is not to be lost for good."""
    # Only our death, or the end of the block, closes the pipe that it reads.
    command = ["/bin/sh", "-c", 'read -r _; rm -rf -- "$0"', folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True):
        yield


def _is_of_use() -> bool:
    """Whether there is room, and programs may be run from there: tests preload libraries and make environments."""
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize >= _ROOM_BYTES and not found.f_flag & (os.ST_NOEXEC | os.ST_RDONLY)
