"""Receive an upstream's pictures into the spool as they arrive, and check each of them."""

import contextlib
import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from pixyproxy.core.exceptions import ImageStorageException, PictureUnusableException
from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.core.models.image import ImageGuid, MediaType
from pixyproxy.core.models.order import ReceivedPicture
from pixyproxy.data.files.retained_answers import RetainedAnswers
from pixyproxy.data.files.spool import SpoolFile, SpoolFolder
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.data.threads import run_in_thread

MEDIA_TYPES: dict[str, MediaType] = {
    PngImagePlugin.PngImageFile.format: "image/png",
    JpegImagePlugin.JpegImageFile.format: "image/jpeg",
    WebPImagePlugin.WebPImageFile.format: "image/webp",
    GifImagePlugin.GifImageFile.format: "image/gif",
}
"""Media types by Pillow's format; importing the plugins registers these formats only."""
SAME_FORMAT = {"MPO": JpegImagePlugin.JpegImageFile.format}
"""Pillow's name for a JPEG followed by further pictures."""
MAGIC_BYTES = 12
"""The number of bytes needed to distinguish the formats."""
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"RIFF")

# Pillow only warns about large pictures; ``PictureLimits`` rejects them, and nothing is decoded here.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class PictureLimits:
    """The limits of a picture: its bytes, and its width times its height."""

    max_bytes: int
    max_pixels: int

    @property
    def max_kept_bytes(self) -> int:
        """The limit of a retained answer: base64 is a third longer than the picture, and JSON may escape it."""
        return 2 * self.max_bytes


@dataclass(frozen=True)
class PictureHeader:
    """The media type and the size in pixels from a picture's header."""

    media_type: MediaType
    width: int
    height: int


@dataclass
class PictureReceiver:
    """Writes one picture to a file. Its methods block.

    Rejects what is not a picture, or is too large, as early as possible: by magic bytes and header alone, ignoring the
    declared type.
    """

    file: SpoolFile
    limits: PictureLimits
    remember: Callable[[bytes], object] | None = None
    """Called with a finished picture that came in one piece."""
    header: PictureHeader | None = None
    finished: bool = False
    _content: bytes | None = None

    def write(self, content: bytes) -> None:
        """Write the next bytes. Raise ``PictureUnusableException`` and ``ImageStorageException``."""
        if self.file.byte_size + len(content) > self.limits.max_bytes:
            self.file.close()
            raise PictureUnusableException
        if self.file.byte_size == 0 and len(content) >= MAGIC_BYTES:
            self._look_early(content)
        self._content = None if self.remember is None or self.file.byte_size else content
        self.file.write(content)

    def finish(self) -> None:
        """Finish the picture; it is durable on return. Raise as ``write`` does."""
        self.file.finish()
        if self.header is None:
            self.header = read_header(self.file.path, self.limits)
        if self.remember is not None and self._content is not None:
            self.remember(self._content)
        self._content = None
        self.finished = True

    @property
    def picture(self) -> ReceivedPicture:
        """The picture's details, available once it is finished."""
        header = self.header
        if header is None:
            raise PictureUnusableException
        return ReceivedPicture(
            media_type=header.media_type,
            byte_size=self.file.byte_size,
            sha256=self.file.sha256,
            width=header.width,
            height=header.height,
        )

    def _look_early(self, beginning: bytes) -> None:
        if not beginning.startswith(MAGIC):
            self.file.close()
            raise PictureUnusableException
        # A header may be longer than the bytes so far; then the whole file is checked.
        with contextlib.suppress(OSError, ValueError, SyntaxError):
            self.header = _open_header(io.BytesIO(beginning))
        if self.header is not None:
            _require_within(self.header, self.limits)


@dataclass
class PreviewReceiver(PictureReceiver):
    """A preview, which gets its name only once it is complete. A broken one is dropped and the order goes on."""

    path: Path = Path()
    notify: Callable[[], object] = lambda: None
    broken: bool = False

    def write(self, content: bytes) -> None:
        """Write the next bytes; never raises."""
        if not self.broken:
            try:
                super().write(content)
            except (PictureUnusableException, ImageStorageException):
                self.broken = True

    def finish(self) -> None:
        """Publish the preview if it is valid; never raises."""
        self.file.close()
        with contextlib.suppress(PictureUnusableException, OSError):
            if not self.broken and read_header(self.file.path, self.limits):
                self.file.path.replace(self.path)
                self.notify()


