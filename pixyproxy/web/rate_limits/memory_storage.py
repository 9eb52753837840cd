"""Moving windows in the memory of this process: a storage of ``limits``, for slowapi and for ``limits.aio``."""

from collections import OrderedDict, deque

from limits.aio.storage import MemoryStorage as AsyncMemoryStorage
from limits.storage import MemoryStorage

from pixyproxy.core import clock

EXPIRED_PER_HIT = 2
"""Idle keys that each hit removes. One would keep up with new keys; two catch up."""


class ProcessStorage(MemoryStorage):
    """Moving windows whose operations take the same time whatever the number of keys. Not thread-safe.

    The storage of ``limits`` (5.8) never forgets a key, and every hit starts a thread that walks over all keys:
    with 10,000 addresses it takes more than half a core. Here an idle key is gone within a window's length of traffic.
    """

    STORAGE_SCHEME = ["process"]  # noqa: RUF012  (the base class declares it as an attribute of instances)

    def __init__(self, uri: str | None = None, **_: object) -> None:
        super().__init__(uri)
        self._windows: OrderedDict[str, tuple[int, deque[float]]] = OrderedDict()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add ``amount`` entries if there is room for all of them; return whether there was."""
        now = clock.seconds()
        self._remove_expired(now)
        entries = self._current(key, expiry, now)
        if len(entries) + amount > limit:
            return False
        entries.extend([now] * amount)
        self._windows[key] = expiry, entries
        self._windows.move_to_end(key)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002  (limits' own)
        """Return the time of the oldest entry in the window, or the current time, and the number of entries."""
        now = clock.seconds()
        entries = self._current(key, expiry, now)
        return (entries[0], len(entries)) if entries else (now, 0)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._windows)

    def _current(self, key: str, expiry: int, now: float) -> deque[float]:
        """Return the entries in the window; a new deque, not stored yet, for a new key."""
        _, entries = self._windows.get(key, (expiry, None))
        if entries is None:
            return deque()
        while entries and entries[0] < now - expiry:
            entries.popleft()
        return entries

    def _remove_expired(self, now: float) -> None:
        """Remove keys that had no hit for a window's length, least recently used first."""
        for _ in range(EXPIRED_PER_HIT):
            key = next(iter(self._windows), None)
            if key is None:
                return
            expiry, entries = self._windows[key]
            if entries and entries[-1] >= now - expiry:
                return
            del self._windows[key]


class AsyncProcessStorage(AsyncMemoryStorage):
    """``ProcessStorage`` for ``limits.aio``, whose own storage (5.8) walks over all keys as well, in threads."""

    STORAGE_SCHEME = ["async+process"]  # noqa: RUF012  (the base class declares it as an attribute of instances)

    def __init__(self) -> None:
        super().__init__()
        self._windows = ProcessStorage()

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add ``amount`` entries if there is room for all of them; return whether there was."""
        return self._windows.acquire_entry(key, limit, expiry, amount)

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the oldest entry in the window, or the current time, and the number of entries."""
        return self._windows.get_moving_window(key, limit, expiry)
