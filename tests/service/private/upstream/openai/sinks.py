"""A sink with visible state, and texts of responses to read into it."""

import base64
import json
import random
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pixyproxy.core.exceptions import PictureUnusableException

MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF8")


class FakeWriter:
    """Stores a picture up to ``max_bytes``; rejects concurrent writes."""

    def __init__(self, *, max_bytes: int, only_pictures: bool) -> None:
        self.content = bytearray()
        self.writes = 0
        self.finished = False
        self.threads: set[int] = set()
        self._max_bytes = max_bytes
        self._only_pictures = only_pictures
        self._busy = threading.Lock()

    def write(self, content: bytes) -> None:
        """Append."""
        assert self._busy.acquire(blocking=False)
        assert content
        assert not self.finished
        self.threads.add(threading.get_ident())
        self.writes += 1
        if len(self.content) + len(content) > self._max_bytes:
            raise PictureUnusableException
        self.content += content
        self._busy.release()

    def finish(self) -> None:
        """Reject an empty file and, where only pictures are accepted, one without a picture's first bytes."""
        assert self._busy.acquire(blocking=False)
        assert not self.finished
        if not self.content or (self._only_pictures and not self.content.startswith(MAGIC)):
            raise PictureUnusableException
        self.finished = True
        self._busy.release()


@dataclass
class FakeSink:
    """Stores everything that was started, in order."""

    max_bytes: int = 10_000_000
    only_pictures: bool = False
    kept_answer: bytearray = field(default_factory=bytearray)
    pictures: list[FakeWriter] = field(default_factory=list)
    previews: list[tuple[int, FakeWriter]] = field(default_factory=list)

    def begin_picture(self) -> FakeWriter:
        """Return the next picture."""
        self.pictures.append(FakeWriter(max_bytes=self.max_bytes, only_pictures=self.only_pictures))
        return self.pictures[-1]

    def begin_preview(self, index: int) -> FakeWriter:
        """Return a preview."""
        writer = FakeWriter(max_bytes=self.max_bytes, only_pictures=self.only_pictures)
        self.previews.append((index, writer))
        return writer

    def keep(self, content: bytes) -> None:
        """Append to the retained answer, up to twice ``max_bytes``."""
        assert content
        self.kept_answer += content
        if len(self.kept_answer) > 2 * self.max_bytes:
            raise PictureUnusableException

    def open_temporary(self) -> BinaryIO:
        """Return a temporary file of the system."""
        return tempfile.TemporaryFile()

    @property
    def kept(self) -> list[bytes]:
        """Return the finished pictures."""
        return [bytes(writer.content) for writer in self.pictures if writer.finished]

    @property
    def kept_previews(self) -> list[tuple[int, bytes]]:
        """Return the finished previews."""
        return [(index, bytes(writer.content)) for index, writer in self.previews if writer.finished]


class BlockedWriter:
    """A writer that blocks until it is released."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()
        self.done = False

    def write(self, _content: bytes) -> None:
        """Wait."""
        self.begun.set()
        assert self.release.wait(timeout=20)
        self.done = True

    def finish(self) -> None:
        """Do nothing."""


class DiscardingSink:
    """A sink that stores only a count of bytes."""

    def __init__(self) -> None:
        self.bytes = 0

    def begin_picture(self) -> "DiscardingSink":
        """Return itself."""
        return self

    def begin_preview(self, _index: int) -> "DiscardingSink":
        """Return itself."""
        return self

    def keep(self, content: bytes) -> None:
        """Count the bytes."""
        self.bytes += len(content)

    def open_temporary(self) -> BinaryIO:
        """Return a temporary file of the system."""
        return tempfile.TemporaryFile()

    def write(self, content: bytes) -> None:
        """Count the bytes."""
        self.bytes += len(content)

    def finish(self) -> None:
        """Do nothing."""


def b64(content: bytes) -> str:
    """Return a picture as in JSON."""
    return base64.b64encode(content).decode()


def answer_with(*pictures: bytes, **more: object) -> bytes:
    """Return a JSON response with these pictures."""
    return json.dumps({"created": 1, "data": [{"b64_json": b64(picture)} for picture in pictures], **more}).encode()


def usage(*, text: int = 5, image: int = 0, output: int = 100) -> dict[str, Any]:
    """Return OpenAI's usage object."""
    return {
        "input_tokens": text + image,
        "input_tokens_details": {"text_tokens": text, "image_tokens": image},
        "output_tokens": output,
        "total_tokens": text + image + output,
    }


def cut(text: bytes, length: int) -> Iterator[bytes]:
    """Yield a text in pieces of this length."""
    return (text[start : start + length] for start in range(0, len(text), length))


def cut_anywhere(text: bytes, source: random.Random) -> Iterator[bytes]:
    """Yield a text in pieces of any length, most of them short."""
    start = 0
    while start < len(text):
        end = start + source.choice((1, 2, 3, source.randint(1, 40), source.randint(1, 400)))
        yield text[start:end]
        start = end


def large_base64(characters: int) -> Iterator[bytes]:
    """Yield this many characters of base64, a multiple of 65,536, in pieces as from a connection."""
    # Each piece is a new object, as on a connection.
    return (bytes(bytearray(b"A") * 65_536) for _ in range(characters // 65_536))
