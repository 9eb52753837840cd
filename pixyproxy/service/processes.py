"""Heartbeats: each process registers in the database and sees which others serve."""

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
"""A process seen within this time counts as alive."""
KEPT = timedelta(minutes=5)
"""Rows of crashed processes are deleted after this time."""


@dataclass
class Heartbeat:
    """Maintains the row of this process."""

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
                logger.debug("heartbeat not written: %s", error.code)
            await asyncio.sleep(BEAT_SECONDS)

    async def beat(self) -> None:
        """Write the row; warn once if other processes serve and request limits are not shared.

        Only processes seen after this one started count, so that the row of a crashed process causes no warning.
        Raises ``DatabaseException``.
        """
        own, others = await self.database.write(self._beat)
        serving = [each for each in others if each.serves and each.seen_at > own.started_at]
        apart = self.serves and not self.redis and bool(serving)
        if apart and not self._warned:
            logger.warning(
                "%d other processes serve requests (%s) and PIXYPROXY_REDIS_URL is not set: each process counts "
                "requests on its own, so that together they allow a multiple of each request limit",
                len(serving),
                ", ".join(map(str, serving)),
            )
        self._warned = apart

    async def stop(self) -> None:
        """Remove the row. Raises ``DatabaseException``."""
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
    """Return the processes that serve now. Raises ``DatabaseException``."""
    alive = await database.read(lambda data: data.processes.list_seen(since=data.processes.now() - ALIVE))
    return [each for each in alive if each.serves]
