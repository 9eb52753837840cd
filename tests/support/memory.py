"""Temporary files in memory: tests commit often, and each commit would wait for a disk, which may be busy."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import get_temp_dir
from pathlib import Path

_VARIABLE = "TMPDIR"
_MEMORY = Path("/dev/shm")  # noqa: S108  (the files go into a private folder there)
_ROOM_BYTES = 2 << 30
"""Several times the size of everything that all tests leave behind."""


@contextmanager
def temporary_files_in_memory() -> Iterator[None]:
    """Keep the temporary files of this process and its children in memory, and remove them afterwards.

    They stay on disk if TMPDIR is set, or if memory cannot hold files and programs.
    """
    if _VARIABLE in os.environ or not _is_of_use():
        yield
        return
    # Files that multiprocessing removes last, when this process ends, must be elsewhere.
    get_temp_dir()
    with (
        tempfile.TemporaryDirectory(prefix="pixyproxy-tests-", dir=_MEMORY, ignore_cleanup_errors=True) as folder,
        _removed_after_death(folder),
    ):
        os.environ[_VARIABLE] = folder
        # Discard the cached folder so that it is determined again.
        tempfile.tempdir = None
        try:
            yield
        finally:
            del os.environ[_VARIABLE]
            tempfile.tempdir = None


@contextmanager
def _removed_after_death(folder: str) -> Iterator[None]:
    """Start a shell that removes the folder when this process dies, in any way, so that no memory is leaked."""
    # The pipe closes only when this process dies or the block ends.
    command = ["/bin/sh", "-c", 'read -r _; rm -rf -- "$0"', folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True):
        yield


def _is_of_use() -> bool:
    """Return whether there is space and programs may run there: tests preload libraries and create environments."""
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize >= _ROOM_BYTES and not found.f_flag & (os.ST_NOEXEC | os.ST_RDONLY)
