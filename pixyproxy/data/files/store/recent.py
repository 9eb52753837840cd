"""A cache of recently received pictures in memory, so that waiting callers need not read the file."""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from pixyproxy.core.models.image import ImageGuid

MOST_BYTES = 16 * 1024 * 1024
"""The most bytes of all cached pictures: about ten of a usual size."""


@dataclass(frozen=True)
class RecentPictures:
    """The latest pictures that fit; thread-safe."""

    most_bytes: int = MOST_BYTES
    _pictures: OrderedDict[ImageGuid, bytes] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def keep(self, guid: ImageGuid, content: bytes) -> None:
        """Store a picture, and evict the oldest ones."""
        with self._lock:
            self._pictures[guid] = content
            held = sum(map(len, self._pictures.values()))
            while held > self.most_bytes:
                _, forgotten = self._pictures.popitem(last=False)
                held -= len(forgotten)

    def get(self, guid: ImageGuid) -> bytes | None:
        """Return a picture, byte for byte, if it is still cached."""
        with self._lock:
            return self._pictures.get(guid)

    def forget(self, guid: ImageGuid) -> None:
        """Remove a deleted picture."""
        with self._lock:
            self._pictures.pop(guid, None)
