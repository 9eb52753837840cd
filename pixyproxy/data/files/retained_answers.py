"""Retained answers: paid answers of upstreams that cannot be stored as pictures, until an operator decides."""

import contextlib
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from pixyproxy.core.exceptions import StorageFullException
from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.data.files.durable import as_storage_exception, make_folder, sync_folder
from pixyproxy.data.files.spool import SpoolFile

FOLDER = "kept"
"""In the spool, next to the folders of processes, because a retained answer outlives its process."""
ENDING = ".answer"
MOST_BYTES = 1024 * 1024 * 1024
"""The most bytes of all retained answers on one machine."""


@dataclass(frozen=True)
class RetainedAnswer:
    """The files of one generation's retained answer."""

    guid: GenerationGuid
    paths: tuple[Path, ...]
    byte_size: int


@dataclass(frozen=True)
class RetainedAnswers:
    """The folder of retained answers, shared by all processes of this machine. The methods block.

    ``GUID.answer`` is the unchanged answer. If a part of its picture was decoded before it proved unusable, that part
    is ``GUID.0.picture``.
    """

    folder: Path
    most_bytes: int = MOST_BYTES

    def begin(self, guid: GenerationGuid) -> SpoolFile:
        """Return a new file for an answer. Raise ``ImageStorageException``, also if the limit is reached."""
        if sum(kept.byte_size for kept in self.list_all()) >= self.most_bytes:
            raise StorageFullException
        try:
            make_folder(self.folder)
        except OSError as error:
            raise as_storage_exception(error) from error
        return SpoolFile(self.folder / f"{guid}{ENDING}")

    def commit(self, file: SpoolFile, *, pictures: list[Path]) -> None:
        """Make an answer durable, and move the decoded parts of its pictures to it.

        Raise ``ImageStorageException``.
        """
        file.finish()
        try:
            for path in pictures:
                _sync_file(path)
                path.replace(self.folder / path.name)
            sync_folder(self.folder)
        except OSError as error:
            raise as_storage_exception(error) from error

    def list_all(self) -> list[RetainedAnswer]:
        """Return the retained answers, sorted by GUID."""
        paths = defaultdict(list)
        for path in sorted(self.folder.glob("*")):
            paths[GenerationGuid(path.name.partition(".")[0])].append(path)
        return [RetainedAnswer(guid, tuple(files), sum(map(_size, files))) for guid, files in paths.items()]

    def remove(self, kept: RetainedAnswer) -> None:
        """Remove an answer; files that cannot be removed remain."""
        with contextlib.suppress(OSError):
            for path in kept.paths:
                path.unlink(missing_ok=True)
            sync_folder(self.folder)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
