"""Executing a generation: ask an upstream once, keep what it answers, write down how it ended.

1. The generation is committed as ``calling`` before the upstream is asked.
2. The answer goes into the spool as it arrives, and is durable there before anything else happens.
3. The pictures move to the store; then one transaction records them, charges them and settles the generation.
4. The spool's entry goes.

Whatever dies in between, ``recovery.py`` goes on from what is in the spool. What is asked for is in the generation's
row: whoever executes it needs nothing but that.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    DatabaseBusyException,
    DatabaseException,
    GenerationDeletedException,
    GenerationInFlightException,
    ImageGenerationException,
    ImageStorageException,
    PixyProxyException,
    QueueFullException,
    RecordPendingException,
    UpstreamAddressException,
    UpstreamAnswerException,
    UpstreamBusyException,
    UpstreamCredentialException,
    UpstreamFundsException,
    UpstreamSilentException,
    UpstreamUnreachableException,
)
from pixyproxy.core.fault_points import FaultPoint, reach, reach_from_thread
from pixyproxy.core.models.generation import Ending, Generation, GenerationStatus, GenerationWithImages
from pixyproxy.core.models.order import UpstreamAnswer
from pixyproxy.data.database import Database
from pixyproxy.data.kept_answers import KeptAnswers
from pixyproxy.data.spool import Spool, SpoolEntry, SpoolFolder
from pixyproxy.data.store.local import LocalStore
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.generation.jobs import Job, Jobs
from pixyproxy.service.private.generation.received import PictureLimits, ReceivedAnswer
from pixyproxy.service.private.generation.settlement import Settlement, ending_of, settle
from pixyproxy.service.private.upstream.pool import Turn, UpstreamPool

logger = logging.getLogger(__name__)

DID_NOTHING = (
    UpstreamBusyException,
    UpstreamUnreachableException,
    UpstreamCredentialException,
    UpstreamFundsException,
    UpstreamAddressException,
)
"""After these another upstream may be asked: the one that said so certainly bought nothing."""
BROKE_OFF = (UpstreamAnswerException, UpstreamSilentException, ImageStorageException)
"""After these, the pictures that came before are kept."""
RECORDERS = 4
LEASE_SECONDS = 60
"""How long a process may be silent before others take it for dead; on its own machine its lock tells at once."""
PREVIEW_SECONDS = 1.0
"""How long previews stay when a generation is over."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 5.0
"""While the database or the store is away; recovery from that takes no longer."""


class _TakenOverException(Exception):
    """Another process has taken this one for dead, and works on the generation."""


