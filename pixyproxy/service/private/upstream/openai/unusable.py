"""Keeping the bytes of an answer that was paid for and cannot be used."""

import re

from pixyproxy.core.exceptions import PictureUnusableException, UpstreamAnswerException
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.upstream.openai.base64_scanner import Base64Scanner
from pixyproxy.service.private.upstream.upstream import PictureSink

JSON = re.compile(rb"\s*[\[{]")
PICTURE = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF")
"""What an answer that is itself a picture begins with."""
PICTURE_MEMBER = re.compile(rb'"(?:b64_json|base64|image|image_url|url)"\s{0,16}:\s{0,16}"[^"]')
"""What servers give a picture by in JSON."""


def holds_picture(text: bytes | bytearray, *, is_too_long: bool = False) -> bool:
    """Whether there may be a picture in an answer that makes no sense.

    JSON that ``is_too_long`` holds something in another dialect: no error or page in JSON has that size.
    """
    if JSON.match(text):
        return is_too_long or PICTURE_MEMBER.search(text) is not None
    return PICTURE.match(text) is not None


class UnusableAnswer:
    """Gives the sink the bytes of an answer from the first picture on that cannot be stored.

    Pictures before that one have been delivered; a placeholder stands for them.
    """

    def __init__(self, sink: PictureSink) -> None:
        self.failure: PictureUnusableException | None = None
        """Why the answer cannot be used; None: nothing is wrong with it yet."""
        self._sink = sink
        self._kept = 0
        """How much of the skeleton the sink has."""

    async def begin(self, error: UpstreamAnswerException, json: Base64Scanner, text: bytes = b"") -> None:
        """Keep what has come: the skeleton, and the base64 of the picture that cannot be stored."""
        self.failure = error if isinstance(error, PictureUnusableException) else PictureUnusableException()
        self.failure.__cause__ = error.__cause__
        json.placeholder = b""
        await self.keep_json(json, text)

    async def keep_json(self, json: Base64Scanner, text: bytes = b"") -> None:
        """Keep what is new in the skeleton, then base64 that belongs behind it."""
        piece = bytes(json.skeleton[self._kept :]) + text
        self._kept = len(json.skeleton)
        await self.keep(piece)

    async def keep(self, piece: bytes) -> None:
        """Keep a piece of the answer as it came. Raises what the sink raises."""
        if piece:
            await run_in_thread(self._sink.keep, piece)
