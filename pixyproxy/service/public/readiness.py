"""Whether this process can serve, answered in bounded time whatever hangs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pixyproxy.core.exceptions import DatabaseUnavailableException, ImageStorageException, PixyProxyException
from pixyproxy.data.database import Database
from pixyproxy.data.files.store.local import LocalStore

ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class ReadinessCheck:
    """Asks the database and the store. At most one probe of each is running, so that polls never pile up."""

    database: Database
    store: LocalStore
    seconds: float = ANSWER_SECONDS
    _running: dict[type[PixyProxyException], asyncio.Task[None]] = field(default_factory=dict)

    async def require_ready(self) -> None:
        """Return if all parts answer in time. Raises ``DatabaseException`` and ``ImageStorageException``."""
        await asyncio.gather(
            self._require_answer(self.database.ping, DatabaseUnavailableException),
            self._require_answer(self.store.check, ImageStorageException),
        )

    async def _require_answer(self, probe: Callable[[], Awaitable[None]], silence: type[PixyProxyException]) -> None:
        task = self._running.get(silence)
        if task is None or task.done():
            task = self._running[silence] = asyncio.ensure_future(probe())
            # A probe that fails after its poll was answered is nobody's error.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({task}, timeout=self.seconds)
        if not task.done():
            raise silence
        task.result()
