"""Decode a picture's base64 as it arrives and write it."""

import binascii
import re
from collections.abc import Sequence
from typing import ClassVar
from weakref import WeakSet

import pybase64

from pixyproxy.core.exceptions import ImageException, UpstreamAnswerException
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.upstream.upstream import PictureWriter

BATCH_CHARACTERS = 3 * 1024 * 1024
"""Base64 characters decoded and written at a time, usually a whole picture: each hop to a thread costs 0.3 ms."""
MOST_GATHERED_CHARACTERS = 16 * 1024 * 1024
"""The limit for all pictures that arrive at the same time; each may hold an equal share."""
GROUP = 4
"""Characters of base64 that make whole bytes."""

DATA_URL = re.compile(rb"\Adata:[^,]{0,200},")
USUAL_ESCAPES = ((rb"\/", b"/"), (rb"\u002B", b"+"), (rb"\u002b", b"+"), (rb"\u003D", b"="), (rb"\n", b"\n"))
"""JSON escapes of PHP, .NET and MIME encoders; replaced before ``ESCAPE``, which is ten times slower."""
ESCAPE = re.compile(rb"\\(?:u00([0-9A-Fa-f]{2})|([/nrt]))")
CONTROLS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
CUT_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?\Z")
WHITE_SPACE = b" \t\r\n"
STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
"""From the URL-safe alphabet (RFC 4648 §5)."""


class PictureDelivery:
    """Collects a picture's base64 into batches; each is decoded and written in one hop to a worker thread.

    Accepts JSON escapes, white space, the URL-safe alphabet, missing padding and a ``data:`` URL. ``is_raw``: the
    base64 is written unchanged. Raises the writer's exceptions, and ``UpstreamAnswerException`` for invalid base64.
    """

    _arriving: ClassVar[WeakSet["PictureDelivery"]] = WeakSet()
    """The deliveries in progress; an abandoned one drops out."""

    def __init__(
        self, writer: PictureWriter, *, batch_characters: int = BATCH_CHARACTERS, is_raw: bool = False
    ) -> None:
        self._writer = writer
        self._batch_characters = batch_characters
        self._is_raw = is_raw
        self._batch: list[bytes] = []
        self._gathered = 0
        self._pending = b""
        self._arriving.add(self)

    @property
    def undelivered(self) -> bytes:
        """The base64 that was not written, because of an exception or because it is still collected."""
        return b"".join((self._pending, *self._batch))

    async def take(self, text: bytes, *, last: bool) -> None:
        """Accept the next piece, of any length; the last one finishes the picture."""
        self._batch.append(text)
        self._gathered += len(text)
        share = MOST_GATHERED_CHARACTERS // len(self._arriving)
        if last:
            self._arriving.discard(self)
        if last or self._gathered >= min(self._batch_characters, share):
            batch, pending = self._batch, self._pending
            self._batch, self._gathered = [], 0
            try:
                await run_in_thread(self._deliver, batch, last)
            except ImageException:
                self._batch, self._pending = batch, pending
                self._arriving.discard(self)
                raise

    def _deliver(self, batch: Sequence[bytes], last: bool) -> None:  # noqa: FBT001  (threads take no keywords)
        text = b"".join((self._pending, *batch))
        content = text if self._is_raw else self._decode(text, last=last)
        if content:
            self._writer.write(content)
        if last:
            self._writer.finish()

    def _decode(self, text: bytes, *, last: bool) -> bytes:
        """Decode whole groups of base64; keep an incomplete group for the next batch."""
        try:
            return self._decode_plain(text, last=last)
        except binascii.Error:
            cut = None if last else CUT_ESCAPE.search(text)
            whole = text if cut is None else text[: cut.start()]
        try:
            decoded = self._decode_plain(_as_plain(whole), last=last)
        except binascii.Error as error:
            raise UpstreamAnswerException from error
        self._pending += text[len(whole) :]
        return decoded

    def _decode_plain(self, text: bytes, *, last: bool) -> bytes:
        """Decode base64 of the standard alphabet. Raise ``binascii.Error``.

        The last whole group is held back: only the end may have padding, and it must be in the last batch.
        """
        if last:
            text += b"=" * (-len(text) % GROUP)
        whole = len(text) if last else max(0, len(text) // GROUP * GROUP - GROUP)
        if not last and text.endswith(b"=", 0, whole):
            raise binascii.Error
        with memoryview(text) as view:
            decoded = pybase64.b64decode(view[:whole], validate=True)
        self._pending = text[whole:]
        return decoded


def _as_plain(text: bytes) -> bytes:
    """Return base64 in the standard alphabet, without a ``data:`` prefix, JSON escapes and white space."""
    text = DATA_URL.sub(b"", text)
    if b"\\" in text:
        for escape, character in USUAL_ESCAPES:
            text = text.replace(escape, character)
        text = ESCAPE.sub(_character, text)
    return text.translate(STANDARD_ALPHABET, WHITE_SPACE)


def _character(escape: re.Match[bytes]) -> bytes:
    code, letter = escape.groups()
    return CONTROLS.get(letter, letter) if code is None else bytes.fromhex(code.decode())
