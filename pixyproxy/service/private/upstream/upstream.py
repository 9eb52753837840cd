"""What an upstream is to the rest of PixyProxy."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer

DEFAULT_NAME = "default"
"""Of the upstream that no list of upstreams names; it is called by its host."""
OFFLINE_MODEL = "offline-sketch"
"""What the offline generator calls itself, whatever model was asked for."""


class PictureWriter(Protocol):
    """One picture that is being received. Both methods block, and are called in a worker thread, one at a time."""

    def write(self, content: bytes) -> None:
        """Take the next bytes of the picture, decoded, of any length.

        Raises ``PictureUnusableException`` as soon as it is too large or no picture, ``ImageStorageException``.
        """

    def finish(self) -> None:
        """The picture is whole. Raises as ``write`` does."""


class PictureSink(Protocol):
    """Where the pictures of one answer go as they arrive. The methods that begin something wait for nothing."""

    def begin_picture(self) -> PictureWriter:
        """The next of the pictures that were ordered, in their order."""

    def begin_preview(self, index: int) -> PictureWriter:
        """The preview of this number, from 0; the last whole picture of an answer is no preview."""

    def keep(self, content: bytes) -> None:
        """Keep the next bytes of an answer that cannot be used, for the operator. Blocks, one call at a time.

        Raises ``PictureUnusableException`` when no more of it is kept, and ``ImageStorageException``.
        """

    def open_temporary(self) -> BinaryIO:
        """Return a file beside the pictures that is gone once it is closed. Blocks, and raises ``OSError``."""


class Upstream(Protocol):
    """Something that draws pictures."""

    @property
    def name(self) -> str:
        """What to call it in the log and to an operator."""

    async def draw(self, order: PictureOrder, *, inputs: Sequence[Path], sink: PictureSink) -> UpstreamAnswer:
        """Put the pictures of an order into the sink as they arrive; the order is sent once, whatever happens.

        ``inputs`` are the files of ``order.inputs``. Raises ``ImageGenerationException``; each class says what may
        have been bought; and what the sink raises.
        """

    async def list_models(self) -> list[str]:
        """The models that it offers; costs nothing. Raises ``ImageGenerationException``."""

    async def close(self) -> None:
        """Close its connections."""
