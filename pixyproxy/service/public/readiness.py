"""Readiness: report within bounded time whether this process can serve."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pixyproxy.core.exceptions import DatabaseUnavailableException, ImageStorageException, PixyProxyException
from pixyproxy.data.database import Database
from pixyproxy.data.files.store.local import LocalStore

ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class ReadinessCheck:
    """Probes the database and the store, each with at most one running probe, so that hanging probes never pile up."""

    database: Database
    store: LocalStore
    seconds: float = ANSWER_SECONDS
    _running: dict[type[PixyProxyException], asyncio.Task[None]] = field(default_factory=dict)

    async def require_ready(self) -> None:
        """Return if all parts respond in time. Raises ``DatabaseException`` and ``ImageStorageException``."""
        await asyncio.gather(
            self._require_answer(self.database.ping, DatabaseUnavailableException),
            self._require_answer(self.store.check, ImageStorageException),
        )

    async def _require_answer(self, probe: Callable[[], Awaitable[None]], silence: type[PixyProxyException]) -> None:
        task = self._running.get(silence)
        if task is None or task.done():
            task = self._running[silence] = asyncio.ensure_future(probe())
            # Retrieve the exception of a probe that fails after its timeout, so that asyncio does not log it.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({task}, timeout=self.seconds)
        if not task.done():
            raise silence
        task.result()
