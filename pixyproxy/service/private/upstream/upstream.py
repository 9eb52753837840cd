"""The interface of an upstream."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer

DEFAULT_NAME = "default"
"""The name of the upstream when no list of upstreams is configured; the log uses its host."""
OFFLINE_MODEL = "offline-sketch"
"""The model name of the offline generator, whatever model was requested."""


class PictureWriter(Protocol):
    """Receives one picture. Both methods block and are called in a worker thread, one at a time."""

    def write(self, content: bytes) -> None:
        """Write the next bytes of the picture, decoded, of any length.

        Raise ``PictureUnusableException`` as soon as it is too large or not a picture, and ``ImageStorageException``.
        """

    def finish(self) -> None:
        """Finish the picture. Raise as ``write`` does."""


class PictureSink(Protocol):
    """Receives the pictures of one response as they arrive. The ``begin_…`` methods do not block."""

    def begin_picture(self) -> PictureWriter:
        """Return the writer of the next ordered picture, in order."""

    def begin_preview(self, index: int) -> PictureWriter:
        """Return the writer of the preview with this number, from 0; the final picture is not a preview."""

    def keep(self, content: bytes) -> None:
        """Append bytes to the retained answer. Blocks; one call at a time.

        Raise ``PictureUnusableException`` when its limit is reached, and ``ImageStorageException``.
        """

    def open_temporary(self) -> BinaryIO:
        """Return a temporary file beside the pictures, deleted on close. Blocks; raises ``OSError``."""


class Upstream(Protocol):
    """A server or generator that makes pictures."""

    @property
    def name(self) -> str:
        """The name for the log and the operator."""

    async def draw(self, order: PictureOrder, *, inputs: Sequence[Path], sink: PictureSink) -> UpstreamAnswer:
        """Send an order once and write its pictures to the sink as they arrive.

        ``inputs`` are the files of ``order.inputs``. Raise ``ImageGenerationException``, whose classes say what may
        have been bought, and the exceptions of the sink.
        """

    async def list_models(self) -> list[str]:
        """Return the models that it offers, at no cost. Raise ``ImageGenerationException``."""

    async def close(self) -> None:
        """Close its connections."""
