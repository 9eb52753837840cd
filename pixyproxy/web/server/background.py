"""Background loops: while one of them is missing, a process does not keep its promises."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

logger = logging.getLogger(__name__)


@asynccontextmanager
async def running_loops(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the loops until the block is left; one that fails ends the others and stops the process.

    The process is told to stop as an operator would tell it (SIGTERM), so that what is under way is finished first.
    What the loop failed with is raised where the block is left, so the process does not end with status 0.
    """
    running = asyncio.create_task(_run(loops))
    running.add_done_callback(_stop_process)
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _run(loops: tuple[Coroutine[Any, Any, None], ...]) -> None:
    async with asyncio.TaskGroup() as group:
        for loop in loops:
            group.create_task(loop)


def _stop_process(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and (failure := running.exception()) is not None:
        logger.critical("a background loop has failed: this process stops", exc_info=failure)
        signal.raise_signal(signal.SIGTERM)
