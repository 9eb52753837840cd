"""Executing a generation: ask an upstream once, keep what it answers, write down how it ended.

1. The generation is committed as ``calling``, with a place at an upstream, before that is asked.
2. The answer goes into the spool as it arrives, and is durable there before anything else happens.
3. The pictures move to the store; then one transaction records them, charges them, settles the generation and gives
   the place that it had to the order that is next, which this process then executes.
4. The spool's entry goes.

Whatever dies in between, ``recovery.py`` goes on from what is in the spool. What is asked for is in the generation's
row, and its input pictures in the store: whoever executes it needs nothing but its id.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pixyproxy.core.exceptions import (
    DatabaseBusyException,
    DatabaseException,
    GenerationDeletedException,
    ImageGenerationException,
    ImageStorageException,
    InputPictureException,
    PixyProxyException,
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
from pixyproxy.core.models.generation import Generation, GenerationError, GenerationStatus, GenerationWithImages
from pixyproxy.core.models.order import UpstreamAnswer
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.kept_answers import KeptAnswers
from pixyproxy.data.files.spool import Spool, SpoolEntry, SpoolFolder
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.generation.places import Places
from pixyproxy.service.private.generation.progress import Execution, Progress
from pixyproxy.service.private.generation.received import PictureLimits, ReceivedAnswer
from pixyproxy.service.private.generation.settlement import (
    Settlement,
    ending_of,
    error_of,
    exception_of,
    lock_budget,
    settle,
)
from pixyproxy.service.private.upstream.pool import UpstreamPool
from pixyproxy.service.private.upstream.scheduling import LEASE_SECONDS, Schedule, Scheduler

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
LEASE_MARGIN_SECONDS = 15
"""A call is begun only while its lease lasts at least this long."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 5.0
"""While the database or the store is away; recovery from that takes no longer."""


class _LeaseOverException(Exception):
    """The process stood still for so long that others may take it for dead; nothing was asked."""


