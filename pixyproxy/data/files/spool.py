"""The spool: received pictures and answers that are not recorded yet, so that a paid picture survives any failure.

Each process has its own folder in it and holds the folder's lock while it runs. A folder whose lock is free belongs to
a dead process: another process takes the lock and completes the folder's entries.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from pydantic import ValidationError

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.generation import GenerationGuid, ProcessGuid
from pixyproxy.core.models.order import ReceivedPicture, UpstreamAnswer
from pixyproxy.data.files.durable import as_storage_exception, make_folder, sync_folder
from pixyproxy.data.threads import run_in_thread

logger = logging.getLogger(__name__)

LOCK = ".lock"
ENTRY = ".json"


class SpoolEntry(FrozenModel):
    """A complete answer of an upstream: everything that the record needs besides the generation's row and the files."""

    generation: GenerationGuid
    upstream: str
    pictures: tuple[ReceivedPicture, ...]
    answer: UpstreamAnswer


@dataclass
class SpoolFile:
    """A file being written. Its methods block and raise ``ImageStorageException``."""

    path: Path
    byte_size: int = 0
    _digest: Any = field(default_factory=hashlib.sha256)
    _file: BinaryIO | None = None

    def write(self, content: bytes) -> None:
        """Append to the file."""
        try:
            if self._file is None:
                self._file = self.path.open("wb", buffering=0)
            view = memoryview(content)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self.close()
            raise as_storage_exception(error) from error
        self.byte_size += len(content)
        self._digest.update(content)

    def finish(self) -> None:
        """Make the written data durable."""
        try:
            if self._file is not None:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise as_storage_exception(error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Close the file in its current state."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._file is not None

    @property
    def sha256(self) -> str:
        """The digest of all data written, 64 hex digits."""
        digest: str = self._digest.hexdigest()
        return digest


@dataclass(frozen=True)
class SpoolFolder:
    """The folder of one process, running or dead; ``owner`` identifies it.

    ``logged`` maps paths of unreadable entries to the errors already logged.
    """

    path: Path
    logged: dict[Path, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def owner(self) -> ProcessGuid:
        """The process that owns or owned the folder."""
        return ProcessGuid(self.path.name)

    def picture(self, guid: GenerationGuid, index: int) -> Path:
        """Return the path where a picture of a generation is received."""
        return self.path / f"{guid}.{index}.picture"

    def open_temporary(self) -> BinaryIO:
        """Return a file without a name, deleted when closed. Blocks. Raise ``OSError``."""
        return tempfile.TemporaryFile(dir=self.path)

    def commit(self, entry: SpoolEntry) -> None:
        """Make an entry durable, whose pictures already are, so that it will be recorded. Blocks.

        Raise ``ImageStorageException``.
        """
        path = self.path / f"{entry.generation}{ENTRY}"
        staged = SpoolFile(path.with_suffix(".staged"))
        staged.write(entry.model_dump_json().encode())
        staged.finish()
        try:
            staged.path.replace(path)
            sync_folder(self.path)
        except OSError as error:
            raise as_storage_exception(error) from error

    async def entries(self) -> tuple[list[SpoolEntry], bool]:
        """Return the readable entries, and whether these are all; an unreadable one is skipped and logged once."""
        return await run_in_thread(self._entries)

    async def remove(self, guid: GenerationGuid) -> None:
        """Remove an entry, then the other files of its generation."""
        await run_in_thread(self.unlink, guid)

    def _entries(self) -> tuple[list[SpoolEntry], bool]:
        found, paths = [], list(self.path.glob(f"*{ENTRY}"))
        for path in paths:
            try:
                found.append(SpoolEntry.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError) as error:
                self._tell(path, error)
            else:
                self.logged.pop(path, None)
        return found, len(found) == len(paths)

    def _tell(self, path: Path, error: Exception) -> None:
        """Log why an entry cannot be read, unless this state was already logged: recovery runs every few seconds."""
        state = str(error)
        with contextlib.suppress(OSError):
            state += f" {path.stat().st_mtime_ns}"
        if self.logged.get(path) != state:
            self.logged[path] = state
            logger.error("cannot read the spool entry %s", path.name, exc_info=error)

    def unlink(self, guid: GenerationGuid) -> None:
        """Remove an entry as ``remove`` does, from a worker thread. Files that cannot be removed remain."""
        with contextlib.suppress(OSError):
            (self.path / f"{guid}{ENTRY}").unlink(missing_ok=True)
            for name in os.listdir(self.path):  # noqa: PTH208  (creating thousands of paths takes ten times as long)
                if name.startswith(f"{guid}."):
                    (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Spool:
    """The spool of one process, with access to those of dead processes on this machine."""

    folder: Path
    owner: ProcessGuid = field(default_factory=lambda: ProcessGuid(str(uuid.uuid4())))
    _lock: Lock = field(default_factory=Lock)
    _held: list[int] = field(default_factory=list)
    _opened: list[SpoolFolder] = field(default_factory=list)
    _seized: set[str] = field(default_factory=set)
    """Dead processes whose locks are held to complete their entries."""
    _logged: dict[Path, str] = field(default_factory=dict)

    async def open(self) -> SpoolFolder:
        """Return this process's folder, created when first needed. Raise ``ImageStorageException``."""
        return self._opened[0] if self._opened else await run_in_thread(self._open)

    @property
    def own(self) -> SpoolFolder:
        """The result of ``open``, for use in a worker thread."""
        return self._opened[0] if self._opened else self._open()

    def _open(self) -> SpoolFolder:
        with self._lock:
            try:
                make_folder(self.folder)
                # The lock is taken before the folder exists, so that no process can take it for a dead one's.
                if not self._held:
                    self._held.append(_hold_lock(self._lock_of(self.owner)))
                make_folder(self.folder / self.owner)
            except OSError as error:
                raise as_storage_exception(error) from error
            self._opened[:] = [SpoolFolder(self.folder / self.owner)]
            return self._opened[0]

    @property
    def is_held(self) -> bool:
        """Whether this process has a folder."""
        return bool(self._held)

    async def is_alive(self, owner: ProcessGuid) -> bool:
        """Return whether a process is running on this machine."""
        return await run_in_thread(self._is_alive, owner)

    def _is_alive(self, owner: ProcessGuid) -> bool:
        path = self._lock_of(owner)
        if owner == self.owner or owner in self._seized or not path.exists():
            return owner == self.owner
        descriptor = _try_lock(path)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    @contextlib.asynccontextmanager
    async def dead_folders(self) -> AsyncIterator[list[SpoolFolder]]:
        """Return the folders of dead processes, locked until exit so that no other process completes them meanwhile."""
        held = contextlib.ExitStack()
        try:
            yield await run_in_thread(self._seize_dead, held)
        finally:
            await run_in_thread(held.close)

    def _seize_dead(self, held: contextlib.ExitStack) -> list[SpoolFolder]:
        owners = [path.stem for path in sorted(self.folder.glob(f"*{LOCK}"))]
        dead = [owner for owner in owners if owner != self.owner and self._seize(owner, held)]
        self._seized.update(dead)
        held.callback(self._seized.clear)
        return [SpoolFolder(self.folder / owner, self._logged) for owner in dead]

    async def remove_folder(self, folder: SpoolFolder) -> None:
        """Remove a dead process's folder and its remaining files, after its entries are completed."""
        await run_in_thread(self._remove_folder, folder)

    async def close(self) -> None:
        """Release this process's folder, and delete it if it is empty."""
        await run_in_thread(self._close)

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            (self.folder / self.owner).rmdir()
            self._lock_of(self.owner).unlink()
        while self._held:
            os.close(self._held.pop())

    def _remove_folder(self, folder: SpoolFolder) -> None:
        with contextlib.suppress(OSError):
            if folder.path.is_dir():
                shutil.rmtree(folder.path)
            self._lock_of(folder.owner).unlink(missing_ok=True)

    def _seize(self, owner: str, held: contextlib.ExitStack) -> bool:
        descriptor = _try_lock(self._lock_of(owner))
        if descriptor is not None:
            held.callback(os.close, descriptor)
        return descriptor is not None

    def _lock_of(self, owner: str) -> Path:
        return self.folder / f"{owner}{LOCK}"


def _hold_lock(path: Path) -> int:
    """Return the descriptor that holds the lock of a new file; retry if a clean-up removed the file meanwhile."""
    while True:
        descriptor = _try_lock(path)
        if descriptor is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """Return the descriptor that holds a file's lock, or None if another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
