"""Writing files so that they are either whole and durable, or not there."""

import contextlib
import errno
import os
import time
import uuid
from pathlib import Path

from pixyproxy.core.exceptions import ImageStorageException, StorageFullException

STAGING = ".incoming"
STAGED_AGE_SECONDS = 3600
"""A write takes seconds at the most, so that an older staged file belongs to no one."""


def write_durably(path: Path, content: bytes, *, root: Path) -> None:
    """Write a file below ``root`` that survives a power cut once this returns.

    Written under a temporary name in ``root/.incoming``, synced, renamed, and its folder synced, so that a
    reader sees the whole file or none. Raises ``StorageFullException`` when no room is left, and
    ``ImageStorageException`` on any other error; neither leaves a part of a file behind.
    """
    temporary = root / STAGING / uuid.uuid4().hex
    try:
        _make_folder(temporary.parent)
        _make_folder(path.parent)
        _write_and_sync(temporary, content)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise as_storage_exception(error) from error


def remove_durably(path: Path) -> None:
    """Remove a file, if it is there, so that it stays away after a power cut."""
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise as_storage_exception(error) from error


def remove_staged(root: Path) -> None:
    """Remove what writes that died have left below ``root``."""
    newest = time.time() - STAGED_AGE_SECONDS
    for left in (root / STAGING).glob("*"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < newest:
                left.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_storage_exception(error: OSError) -> ImageStorageException:
    """The core exception for an error of the file system."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return StorageFullException() if full else ImageStorageException()


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each durable in the one above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _write_and_sync(path: Path, content: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())