@dataclass(frozen=True)
class Engine:
    """Executes generations. ``queue_seconds`` is how long one may wait for a place at an upstream.

    ``recorders`` bounds those that record at once: what is paid for waits in turn, without an end, where new orders
    are refused after a while.
    """

    database: Database
    spool: Spool
    answers: KeptAnswers
    store: LocalStore
    pool: UpstreamPool
    jobs: Jobs
    settlement: Settlement
    limits: PictureLimits
    queue_seconds: float
    recorders: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, RECORDERS))

    async def execute(self, job: Job) -> None:
        """Bring a generation to its end. Never raises but when it is cancelled."""
        try:
            await self._execute(job)
        except _TakenOverException:
            logger.warning("generation %s is executed by another process", job.generation.guid)
            job.fail(GenerationInFlightException(), GenerationStatus.ACCEPTED)
        except BaseException:
            # It was cancelled: another process, or the next, goes on.
            job.fail(GenerationInFlightException(), job.status)
            raise
        finally:
            self.pool.withdraw(job.turn)
            self.jobs.remove(job)

    async def finish(self, generation: Generation, entry: SpoolEntry, folder: SpoolFolder) -> GenerationWithImages:
        """Store and record the pictures of an entry of the spool; again is as good as once.

        Raises ``GenerationDeletedException`` where nobody may ever see them, ``ImageStorageException`` and
        ``DatabaseException``; the entry is then as it was.
        """
        await run_in_thread(self._move, generation, entry, folder)
        return await self._record(generation, entry)

    async def clean(self, generation: Generation, folder: SpoolFolder) -> None:
        """Let go of what the spool holds of a generation that is over. Raises ``ImageStorageException``."""
        await run_in_thread(self._sync_and_unlink, generation, folder)
        await reach(FaultPoint.CLEANED)

    async def _execute(self, job: Job) -> None:
        generation = job.generation
        try:
            entry = await self._ask(job)
            moved = await self._keep(generation, entry)
        except asyncio.CancelledError:
            if job.status is not GenerationStatus.ACCEPTED:
                await self._settle_cancelled(job)
            raise
        except _TakenOverException:
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, the generation has to end)
            await reach(FaultPoint.REFUSED)
            await self._give_up(job, error)
            await _let_previews_be_seen(generation)
            await (await self.spool.open()).remove(generation.guid)
            return
        await self._see_through(job, entry, moved=moved)

    async def _keep(self, generation: Generation, entry: SpoolEntry) -> bool:
        """Make the entry durable and store its pictures; False where they have yet to be stored."""
        try:
            await run_in_thread(self._commit_and_move, generation, entry, asyncio.get_running_loop())
        except Exception:
            logger.exception("the pictures of generation %s have to wait for the store", entry.generation)
            return False
        return True

    def _commit_and_move(self, generation: Generation, entry: SpoolEntry, loop: asyncio.AbstractEventLoop) -> None:
        folder = self.spool.own
        try:
            folder.commit(entry)
        except Exception:
            # The pictures are there, and are stored none the less.
            logger.exception("generation %s has no entry in the spool", entry.generation)
        reach_from_thread(FaultPoint.SPOOLED, loop)
        self._move(generation, entry, folder)

    def _move(self, generation: Generation, entry: SpoolEntry, folder: SpoolFolder) -> None:
        for index, (guid, picture) in enumerate(zip(generation.image_guids, entry.pictures, strict=False)):
            self.store.adopt(folder.picture(generation.guid, index), guid, picture.media_type)

    def _sync_and_unlink(self, generation: Generation, folder: SpoolFolder) -> None:
        self.store.sync(generation.image_guids[: generation.image_count])
        folder.unlink(generation.guid)

    async def _record(self, generation: Generation, entry: SpoolEntry) -> GenerationWithImages:
        """Record the pictures that are in the store. Raises as ``finish`` does."""
        await reach(FaultPoint.MOVED)
        try:
            stored = await self.database.write(lambda data: self.settlement.record(data, generation, entry))
        except GenerationDeletedException:
            for guid, picture in zip(generation.image_guids, entry.pictures, strict=False):
                await self.store.delete(guid, picture.media_type)
            raise
        await reach(FaultPoint.RECORDED)
        return stored

    async def _ask(self, job: Job) -> SpoolEntry:
        """The upstream's answer, received; another upstream is asked only where the one before did nothing.

        Where all did nothing and one is at its limit, that is raised: it passes by itself.
        """
        generation, tried = job.generation, frozenset[str]()
        limit: UpstreamBusyException | None = None
        folder = await self.spool.open()
        loop = asyncio.get_running_loop()
        inputs = [folder.input(generation.guid, index) for index in range(len(generation.order.inputs))]
        deadline = loop.time() + self.queue_seconds
        while True:
            pooled = await job.turn.wait(seconds=deadline - loop.time())
            await self._begin_call(job)
            tell = partial(loop.call_soon_threadsafe, job.change)
            received = ReceivedAnswer(
                folder, generation.guid, generation.image_guids, self.limits, self.store.recent, self.answers, tell
            )
            job.asked = True
            try:
                async with contextlib.aclosing(received):
                    answer = await pooled.upstream.draw(generation.order, inputs=inputs, sink=received)
                job.turn.release()
            except BaseException as error:
                job.turn.release(error)
                tried |= {pooled.name}
                await self._commit_kept(generation, received)
                limit = error if isinstance(error, UpstreamBusyException) else limit
                if isinstance(error, DID_NOTHING) and self.pool.serves_other(generation.order.model, tried):
                    logger.warning("%s did nothing (%s); asking another upstream", pooled.name, error.code)
                    job.asked = False
                    job.turn = self._next_turn(generation, tried, limit or error)
                    continue
                if isinstance(error, DID_NOTHING) and limit is not None:
                    raise limit from error
                if not (isinstance(error, BROKE_OFF) and received.whole):
                    raise
                logger.warning("generation %s broke off; what came whole is kept", generation.guid)
                answer = UpstreamAnswer()
            await reach(FaultPoint.ANSWERED)
            return SpoolEntry(generation=generation.guid, upstream=pooled.name, pictures=received.whole, answer=answer)

    async def _commit_kept(self, generation: Generation, received: ReceivedAnswer) -> None:
        """Make the answer durable that cannot be used, if there is one, for the operator to look at."""
        if received.kept is None:
            return
        try:
            await run_in_thread(received.commit_kept)
        except ImageStorageException:
            logger.exception("generation %s: the answer that cannot be used is not kept", generation.guid)
        else:
            path = received.kept.path
            logger.error("generation %s was paid for, and its picture cannot be stored: see %s", generation.guid, path)

    def _next_turn(self, generation: Generation, tried: frozenset[str], error: ImageGenerationException) -> Turn:
        """A turn at an upstream that was not tried; where the queue is full, what the last one said is the answer."""
        try:
            return self.pool.join(generation.tenant_id, generation.order.model, excluding=tried)
        except QueueFullException:
            raise error from None

    async def _begin_call(self, job: Job) -> None:
        """Commit that the upstream is about to be asked, unless that is so."""
        if job.status is GenerationStatus.ACCEPTED:
            generation, moment = job.generation, clock.now()
            begun = await self.database.write(
                lambda data: data.generations.begin_call(
                    generation.id,
                    self.spool.owner,
                    tenant_id=generation.tenant_id,
                    until=moment + timedelta(seconds=LEASE_SECONDS),
                    at=moment,
                )
            )
            if not begun:
                raise _TakenOverException
            job.change(GenerationStatus.CALLING)
        await reach(FaultPoint.CALLING)

    async def _give_up(self, job: Job, error: Exception) -> None:
        """Settle a generation that gave an error; those who wait get the error, however long the database is away."""
        if not isinstance(error, ImageGenerationException | ImageStorageException):
            logger.error("generation %s met something unforeseen", job.generation.guid, exc_info=error)
        if isinstance(error, ImageStorageException):
            logger.error("generation %s was paid for and could not be received", job.generation.guid)
        ending = ending_of(error, asked=job.asked, upstream=job.upstream)
        shown = error if isinstance(error, PixyProxyException) else PixyProxyException()
        await self._settle(job, ending, shown)

    async def _settle(self, job: Job, ending: Ending, shown: PixyProxyException) -> None:
        for delay in _delays():
            try:
                await self.database.write(lambda data: settle(data, job.generation, ending))
            except DatabaseException:
                logger.warning("generation %s cannot be settled as %s yet", job.generation.guid, ending.status)
                job.fail(shown, ending.status)
                await asyncio.sleep(delay)
            else:
                await reach(FaultPoint.SETTLED)
                job.fail(shown, ending.status)
                return

    async def _settle_cancelled(self, job: Job) -> None:
        """The server stops, and the upstream may have done the work; where that cannot be written, recovery will."""
        ending = ending_of(UpstreamSilentException(), asked=job.asked, upstream=job.upstream)
        with contextlib.suppress(DatabaseException):
            await self.database.write(lambda data: settle(data, job.generation, ending))

    async def _see_through(self, job: Job, entry: SpoolEntry, *, moved: bool) -> None:
        """Record what is safe and ``moved`` to the store; while that cannot be, those who wait are told so."""
        generation, folder = job.generation, await self.spool.open()
        for delay in _delays():
            try:
                async with self.recorders:
                    if moved:
                        stored = await self._record(generation, entry)
                    else:
                        stored = await self.finish(generation, entry, folder)
            except DatabaseBusyException:
                # Its turn will come.
                await asyncio.sleep(FIRST_RETRY_SECONDS)
            except GenerationDeletedException as error:
                job.fail(error, GenerationStatus.FAILED)
                await folder.remove(generation.guid)
                return
            except Exception as error:  # whatever it is, what was paid for is not given up
                logger.warning("generation %s is safe, and cannot be recorded yet", generation.guid, exc_info=error)
                job.fail(_pending(generation, error), GenerationStatus.CALLING)
                await asyncio.sleep(delay)
            else:
                job.succeed(stored)
                await _let_previews_be_seen(generation)
                await self._try_to_clean(stored.generation, folder)
                return

    async def _try_to_clean(self, generation: Generation, folder: SpoolFolder) -> None:
        try:
            await self.clean(generation, folder)
        except ImageStorageException:
            logger.exception("the spool's entry of generation %s stays", generation.guid)


async def _let_previews_be_seen(generation: Generation) -> None:
    """Wait for those who follow a generation that is over, and have yet to read its last previews."""
    if generation.order.previews:
        await asyncio.sleep(PREVIEW_SECONDS)


def _delays() -> Iterator[float]:
    """How long to wait before each further attempt, without end, in seconds."""
    delay = FIRST_RETRY_SECONDS
    while True:
        yield delay
        delay = min(delay * 2, LAST_RETRY_SECONDS)


def _pending(generation: Generation, error: Exception) -> PixyProxyException:
    """What those who wait are told: the picture is safe."""
    context = {"image": generation.image_guids[0], "generation": generation.guid}
    pending = RecordPendingException(context=context)
    pending.__cause__ = error
    return pending
