"""Write files so that they are either complete and durable, or absent."""

import contextlib
import errno
import os
import stat
import time
import uuid
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from pixyproxy.core.exceptions import ImageStorageException, PictureMissingException, StorageFullException

STAGING = ".incoming"
COPIED_BYTES = 1024 * 1024
STAGED_AGE_SECONDS = 3600
"""A write takes seconds, so an older staged file is abandoned."""


def keep_files_private() -> None:
    """Make new files and folders of this process private to its user, regardless of the inherited umask."""
    os.umask(0o077)


def is_open_to_others(path: Path) -> bool:
    """Return whether users outside its group may read or enter a file or folder. Raise ``OSError``."""
    return bool(path.stat().st_mode & stat.S_IRWXO)


def move_into(path: Path, source: Path, *, root: Path) -> None:
    """Move a durable file to a path below ``root``; readers see the complete file or none.

    Its new name is durable once its folder is synced; until then a power cut may restore the old one. A file on another
    file system is copied, durably. Idempotent. Raise the same exceptions as ``write_durably``, and
    ``PictureMissingException`` if the file is in neither place.
    """
    try:
        make_folder(path.parent)
        try:
            source.replace(path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Also raised for a missing file.
            _copy_into(path, source, root=root)
    except FileNotFoundError as error:
        if not path.is_file():
            raise PictureMissingException from error
    except OSError as error:
        raise as_storage_exception(error) from error


def write_durably(path: Path, pieces: Iterable[bytes], *, root: Path) -> None:
    """Write a file below ``root`` that survives a power cut once this returns.

    It is written under a temporary name in ``root/.incoming``, synced and renamed, and its folder is synced, so that
    readers see the complete file or none. Raise ``StorageFullException`` if no space is left, and
    ``ImageStorageException`` on any other error; neither leaves a partial file.
    """
    temporary = root / STAGING / uuid.uuid4().hex
    try:
        make_folder(temporary.parent)
        make_folder(path.parent)
        _write_and_sync(temporary, pieces)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise as_storage_exception(error) from error


def remove_durably(path: Path) -> None:
    """Remove a file, if it exists, so that it stays removed after a power cut."""
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise as_storage_exception(error) from error


def remove_staged(root: Path) -> None:
    """Remove the remains of interrupted writes below ``root``."""
    newest = time.time() - STAGED_AGE_SECONDS
    for left in (root / STAGING).glob("*"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < newest:
                left.unlink()


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, each durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_storage_exception(error: OSError) -> ImageStorageException:
    """Return the core exception for an error of the file system."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return StorageFullException() if full else ImageStorageException()


def _copy_into(path: Path, source: Path, *, root: Path) -> None:
    with source.open("rb") as file:
        write_durably(path, iter(partial(file.read, COPIED_BYTES), b""), root=root)
    source.unlink(missing_ok=True)


def _write_and_sync(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("xb", buffering=0) as file:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
        os.fsync(file.fileno())