@dataclass(frozen=True)
class Engine:
    """Executes generations.

    ``recorders`` bounds those that record at once: what is paid for waits in turn, without an end, where new orders
    are refused after a while.
    """

    database: Database
    spool: Spool
    answers: KeptAnswers
    store: LocalStore
    pool: UpstreamPool
    scheduler: Scheduler
    places: Places
    progress: Progress
    settlement: Settlement
    limits: PictureLimits
    tasks: DetachedTasks
    recorders: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, RECORDERS))

    def start(self, generation: Generation, *, began: float) -> None:
        """Execute a generation that has a place at an upstream, and one of ``places``.

        ``began`` is when the transaction began that gave it the place.
        """
        execution = Execution(generation, began)
        self.progress.begin(execution)
        self.tasks.start(self._run(execution))

    async def finish(self, generation: Generation, entry: SpoolEntry, folder: SpoolFolder) -> GenerationWithImages:
        """Store and record the pictures of an entry of the spool; again is as good as once.

        Raises ``GenerationDeletedException`` where nobody may ever see them, ``ImageStorageException`` and
        ``DatabaseException``; the entry is then as it was.
        """
        await run_in_thread(self._move, generation, entry, folder)
        stored, _ = await self._record(generation, entry, limit=0)
        return stored

    async def clean(self, generation: Generation, folder: SpoolFolder) -> None:
        """Let go of what the spool holds of a generation that is over. Raises ``ImageStorageException``."""
        await run_in_thread(self._sync_and_unlink, generation, folder)
        await reach(FaultPoint.CLEANED)

    async def _run(self, execution: Execution) -> None:
        """Execute a generation. Never raises but when it is cancelled."""
        try:
            await self._execute(execution)
        except Exception:
            logger.exception("generation %s is left to recovery", execution.generation.guid)
        finally:
            self.progress.end(execution)
            if not execution.handed_over:
                self.places.give_back(1)

    def _hand_over(self, execution: Execution, begun: list[Generation], began: float) -> None:
        """Execute what got the place of a generation that is over; there is one at the most."""
        for generation in begun:
            execution.handed_over = True
            self.start(generation, began=began)

    async def _execute(self, execution: Execution) -> None:
        """Bring a generation to its end, or back to the queue."""
        generation = execution.generation
        try:
            entry = await self._ask(execution)
            moved = await self._keep(generation, entry)
        except asyncio.CancelledError:
            await self._settle_cancelled(execution)
            raise
        except _LeaseOverException:
            logger.warning("generation %s was not begun in time, and waits again", generation.guid)
            await self._write_down(execution, None)
        except Exception as error:  # noqa: BLE001  (whatever it is, the generation has to end)
            await reach(FaultPoint.REFUSED)
            # Not later: once it is written down, the order may be executed anew.
            await (await self.spool.open()).remove(generation.guid)
            await self._write_down(execution, error)
        else:
            await self._see_through(execution, entry, moved=moved)

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

    async def _record(
        self, generation: Generation, entry: SpoolEntry, *, limit: int
    ) -> tuple[GenerationWithImages, list[Generation]]:
        """Record the pictures that are in the store; return what is to be executed next. Raises as ``finish`` does."""
        await reach(FaultPoint.MOVED)

        def record(data: Repositories) -> tuple[GenerationWithImages, list[Generation]]:
            lock_budget(data, generation)
            schedule = self.scheduler.lock(data)
            stored = self.settlement.record(data, generation, entry)
            schedule.leave(generation, None)
            return stored, _begin(schedule, limit)

        try:
            stored = await self.places.decide(self.database, record)
        except GenerationDeletedException:
            for guid, picture in zip(generation.image_guids, entry.pictures, strict=False):
                await self.store.delete(guid, picture.media_type)
            raise
        await reach(FaultPoint.RECORDED)
        return stored

    async def _ask(self, execution: Execution) -> SpoolEntry:
        """The upstream's answer, received."""
        generation = execution.generation
        folder = await self.spool.open()
        inputs = [self.store.orders.input(generation.guid, index) for index in range(len(generation.order.inputs))]
        await run_in_thread(_require_files, inputs) if inputs else None
        pooled = self.pool.by_name[generation.upstream or ""]
        await reach(FaultPoint.CALLING)
        if time.monotonic() - execution.began > LEASE_SECONDS - LEASE_MARGIN_SECONDS:
            raise _LeaseOverException
        loop = asyncio.get_running_loop()
        tell = partial(loop.call_soon_threadsafe, self._tell_preview, generation)
        received = ReceivedAnswer(
            folder, generation.guid, generation.image_guids, self.limits, self.store, self.answers, tell
        )
        execution.asked = True
        try:
            if generation.order.previews:
                await run_in_thread(self.store.orders.prepare, generation.guid)
            async with contextlib.aclosing(received):
                answer = await pooled.upstream.draw(generation.order, inputs=inputs, sink=received)
        except BaseException as error:
            await self._commit_kept(generation, received)
            if not (isinstance(error, BROKE_OFF) and received.whole):
                raise
            logger.warning("generation %s broke off; what came whole is kept", generation.guid)
            answer = UpstreamAnswer()
        await reach(FaultPoint.ANSWERED)
        return SpoolEntry(generation=generation.guid, upstream=pooled.name, pictures=received.whole, answer=answer)

    def _tell_preview(self, generation: Generation) -> None:
        """Tell those who follow here at once, and those elsewhere by the row's version."""
        self.progress.tell(generation.guid)
        self.tasks.start(self._note_preview(generation))

    async def _note_preview(self, generation: Generation) -> None:
        with contextlib.suppress(DatabaseException):
            await self.database.write(
                lambda data: data.generations.note_preview(generation.id, tenant_id=generation.tenant_id)
            )
            self.progress.publish(generation.guid)

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

    async def _write_down(self, execution: Execution, error: Exception | None) -> None:
        """Write down that there is no picture, however long the database is away.

        Where the upstream did nothing and another one serves the model, the order waits again; None: it does so anyway.
        """
        generation = execution.generation
        if error is not None and not isinstance(error, ImageGenerationException | ImageStorageException):
            logger.error("generation %s met something unforeseen", generation.guid, exc_info=error)
        if isinstance(error, ImageStorageException):
            logger.error("generation %s was paid for and could not be received", generation.guid)
        shown = error if isinstance(error, PixyProxyException) else PixyProxyException()

        def write(data: Repositories) -> tuple[GenerationError | None, GenerationStatus, list[Generation]]:
            lock_budget(data, generation)
            schedule = self.scheduler.lock(data)
            told, status = _put_back_or_end(data, schedule, execution, error)
            if error is not None:
                schedule.leave(generation, error)
            return told, status, _begin(schedule, self.places.next_limit)

        for delay in _delays():
            began = time.monotonic()
            try:
                told, status, begun = await self.places.decide(self.database, write)
            except DatabaseException:
                logger.warning("generation %s cannot be settled yet", generation.guid)
                execution.fail(shown)
                await asyncio.sleep(delay)
            else:
                await reach(FaultPoint.SETTLED)
                execution.status = status
                if told is not None:
                    execution.fail(shown if told.code == shown.code else exception_of(told))
                self._hand_over(execution, begun, began)
                return

    async def _settle_cancelled(self, execution: Execution) -> None:
        """The server stops, and the upstream may have done the work; where that cannot be written, recovery will."""
        generation = execution.generation
        ending = ending_of(UpstreamSilentException(), asked=execution.asked, upstream=generation.upstream)

        def write_down(data: Repositories) -> None:
            lock_budget(data, generation)
            if execution.asked:
                settle(data, generation, ending)
            else:
                self.scheduler.lock(data)
                data.queue.put_back(generation, excluded=generation.excluded, error=generation.error)

        with contextlib.suppress(DatabaseException):
            await self.database.write(write_down)

    async def _see_through(self, execution: Execution, entry: SpoolEntry, *, moved: bool) -> None:
        """Record what is safe and ``moved`` to the store; while that cannot be, those who wait are told so."""
        generation, folder = execution.generation, await self.spool.open()
        for delay in _delays():
            try:
                async with self.recorders:
                    if not moved:
                        await run_in_thread(self._move, generation, entry, folder)
                    began = time.monotonic()
                    stored, begun = await self._record(generation, entry, limit=self.places.next_limit)
            except DatabaseBusyException:
                # Its turn will come.
                await asyncio.sleep(FIRST_RETRY_SECONDS)
            except GenerationDeletedException as error:
                execution.status = GenerationStatus.FAILED
                execution.fail(error)
                await folder.remove(generation.guid)
                return
            except Exception as error:  # whatever it is, what was paid for is not given up
                logger.warning("generation %s is safe, and cannot be recorded yet", generation.guid, exc_info=error)
                execution.fail(_pending(generation, error))
                await asyncio.sleep(delay)
            else:
                execution.status = GenerationStatus.STORED
                execution.succeed(stored)
                self._hand_over(execution, begun, began)
                self.progress.announce(generation.guid)
                await self._try_to_clean(stored.generation, folder)
                return

    async def _try_to_clean(self, generation: Generation, folder: SpoolFolder) -> None:
        try:
            await self.clean(generation, folder)
        except ImageStorageException:
            logger.exception("the spool's entry of generation %s stays", generation.guid)


