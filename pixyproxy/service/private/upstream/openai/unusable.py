"""Retain the bytes of an answer that was paid for and cannot be used."""

import re

from pixyproxy.core.exceptions import PictureUnusableException, UpstreamAnswerException
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.upstream.openai.base64_scanner import Base64Scanner
from pixyproxy.service.private.upstream.upstream import PictureSink

JSON = re.compile(rb"\s*[\[{]")
PICTURE = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF")
"""How a response that is itself a picture starts."""
PICTURE_MEMBER = re.compile(rb'"(?:b64_json|base64|image|image_url|url)"\s{0,16}:\s{0,16}"[^"]')
"""The JSON members in which servers return a picture."""


def holds_picture(text: bytes | bytearray, *, is_too_long: bool = False) -> bool:
    """Return whether an invalid response may contain a picture.

    JSON that ``is_too_long`` contains one in another dialect: no error or page in JSON is that large.
    """
    if JSON.match(text):
        return is_too_long or PICTURE_MEMBER.search(text) is not None
    return PICTURE.match(text) is not None


class UnusableAnswer:
    """Passes the bytes of a response to the sink, from the first picture that cannot be stored.

    Pictures before that one were delivered; a placeholder replaces them.
    """

    def __init__(self, sink: PictureSink) -> None:
        self.failure: PictureUnusableException | None = None
        """Why the answer cannot be used; None: no problem so far."""
        self._sink = sink
        self._kept = 0
        """The bytes of the skeleton that the sink has."""

    async def begin(self, error: UpstreamAnswerException, json: Base64Scanner, text: bytes = b"") -> None:
        """Retain the skeleton so far and the base64 of the picture that cannot be stored."""
        self.failure = error if isinstance(error, PictureUnusableException) else PictureUnusableException()
        self.failure.__cause__ = error.__cause__
        json.placeholder = b""
        await self.keep_json(json, text)

    async def keep_json(self, json: Base64Scanner, text: bytes = b"") -> None:
        """Retain the new part of the skeleton, then the base64 that follows it."""
        piece = bytes(json.skeleton[self._kept :]) + text
        self._kept = len(json.skeleton)
        await self.keep(piece)

    async def keep(self, piece: bytes) -> None:
        """Retain a piece of the answer unchanged. Raise the sink's exceptions."""
        if piece:
            await run_in_thread(self._sink.keep, piece)
