"""What time alone brings about: places that become free, orders that waited too long, and what a decision missed.

Every process looks once a second, without a lock unless there is something to do.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import timedelta

from pixyproxy.core import clock
from pixyproxy.core.exceptions import PixyProxyException, QueueTimeoutException
from pixyproxy.core.models.generation import Generation
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.private.generation.engine import Engine
from pixyproxy.service.private.generation.places import Places
from pixyproxy.service.private.generation.progress import wait_at_most
from pixyproxy.service.private.generation.settlement import ending_of, lock_budget, settle
from pixyproxy.service.private.upstream.scheduling import Scheduler

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
BEGUN_AT_ONCE = 20
ENDED_AT_ONCE = 100


@dataclass(frozen=True)
class Dispatcher:
    """Begins what may begin. ``queue_seconds`` is how long an order may wait for a place at an upstream."""

    database: Database
    scheduler: Scheduler
    places: Places
    engine: Engine
    queue_seconds: float
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Look at once: another process cannot begin what waits."""
        self._woken.set()

    async def run_forever(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except PixyProxyException as error:
                logger.warning("orders that wait cannot be begun: %s", error.code)
            except Exception:
                logger.exception("beginning what waits met something unforeseen and will go on")
            await wait_at_most(self._woken, TICK_SECONDS)
            self._woken.clear()

    async def look(self) -> None:
        """Begin what may begin, and end what has waited for too long."""
        if self.places.in_doubt and not self.places.deciding:
            await self.put_back_lost()
        if await self.database.read(lambda data: data.queue.is_empty()):
            return
        await self._end_expired()
        while await self._begin() == BEGUN_AT_ONCE:
            pass

    async def put_back_lost(self) -> None:
        """Let orders wait again that this process was given by a transaction whose answer was lost."""
        # What is decided from here on is later than this, and is known once it is decided.
        before, running = clock.seconds(), list(self.engine.progress.executions)

        def put_back(data: Repositories) -> int:
            self.scheduler.lock(data)
            lost = data.queue.list_lost(self.scheduler.owner, running, before=before, limit=ENDED_AT_ONCE)
            for generation in lost:
                data.queue.put_back(generation, excluded=generation.excluded, error=generation.error)
            return len(lost)

        self.places.in_doubt = False
        try:
            count = await self.database.write(put_back)
        except BaseException:
            self.places.in_doubt = True
            raise
        if count:
            logger.warning("%d orders wait again that this process was given unknowingly", count)

    async def _begin(self) -> int:
        # Its lock tells this machine when the process is dead, so it is held before the process is given anything.
        await self.engine.spool.open()
        began = time.monotonic()
        taken = self.places.take(BEGUN_AT_ONCE)
        begun: list[Generation] = []
        try:
            if taken and await self.database.read(self._is_something_free):
                begun = await self.places.decide(self.database, lambda data: self._begin_waiting(data, taken))
        finally:
            self.places.give_back(taken - len(begun))
        for generation in begun:
            self.engine.start(generation, began=began)
        return len(begun)

    def _is_something_free(self, data: Repositories) -> bool:
        return self.scheduler.look(data).is_something_free

    def _begin_waiting(self, data: Repositories, limit: int) -> list[Generation]:
        schedule = self.scheduler.lock(data)
        begun = schedule.begin_waiting(limit=limit)
        schedule.save()
        return begun

    async def _end_expired(self) -> None:
        oldest = clock.now() - timedelta(seconds=self.queue_seconds)
        expired = await self.database.read(
            lambda data: data.queue.list_expired(created_before=oldest, limit=ENDED_AT_ONCE)
        )
        for generation in expired:

            def end(data: Repositories, generation: Generation = generation) -> None:
                lock_budget(data, generation)
                schedule = self.scheduler.lock(data)
                error = QueueTimeoutException(retry_after_seconds=schedule.retry_after(generation.order.model))
                settle(data, generation, ending_of(error, asked=False), waiting=True)

            await self.database.write(end)
            self.engine.progress.announce(generation.guid)