def _put_back_or_end(
    data: Repositories, schedule: Schedule, execution: Execution, error: Exception | None
) -> tuple[GenerationError | None, GenerationStatus]:
    """Let the order wait for another upstream, if there is one; or end it, and return the error that it ends with."""
    generation, excluded = execution.generation, execution.generation.excluded
    former = generation.error
    if isinstance(error, DID_NOTHING) and generation.upstream_id is not None:
        excluded |= {generation.upstream_id}
        # Where all did nothing and one is at its limit, that is told: it passes by itself.
        former = former if former is not None and former.code == UpstreamBusyException.code else error_of(error)
    if error is None or (excluded != generation.excluded and schedule.is_served(generation.order.model, excluded)):
        if error is not None:
            logger.warning("%s did nothing (%s); another upstream is asked", generation.upstream, error_of(error).code)
        data.queue.put_back(generation, excluded=excluded, error=former)
        return None, GenerationStatus.ACCEPTED
    ending = ending_of(error, asked=execution.asked, upstream=generation.upstream)
    if excluded != generation.excluded and former is not None:
        ending = ending.model_copy(update={"error": former})
    settle(data, generation, ending)
    return ending.error, ending.status


def _begin(schedule: Schedule, limit: int) -> list[Generation]:
    """Give what is free to who is next, and write what became of the upstreams."""
    begun = schedule.begin_waiting(limit=limit)
    schedule.save()
    return begun


def _require_files(inputs: list[Path]) -> None:
    """Raise ``InputPictureException`` where an input picture is not in the store (any more)."""
    if not all(path.is_file() for path in inputs):
        raise InputPictureException


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
