"""The spool: what was received and is not yet recorded, so that a paid picture survives whatever comes in between.

Each process has a folder of its own in it, and holds the lock of that for as long as it lives. A folder whose lock
nobody holds is a dead process's: whoever takes the lock finishes what is in there.
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
    """A whole answer of an upstream: all that a record needs beside the generation's row and the pictures' files."""

    generation: GenerationGuid
    upstream: str
    pictures: tuple[ReceivedPicture, ...]
    answer: UpstreamAnswer


@dataclass
class SpoolFile:
    """A file that is being written. Its methods block; they raise ``ImageStorageException``."""

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
        """Make what was written durable."""
        try:
            if self._file is not None:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise as_storage_exception(error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file, as it is."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def is_open(self) -> bool:
        """Whether the file has yet to be closed."""
        return self._file is not None

    @property
    def sha256(self) -> str:
        """The digest of all that was written, 64 hex digits."""
        digest: str = self._digest.hexdigest()
        return digest


@dataclass(frozen=True)
class SpoolFolder:
    """The folder of one process, living or dead; ``owner`` names it.

    ``told`` is what was logged of entries that cannot be read, by their paths.
    """

    path: Path
    told: dict[Path, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def owner(self) -> ProcessGuid:
        """The process that it belongs, or belonged, to."""
        return ProcessGuid(self.path.name)

    def picture(self, guid: GenerationGuid, index: int) -> Path:
        """Where a picture of a generation is received."""
        return self.path / f"{guid}.{index}.picture"

    def open_temporary(self) -> BinaryIO:
        """Return a file without a name, which is gone once it is closed. Blocks, and raises ``OSError``."""
        return tempfile.TemporaryFile(dir=self.path)

    def commit(self, entry: SpoolEntry) -> None:
        """Make an entry durable, whose pictures are; from then on it will be recorded. Blocks; raises as files do."""
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
        """The entries in here, and whether they are all: one that cannot be read now is left, and logged once."""
        return await run_in_thread(self._entries)

    async def remove(self, guid: GenerationGuid) -> None:
        """Remove an entry, and then the other files of its generation."""
        await run_in_thread(self.unlink, guid)

    def _entries(self) -> tuple[list[SpoolEntry], bool]:
        found, paths = [], list(self.path.glob(f"*{ENTRY}"))
        for path in paths:
            try:
                found.append(SpoolEntry.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError) as error:
                self._tell(path, error)
            else:
                self.told.pop(path, None)
        return found, len(found) == len(paths)

    def _tell(self, path: Path, error: Exception) -> None:
        """Log why an entry cannot be read, unless that was said of it as it is: recovery looks every few seconds."""
        state = str(error)
        with contextlib.suppress(OSError):
            state += f" {path.stat().st_mtime_ns}"
        if self.told.get(path) != state:
            self.told[path] = state
            logger.error("the spool's entry %s cannot be read", path.name, exc_info=error)

    def unlink(self, guid: GenerationGuid) -> None:
        """What ``remove`` does, for whoever is in a worker thread already. What cannot be removed stays."""
        with contextlib.suppress(OSError):
            (self.path / f"{guid}{ENTRY}").unlink(missing_ok=True)
            for name in os.listdir(self.path):  # noqa: PTH208  (a path of each of thousands takes ten times as long)
                if name.startswith(f"{guid}."):
                    (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Spool:
    """The spool of one process, and a way to those of dead ones on this machine."""

    folder: Path
    owner: ProcessGuid = field(default_factory=lambda: ProcessGuid(str(uuid.uuid4())))
    _lock: Lock = field(default_factory=Lock)
    _held: list[int] = field(default_factory=list)
    _opened: list[SpoolFolder] = field(default_factory=list)
    _seized: set[str] = field(default_factory=set)
    """The dead whose locks are held to finish what they left."""
    _told: dict[Path, str] = field(default_factory=dict)

    async def open(self) -> SpoolFolder:
        """Return this process's folder, made when first needed. Raises ``ImageStorageException``."""
        return self._opened[0] if self._opened else await run_in_thread(self._open)

    @property
    def own(self) -> SpoolFolder:
        """What ``open`` returns, for work that is in a thread already."""
        return self._opened[0] if self._opened else self._open()

    def _open(self) -> SpoolFolder:
        with self._lock:
            try:
                make_folder(self.folder)
                # The lock is taken before there is a folder, so that nobody can take it for a dead one's.
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
        """Whether a process runs on this machine."""
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
        """The folders of processes that are dead, held until exit, so that nobody else finishes them meanwhile."""
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
        return [SpoolFolder(self.folder / owner, self._told) for owner in dead]

    async def remove_folder(self, folder: SpoolFolder) -> None:
        """Remove a dead process's folder with all that is left in it, for its entries are finished."""
        await run_in_thread(self._remove_folder, folder)

    async def close(self) -> None:
        """Let go of this process's folder; it stays only where something is left in it."""
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
    """The descriptor that holds the lock of a new file, which whoever looks for the dead may just have removed."""
    while True:
        descriptor = _try_lock(path)
        if descriptor is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """The descriptor that holds the lock of a file, or None where somebody else does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
