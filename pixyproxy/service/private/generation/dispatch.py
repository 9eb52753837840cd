"""Start waiting orders when time frees a slot, expire orders that waited too long, and repair missed decisions.

Every process polls once a second, without a lock unless there is something to do.
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
from pixyproxy.service.private.generation.progress import wait_at_most
from pixyproxy.service.private.generation.settlement import lock_budget, outcome_of, settle
from pixyproxy.service.private.generation.slots import ProcessSlots
from pixyproxy.service.private.upstream.scheduling import Scheduler

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
BEGUN_AT_ONCE = 20
ENDED_AT_ONCE = 100


@dataclass(frozen=True)
class Dispatcher:
    """Starts waiting orders. ``queue_seconds`` is how long an order may wait for a slot at an upstream."""

    database: Database
    scheduler: Scheduler
    slots: ProcessSlots
    engine: Engine
    queue_seconds: float
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Poll immediately: another process has orders that it cannot start."""
        self._woken.set()

    async def run_forever(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                await self.look()
            except PixyProxyException as error:
                logger.warning("waiting orders cannot be started and will be retried: %s", error.code)
            except Exception:
                logger.exception("unexpected error while starting waiting orders; will retry")
            await wait_at_most(self._woken, TICK_SECONDS)
            self._woken.clear()

    async def look(self) -> None:
        """Start the orders that have a slot and fail those that waited too long."""
        if self.slots.in_doubt and not self.slots.deciding:
            await self.put_back_lost()
        if await self.database.read(lambda data: data.queue.is_empty()):
            return
        await self._end_expired()
        while await self._begin() == BEGUN_AT_ONCE:
            pass

    async def put_back_lost(self) -> None:
        """Return orders to the queue that a transaction in doubt may have given to this process."""
        # Decisions made from here on are later than this and their results are known.
        before, running = clock.seconds(), list(self.engine.progress.executions)

        def put_back(data: Repositories) -> int:
            self.scheduler.lock(data)
            lost = data.queue.list_lost(self.scheduler.owner, running, before=before, limit=ENDED_AT_ONCE)
            for generation in lost:
                data.queue.put_back(generation, excluded=generation.excluded, error=generation.error)
            return len(lost)

        self.slots.in_doubt = False
        try:
            count = await self.database.write(put_back)
        except BaseException:
            self.slots.in_doubt = True
            raise
        if count:
            logger.warning("%d orders returned to the queue after a COMMIT whose result was lost", count)

    async def _begin(self) -> int:
        # The spool's lock shows this machine when the process is dead, so hold it before the process owns any order.
        await self.engine.spool.open()
        began = time.monotonic()
        taken = self.slots.take(BEGUN_AT_ONCE)
        begun: list[Generation] = []
        try:
            if taken and await self.database.read(self._is_something_free):
                begun = await self.slots.decide(self.database, lambda data: self._start_waiting(data, taken))
        finally:
            self.slots.give_back(taken - len(begun))
        for generation in begun:
            self.engine.start(generation, began=began)
        return len(begun)

    def _is_something_free(self, data: Repositories) -> bool:
        return self.scheduler.look(data).is_something_free

    def _start_waiting(self, data: Repositories, limit: int) -> list[Generation]:
        schedule = self.scheduler.lock(data)
        begun = schedule.start_waiting(limit=limit)
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
                settle(data, generation, outcome_of(error, asked=False), waiting=True)

            await self.database.write(end)
            self.engine.progress.announce(generation.guid)
