"""Limits counted in this process: a storage of ``limits``, registered by its scheme for slowapi to take by URI."""

import threading
from collections import OrderedDict, deque

from limits.storage import MemoryStorage

from pixyproxy.core import clock

FORGOTTEN_AT_ONCE = 2
"""How many buckets that nobody asks for any more go with each hit; one would keep up, two catch up."""


class ProcessStorage(MemoryStorage):
    """Moving windows in the memory of this process.

    The storage of ``limits`` (5.8) keeps every key for ever, and with each hit starts a thread that goes
    through all of them: 10,000 addresses cost a whole core. Here an operation takes the same time whatever
    the number of keys, and a key is gone within a window's length of traffic.
    """

    STORAGE_SCHEME = ["process"]  # noqa: RUF012  (the base class declares it as an attribute of instances)

    def __init__(self, uri: str | None = None, **_: object) -> None:
        super().__init__(uri)
        self._windows: OrderedDict[str, tuple[int, deque[float]]] = OrderedDict()
        self._lock = threading.Lock()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count ``amount`` if there is room for all of it."""
        now = clock.seconds()
        with self._lock:
            self._forget_oldest(now)
            entries = self._current(key, expiry, now)
            if len(entries) + amount > limit:
                return False
            entries.extend([now] * amount)
            self._windows[key] = expiry, entries
            self._windows.move_to_end(key)
            return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002  (limits' own)
        """The time of the oldest entry that still counts, now without one, and how many do."""
        now = clock.seconds()
        with self._lock:
            entries = self._current(key, expiry, now)
            return (entries[0], len(entries)) if entries else (now, 0)

    def clear(self, key: str) -> None:
        """Forget one bucket."""
        super().clear(key)
        with self._lock:
            self._windows.pop(key, None)

    def reset(self) -> int:
        """Forget all buckets; returns how many there were."""
        fixed = super().reset() or 0
        with self._lock:
            count = len(self._windows)
            self._windows.clear()
        return fixed + count

    def __len__(self) -> int:
        """How many buckets are kept."""
        return len(self._windows)

    def _current(self, key: str, expiry: int, now: float) -> deque[float]:
        """The entries that still count; a new deque, which nobody holds yet, where there is none."""
        _, entries = self._windows.get(key, (expiry, None))
        if entries is None:
            return deque()
        while entries and entries[0] < now - expiry:
            entries.popleft()
        return entries

    def _forget_oldest(self, now: float) -> None:
        """Drop buckets that have long been quiet, from the end where the longest quiet are."""
        for _ in range(FORGOTTEN_AT_ONCE):
            key = next(iter(self._windows), None)
            if key is None:
                return
            expiry, entries = self._windows[key]
            if entries and entries[-1] >= now - expiry:
                return
            del self._windows[key]
