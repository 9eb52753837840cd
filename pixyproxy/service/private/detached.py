"""Work that goes on when whoever asked for it is gone."""

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
    """Tasks of this process that no client's hang-up cancels, and that a stopping server waits for."""

    running: set[asyncio.Task[Any]] = field(default_factory=set)

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of ``work``. Cancelling the caller ends the wait, not the work."""
        return await asyncio.shield(self.start(work))

    def start(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Begin ``work`` without waiting for it."""
        task = asyncio.get_running_loop().create_task(work)
        self.running.add(task)
        task.add_done_callback(self._finished)
        return task

    async def drain(self, seconds: float) -> None:
        """Wait for what is running, and what that starts, no longer than this but for a second.

        What is not over by then is cancelled, so that it settles.
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
        """Let go of a task; its exception counts as seen even if nobody waits for it any more."""
        self.running.discard(task)
        if not task.cancelled():
            task.exception()
