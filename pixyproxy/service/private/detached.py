"""Tasks that continue when their caller is gone."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

logger = logging.getLogger(__name__)
LEAST_SECONDS = 1
Result = TypeVar("Result")


@dataclass(frozen=True)
class DetachedTasks:
    """Tasks of this process that a client's hang-up does not cancel and that a stopping server waits for."""

    running: set[asyncio.Task[Any]] = field(default_factory=set)

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of ``work``. Cancelling the caller stops the wait, not the work."""
        return await asyncio.shield(self.start(work))

    def start(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Start ``work`` without waiting for it."""
        task = asyncio.get_running_loop().create_task(work)
        self.running.add(task)
        task.add_done_callback(self._finished)
        return task

    async def drain(self, seconds: float) -> None:
        """Wait at most this long, and at least ``LEAST_SECONDS``, for running tasks and tasks that they start.

        Cancel the tasks that are unfinished then, so that they settle.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(seconds, LEAST_SECONDS)
        while (unfinished := self._unfinished()) and loop.time() < deadline:
            logger.info("waiting for %d tasks to finish", len(unfinished))
            await asyncio.wait(unfinished, timeout=deadline - loop.time())
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    def _unfinished(self) -> list[asyncio.Task[Any]]:
        return [task for task in self.running if not task.done()]

    def _finished(self, task: asyncio.Task[Any]) -> None:
        """Remove a task and retrieve its exception, so that asyncio does not log it as never retrieved."""
        self.running.discard(task)
        if not task.cancelled():
            task.exception()
