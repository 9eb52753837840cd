"""The way of one picture from the base64 that arrives to whoever keeps it."""

import binascii
from collections.abc import Sequence
from typing import ClassVar
from weakref import WeakSet

import pybase64

from pixyproxy.core.exceptions import UpstreamAnswerException
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.upstream.upstream import PictureWriter

BATCH_CHARACTERS = 3 * 1024 * 1024
"""Of base64, that are decoded and written at a time, mostly a whole picture: each hop to a thread costs 0.3 ms."""
MOST_GATHERED_CHARACTERS = 16 * 1024 * 1024
"""Of all pictures that arrive at the same time; each may hold an equal share of it."""
GROUP = 4
"""Characters of base64 that make whole bytes."""


class PictureDelivery:
    """Gathers a picture's base64 to batches, each of which is decoded and written in one hop to a worker thread.

    Raises what the writer raises, and ``UpstreamAnswerException`` for what is no base64.
    """

    _arriving: ClassVar[WeakSet["PictureDelivery"]] = WeakSet()
    """Those that were begun; one that breaks off is not there any more."""

    def __init__(self, writer: PictureWriter, *, batch_characters: int = BATCH_CHARACTERS) -> None:
        self._writer = writer
        self._batch_characters = batch_characters
        self._batch: list[bytes] = []
        self._gathered = 0
        self._pending = b""
        self._arriving.add(self)

    async def take(self, text: bytes, *, last: bool) -> None:
        """Take the next piece, of any length; with the last one the picture is finished."""
        self._batch.append(text)
        self._gathered += len(text)
        share = MOST_GATHERED_CHARACTERS // len(self._arriving)
        if last:
            self._arriving.discard(self)
        if last or self._gathered >= min(self._batch_characters, share):
            batch, self._batch, self._gathered = self._batch, [], 0
            await run_in_thread(self._deliver, batch, last)

    def _deliver(self, batch: Sequence[bytes], last: bool) -> None:  # noqa: FBT001  (threads take no keywords)
        decoded = self._decode(b"".join((self._pending, *batch)), last=last)
        if decoded:
            self._writer.write(decoded)
        if last:
            self._writer.finish()

    def _decode(self, text: bytes, *, last: bool) -> bytes:
        """Decode whole groups of base64 and keep what is left of one for the next batch.

        The last whole group is held back too: only the end may have padding, which is then in the last batch.
        """
        whole = len(text) if last else max(0, len(text) // GROUP * GROUP - GROUP)
        self._pending = text[whole:]
        if not last and text.endswith(b"=", 0, whole):
            raise UpstreamAnswerException
        try:
            with memoryview(text) as view:
                return pybase64.b64decode(view[:whole], validate=True)
        except binascii.Error as error:
            raise UpstreamAnswerException from error
