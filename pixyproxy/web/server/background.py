"""Background loops: a process cannot keep its guarantees without all of them."""

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
    """Run the loops while the block runs; if one fails, cancel the others and stop the process.

    The process gets SIGTERM, so that running work is finished first. The loop's exception is raised at the end of the
    block, so that the process exits with a non-zero status.
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
        logger.critical("a background loop failed: stopping this process", exc_info=failure)
        signal.raise_signal(signal.SIGTERM)
