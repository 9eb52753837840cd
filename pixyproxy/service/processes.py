"""Heartbeats: each process announces itself in the database, and learns which others serve."""

import asyncio
import logging
import os
import socket
import uuid
from dataclasses import dataclass, field
from datetime import timedelta

from pixyproxy.core.exceptions import PixyProxyException
from pixyproxy.core.models.generation import ProcessGuid
from pixyproxy.core.models.process import Process
from pixyproxy.data.database import Database, Repositories

logger = logging.getLogger(__name__)

BEAT_SECONDS = 15
ALIVE = timedelta(seconds=3 * BEAT_SECONDS)
"""A process that was seen within this time is taken for alive."""
KEPT = timedelta(minutes=5)
"""Rows of processes that crashed are deleted after this time."""


@dataclass
class Heartbeat:
    """The row of this process."""

    database: Database
    redis: bool
    """Whether this process counts request limits in Redis."""
    serves: bool = True
    executes: bool = True
    guid: ProcessGuid = field(default_factory=lambda: ProcessGuid(str(uuid.uuid4())))
    _warned: bool = field(default=False, init=False)

    async def run_forever(self) -> None:
        """Beat every ``BEAT_SECONDS`` until cancelled."""
        while True:
            try:
                await self.beat()
            except PixyProxyException as error:
                logger.debug("a heartbeat could not be written: %s", error.code)
            await asyncio.sleep(BEAT_SECONDS)

    async def beat(self) -> None:
        """Write the row, and warn once if request limits do not hold because others serve. Raise ``DatabaseException``.

        A process counts as another one that serves when it was seen alive after this one started: the row of a
        process that crashed before is no cause for a warning.
        """
        own, others = await self.database.write(self._beat)
        serving = [each for each in others if each.serves and each.seen_at > own.started_at]
        apart = self.serves and not self.redis and bool(serving)
        if apart and not self._warned:
            logger.warning(
                "%d other processes serve (%s) and no PIXYPROXY_REDIS_URL is set: each counts requests for itself, "
                "so that all together let through a multiple of each request limit",
                len(serving),
                ", ".join(map(str, serving)),
            )
        self._warned = apart

    async def stop(self) -> None:
        """Remove the row. Raise ``DatabaseException``."""
        await self.database.write(lambda data: data.processes.delete(self.guid))

    def _beat(self, data: Repositories) -> tuple[Process, list[Process]]:
        now = data.processes.now()
        data.processes.delete_unseen(before=now - KEPT)
        if not data.processes.touch(self.guid, seen_at=now):
            data.processes.insert(
                Process(
                    guid=self.guid,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    serves=self.serves,
                    executes=self.executes,
                    redis=self.redis,
                    started_at=now,
                    seen_at=now,
                )
            )
        alive = data.processes.list_seen(since=now - ALIVE)
        own = next(each for each in alive if each.guid == self.guid)
        return own, [each for each in alive if each.guid != self.guid]


async def list_serving(database: Database) -> list[Process]:
    """Return the processes that serve now. Raise ``DatabaseException``."""
    alive = await database.read(lambda data: data.processes.list_seen(since=data.processes.now() - ALIVE))
    return [each for each in alive if each.serves]
