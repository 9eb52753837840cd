"""Hold a picture until its kind is known."""

from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

from pixyproxy.core.exceptions import PictureUnusableException
from pixyproxy.data.files.durable import as_storage_exception
from pixyproxy.data.threads import run_in_thread

MOST_HELD_BYTES = 150_000_000
"""The limit here only protects the disk; the final writer has the configured limit."""
PIECE_BYTES = 3 * 1024 * 1024


class HeldPicture:
    """A writer of base64 into a file from ``open_file``, for an event whose type follows its picture.

    OpenAI writes the type before the picture, and also in the event's name; a proxy that parses events with the SDK's
    models and writes them again puts it last (openai 3.52, ImageGenCompletedEvent). ``write`` blocks.
    """

    def __init__(self, open_file: Callable[[], BinaryIO]) -> None:
        self._open_file = open_file
        self._file: BinaryIO | None = None
        self._bytes = 0

    def write(self, content: bytes) -> None:
        """Append to the file.

        Raise ``PictureUnusableException`` beyond ``MOST_HELD_BYTES``, and ``ImageStorageException``.
        """
        self._bytes += len(content)
        if self._bytes > MOST_HELD_BYTES:
            raise PictureUnusableException
        try:
            if self._file is None:
                self._file = self._open_file()
            self._file.write(content)
        except OSError as error:
            raise as_storage_exception(error) from error

    def finish(self) -> None:
        """Do nothing: complete or not, the picture stays in the file."""

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the whole content. Raise ``ImageStorageException``."""
        start = 0
        while piece := await run_in_thread(self._read, start):
            yield piece
            start += len(piece)

    def close(self) -> None:
        """Delete the file."""
        if self._file is not None:
            self._file.close()

    def _read(self, start: int) -> bytes:
        if self._file is None:
            return b""
        try:
            self._file.seek(start)
            return self._file.read(PIECE_BYTES)
        except OSError as error:
            raise as_storage_exception(error) from error
