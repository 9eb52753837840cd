"""A process that executes generations without serving HTTP."""

import asyncio
import contextlib
import logging
import signal

from pixyproxy.core.exceptions import DatabaseException
from pixyproxy.core.settings import Settings
from pixyproxy.service.composition import open_services
from pixyproxy.web.server.background import running_loops

logger = logging.getLogger(__name__)


async def execute_generations(settings: Settings) -> None:
    """Execute generations until a signal arrives, then finish the running ones.

    Raises ``PixyProxyException`` if it cannot start, and the error of a background loop that fails.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with open_services(settings, serves=False) as services:
        logger.info("executing generations; upstreams: %s", services.pool.name)
        async with running_loops(*services.loops()):
            await stopped.wait()
            services.slots.open = False
            await services.tasks.drain(settings.shutdown_seconds)
            with contextlib.suppress(DatabaseException):
                await services.heartbeat.stop()