@dataclass
class ReceivedAnswer:
    """The pictures of one response in this process's spool folder; ``images`` are their future GUIDs.

    Previews go to the store, where every process can read them. ``notify_preview`` is called in a worker thread.
    """

    folder: SpoolFolder
    generation: GenerationGuid
    images: Sequence[ImageGuid]
    limits: PictureLimits
    store: LocalStore
    answers: RetainedAnswers
    notify_preview: Callable[[], object]
    receivers: list[PictureReceiver] = field(default_factory=list)
    previews: list[PreviewReceiver] = field(default_factory=list)
    kept: SpoolFile | None = None
    """The retained answer, if the response cannot be used."""

    def begin_picture(self) -> PictureReceiver:
        """Return the receiver of the next picture."""
        index = len(self.receivers)
        path = self.folder.picture(self.generation, index)
        remember = partial(self.store.recent.keep, self.images[index])
        self.receivers.append(PictureReceiver(SpoolFile(path), self.limits, remember))
        return self.receivers[-1]

    def begin_preview(self, index: int) -> PreviewReceiver:
        """Return the receiver of the preview with this number."""
        path = self.store.orders.preview(self.generation, index)
        file = SpoolFile(path.with_suffix(".part"))
        self.previews.append(PreviewReceiver(file, self.limits, path=path, notify=self.notify_preview))
        return self.previews[-1]

    def keep(self, content: bytes) -> None:
        """Append bytes to the retained answer.

        Raise ``PictureUnusableException`` beyond ``max_kept_bytes``, and ``ImageStorageException``.
        """
        if self.kept is None:
            self.kept = self.answers.begin(self.generation)
        room = self.limits.max_kept_bytes - self.kept.byte_size
        self.kept.write(content[:room])
        if len(content) > room:
            raise PictureUnusableException

    def commit_kept(self) -> None:
        """Make the retained answer, if any, durable. Blocks; raises ``ImageStorageException``."""
        if self.kept is not None:
            broken = [each.file.path for each in self.receivers if not each.finished and each.file.path.is_file()]
            self.answers.commit(self.kept, pictures=broken)

    def open_temporary(self) -> BinaryIO:
        """Return a temporary file beside the pictures, deleted on close. Blocks; raises ``OSError``."""
        return self.folder.open_temporary()

    async def aclose(self) -> None:
        """Close the files of unfinished pictures."""
        broken = [each.file for each in (*self.receivers, *self.previews) if each.file.is_open]
        if broken:
            await run_in_thread(_close_all, broken)

    @property
    def whole(self) -> tuple[ReceivedPicture, ...]:
        """The complete pictures up to the first incomplete one."""
        return tuple(receiver.picture for receiver in itertools.takewhile(lambda each: each.finished, self.receivers))


def _close_all(files: Sequence[SpoolFile]) -> None:
    for file in files:
        file.close()


def read_header(path: Path, limits: PictureLimits) -> PictureHeader:
    """Return the header of a picture's file.

    Raise ``PictureUnusableException`` if it is not a picture within the limits.
    """
    try:
        with path.open("rb") as file:
            header = _open_header(file)
    except (OSError, ValueError, SyntaxError) as error:
        raise PictureUnusableException from error
    _require_within(header, limits)
    return header


def _open_header(file: IO[bytes]) -> PictureHeader:
    with Image.open(file, formats=list(MEDIA_TYPES)) as picture:
        name = picture.format or ""
        return PictureHeader(MEDIA_TYPES[SAME_FORMAT.get(name, name)], *picture.size)


def _require_within(header: PictureHeader, limits: PictureLimits) -> None:
    if header.width < 1 or header.height < 1 or header.width * header.height > limits.max_pixels:
        raise PictureUnusableException
