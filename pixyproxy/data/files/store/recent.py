"""The pictures that were received last, in memory: whoever waits for one need not wait for a file to be read."""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from pixyproxy.core.models.image import ImageGuid

MOST_BYTES = 16 * 1024 * 1024
"""Of all of them: some ten pictures of a usual size."""


@dataclass(frozen=True)
class RecentPictures:
    """As many of the last pictures as have room; any thread may use it."""

    most_bytes: int = MOST_BYTES
    _pictures: OrderedDict[ImageGuid, bytes] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def keep(self, guid: ImageGuid, content: bytes) -> None:
        """Remember a picture, and forget the oldest ones."""
        with self._lock:
            self._pictures[guid] = content
            held = sum(map(len, self._pictures.values()))
            while held > self.most_bytes:
                _, forgotten = self._pictures.popitem(last=False)
                held -= len(forgotten)

    def get(self, guid: ImageGuid) -> bytes | None:
        """A picture, byte for byte, if it is still remembered."""
        with self._lock:
            return self._pictures.get(guid)

    def forget(self, guid: ImageGuid) -> None:
        """Forget a picture that is deleted."""
        with self._lock:
            self._pictures.pop(guid, None)
