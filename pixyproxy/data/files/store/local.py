"""The picture store in a local folder."""

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pixyproxy.core.exceptions import ImageStorageException, PictureMissingException
from pixyproxy.core.models.image import ImageGuid, MediaType
from pixyproxy.data.files.durable import as_storage_exception, move_into, remove_durably, remove_staged, sync_folder
from pixyproxy.data.files.store.order_files import OrderFiles
from pixyproxy.data.files.store.recent import RecentPictures
from pixyproxy.data.threads import run_in_thread

ORDERS = ".orders"
CHECK_SECONDS = 2
"""How long a disk may take to respond."""
EXTENSIONS: dict[MediaType, str] = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
}


@dataclass
class LocalStore:
    """Pictures as ``folder/abc/<guid>.<extension>``; 4,096 subfolders keep each one small.

    A name consists of a server-generated GUID and a known extension; it contains nothing sent by a client.
    """

    folder: Path
    room_bytes: int
    """The space that must be free before a picture is bought: the size of the largest accepted one."""
    recent: RecentPictures = field(default_factory=RecentPictures)
    _check: asyncio.Future[None] | None = None
    """The last check that a picture can be written, finished or running."""

    @property
    def orders(self) -> OrderFiles:
        """The files that orders need until they are finished."""
        return OrderFiles(self.folder / ORDERS)

    def adopt(self, source: Path, guid: ImageGuid, media_type: MediaType) -> None:
        """Move the durable file of a picture into the store; its name here is durable after ``sync``. Blocks.

        Idempotent. Raise ``ImageStorageException``.
        """
        move_into(self.path(guid, media_type), source, root=self.folder)

    def sync(self, guids: Iterable[ImageGuid]) -> None:
        """Make the names of pictures durable. Blocks. Raise ``ImageStorageException``."""
        try:
            for name in sorted({guid[:3] for guid in guids}):
                sync_folder(self.folder / name)
        except OSError as error:
            raise as_storage_exception(error) from error

    async def locate(self, guid: ImageGuid, media_type: MediaType) -> tuple[Path, os.stat_result]:
        """Return the file of a picture and its status. Raise ``PictureMissingException`` if it does not exist."""
        return await run_in_thread(_look_up, self.path(guid, media_type))

    async def at_hand(self, guid: ImageGuid, media_type: MediaType) -> bytes | Path:
        """Return the content of a recently received picture, or the path of another.

        Raise ``PictureMissingException``.
        """
        return self.recent.get(guid) or (await self.locate(guid, media_type))[0]

    async def read(self, guid: ImageGuid, media_type: MediaType) -> bytes:
        """Return the picture, byte for byte. Raise ``PictureMissingException`` if it does not exist."""
        return await run_in_thread(_read, self.path(guid, media_type))

    async def delete(self, guid: ImageGuid, media_type: MediaType) -> None:
        """Remove a picture, if it exists."""
        self.recent.forget(guid)
        await run_in_thread(remove_durably, self.path(guid, media_type))

    async def sweep(self) -> None:
        """Remove the remains of interrupted writes."""
        await run_in_thread(remove_staged, self.folder)

    async def check(self) -> None:
        """Check that a picture can be written. Raise ``ImageStorageException``, also if the disk hangs.

        Concurrent callers share one check, so that a disk that hangs blocks one thread and not all.
        """
        check = self._check
        if check is None or check.done():
            check = self._check = asyncio.ensure_future(run_in_thread(_check_writable, self.folder, self.room_bytes))
            check.add_done_callback(_seen)
        # While this waits, another caller may start the next check.
        if not (await asyncio.wait([check], timeout=CHECK_SECONDS))[0]:
            raise ImageStorageException
        check.result()

    def path(self, guid: ImageGuid, media_type: MediaType) -> Path:
        """Return the path of the picture with this GUID."""
        return self.folder / guid[:3] / f"{guid}{EXTENSIONS[media_type]}"


def _seen(check: asyncio.Future[None]) -> None:
    """Retrieve an exception that no caller waited for."""
    if not check.cancelled():
        check.exception()


def _look_up(path: Path) -> tuple[Path, os.stat_result]:
    with _missing_told():
        return path, path.stat()


def _read(path: Path) -> bytes:
    with _missing_told():
        return path.read_bytes()


@contextlib.contextmanager
def _missing_told() -> Iterator[None]:
    """Raise ``PictureMissingException`` for a missing file, and ``ImageStorageException`` for other errors."""
    try:
        yield
    except FileNotFoundError as error:
        raise PictureMissingException from error
    except OSError as error:
        raise as_storage_exception(error) from error


def _check_writable(folder: Path, room_bytes: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usage = os.statvfs(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(folder)
    except OSError as error:
        raise as_storage_exception(error) from error
    if usage.f_bavail * usage.f_frsize < room_bytes:
        raise as_storage_exception(OSError(errno.ENOSPC, "no space left"))
