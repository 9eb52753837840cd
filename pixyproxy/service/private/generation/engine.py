"""Execute a generation: call an upstream once, receive its response, record the outcome.

1. The generation is committed as ``calling``, with a slot at an upstream, before the call.
2. The response is written to the spool as it arrives, and is durable there before the next step.
3. The pictures move to the store. One transaction then records and charges them, settles the generation and gives
   its slot to the next order, which this process executes.
4. The spool entry is removed.

If the process dies in between, ``recovery.py`` continues from the spool. The order is in the generation's row and its
input pictures are in the store, so any process can execute it by its id.
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
from pixyproxy.data.files.retained_answers import RetainedAnswers
from pixyproxy.data.files.spool import Spool, SpoolEntry, SpoolFolder
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.generation.progress import Execution, Progress
from pixyproxy.service.private.generation.received import PictureLimits, ReceivedAnswer
from pixyproxy.service.private.generation.settlement import (
    Settlement,
    error_of,
    exception_of,
    lock_budget,
    outcome_of,
    settle,
)
from pixyproxy.service.private.generation.slots import ProcessSlots
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
"""Errors after which another upstream may be called: this one certainly bought nothing."""
BROKE_OFF = (UpstreamAnswerException, UpstreamSilentException, ImageStorageException)
"""Errors after which the pictures received before are kept."""
RECORDERS = 4
LEASE_MARGIN_SECONDS = 15
"""A call starts only if its lease lasts at least this long."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 5.0
"""Retry delays while the database or the store is unavailable; recovery takes no longer."""


class _LeaseOverException(Exception):
    """The process stalled so long that others may consider it dead; no upstream was called."""


@dataclass(frozen=True)
class Engine:
    """Executes generations.

    ``recorders`` limits concurrent recording: paid pictures wait their turn without a time limit, while new orders are
    rejected after a while.
    """

    database: Database
    spool: Spool
    answers: RetainedAnswers
    store: LocalStore
    pool: UpstreamPool
    scheduler: Scheduler
    slots: ProcessSlots
    progress: Progress
    settlement: Settlement
    limits: PictureLimits
    tasks: DetachedTasks
    recorders: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, RECORDERS))

    def start(self, generation: Generation, *, began: float) -> None:
        """Execute a generation that has a slot at an upstream and one of ``slots``.

        ``began`` is when the transaction started that gave it the slot.
        """
        execution = Execution(generation, began)
        self.progress.begin(execution)
        self.tasks.start(self._run(execution))

    async def finish(self, generation: Generation, entry: SpoolEntry, folder: SpoolFolder) -> GenerationWithImages:
        """Store and record the pictures of a spool entry; idempotent.

        Raise ``GenerationDeletedException`` if they were deleted, ``ImageStorageException`` or ``DatabaseException``;
        the entry is then unchanged.
        """
        await run_in_thread(self._move, generation, entry, folder)
        stored, _ = await self._record(generation, entry, limit=0)
        return stored

    async def clean(self, generation: Generation, folder: SpoolFolder) -> None:
        """Remove the spool entry of a finished generation. Raise ``ImageStorageException``."""
        await run_in_thread(self._sync_and_unlink, generation, folder)
        await reach(FaultPoint.CLEANED)

    async def _run(self, execution: Execution) -> None:
        """Execute a generation. Raises only on cancellation."""
        try:
            await self._execute(execution)
        except Exception:
            logger.exception("generation %s failed unexpectedly and is left to recovery", execution.generation.guid)
        finally:
            self.progress.end(execution)
            if not execution.handed_over:
                self.slots.give_back(1)

    def _hand_over(self, execution: Execution, begun: list[Generation], began: float) -> None:
        """Execute the order, at most one, that got the slot of a finished generation."""
        for generation in begun:
            execution.handed_over = True
            self.start(generation, began=began)

    async def _execute(self, execution: Execution) -> None:
        """Execute a generation to its outcome, or return it to the queue."""
        generation = execution.generation
        try:
            entry = await self._ask(execution)
            moved = await self._keep(generation, entry)
        except asyncio.CancelledError:
            await self._settle_cancelled(execution)
            raise
        except _LeaseOverException:
            logger.warning("generation %s missed its lease before the call and returns to the queue", generation.guid)
            await self._write_down(execution, None)
        except Exception as error:  # noqa: BLE001  (any error must settle the generation)
            await reach(FaultPoint.REFUSED)
            # Remove the entry first: once the outcome is recorded, the order may be executed anew.
            await (await self.spool.open()).remove(generation.guid)
            await self._write_down(execution, error)
        else:
            await self._see_through(execution, entry, moved=moved)

    async def _keep(self, generation: Generation, entry: SpoolEntry) -> bool:
        """Make the entry durable and store its pictures; return False if they could not be stored yet."""
        try:
            await run_in_thread(self._commit_and_move, generation, entry, asyncio.get_running_loop())
        except Exception:
            logger.exception("generation %s: its pictures cannot be stored yet; will retry", entry.generation)
            return False
        return True

    def _commit_and_move(self, generation: Generation, entry: SpoolEntry, loop: asyncio.AbstractEventLoop) -> None:
        folder = self.spool.own
        try:
            folder.commit(entry)
        except Exception:
            # The pictures exist and are still stored.
            logger.exception("generation %s: its spool entry cannot be written", entry.generation)
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
        """Record the stored pictures; return what to execute next. Raise as ``finish`` does."""
        await reach(FaultPoint.MOVED)

        def record(data: Repositories) -> tuple[GenerationWithImages, list[Generation]]:
            lock_budget(data, generation)
            schedule = self.scheduler.lock(data)
            stored = self.settlement.record(data, generation, entry)
            schedule.leave(generation, None)
            return stored, _begin(schedule, limit)

        try:
            stored = await self.slots.decide(self.database, record)
        except GenerationDeletedException:
            for guid, picture in zip(generation.image_guids, entry.pictures, strict=False):
                await self.store.delete(guid, picture.media_type)
            raise
        await reach(FaultPoint.RECORDED)
        return stored

    async def _ask(self, execution: Execution) -> SpoolEntry:
        generation = execution.generation
        folder = await self.spool.open()
        inputs = [self.store.orders.input(generation.guid, index) for index in range(len(generation.order.inputs))]
        await run_in_thread(_require_files, inputs) if inputs else None
        pooled = self.pool.by_name[generation.upstream or ""]
        await reach(FaultPoint.CALLING)
        if time.monotonic() - execution.began > LEASE_SECONDS - LEASE_MARGIN_SECONDS:
            raise _LeaseOverException
        loop = asyncio.get_running_loop()
        notify = partial(loop.call_soon_threadsafe, self._notify_preview, generation)
        received = ReceivedAnswer(
            folder, generation.guid, generation.image_guids, self.limits, self.store, self.answers, notify
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
            logger.warning("generation %s: the response broke off; its complete pictures are kept", generation.guid)
            answer = UpstreamAnswer()
        await reach(FaultPoint.ANSWERED)
        return SpoolEntry(generation=generation.guid, upstream=pooled.name, pictures=received.whole, answer=answer)

    def _notify_preview(self, generation: Generation) -> None:
        """Notify followers in this process at once, and others by the row's version."""
        self.progress.notify(generation.guid)
        self.tasks.start(self._note_preview(generation))

    async def _note_preview(self, generation: Generation) -> None:
        with contextlib.suppress(DatabaseException):
            await self.database.write(
                lambda data: data.generations.note_preview(generation.id, tenant_id=generation.tenant_id)
            )
            self.progress.publish(generation.guid)

    async def _commit_kept(self, generation: Generation, received: ReceivedAnswer) -> None:
        """Make the retained answer, if any, durable for the operator."""
        if received.kept is None:
            return
        try:
            await run_in_thread(received.commit_kept)
        except ImageStorageException:
            logger.exception("generation %s: its unusable answer cannot be retained", generation.guid)
        else:
            path = received.kept.path
            logger.error("generation %s was paid for, and its picture cannot be stored: see %s", generation.guid, path)

    async def _write_down(self, execution: Execution, error: Exception | None) -> None:
        """Record that there is no picture, retrying while the database is unavailable.

        If the upstream did nothing and another one serves the model, return the order to the queue; None always does
        so.
        """
        generation = execution.generation
        if error is not None and not isinstance(error, ImageGenerationException | ImageStorageException):
            logger.error("generation %s failed with an unexpected error", generation.guid, exc_info=error)
        if isinstance(error, ImageStorageException):
            logger.error(
                "generation %s was paid for and could not be received: check the disk of the spool", generation.guid
            )
        shown = error if isinstance(error, PixyProxyException) else PixyProxyException()

        def write(data: Repositories) -> tuple[GenerationError | None, GenerationStatus, list[Generation]]:
            lock_budget(data, generation)
            schedule = self.scheduler.lock(data)
            reported, status = _put_back_or_end(data, schedule, execution, error)
            if error is not None:
                schedule.leave(generation, error)
            return reported, status, _begin(schedule, self.slots.next_limit)

        for delay in _delays():
            began = time.monotonic()
            try:
                reported, status, begun = await self.slots.decide(self.database, write)
            except DatabaseException:
                logger.warning("generation %s cannot be settled yet; will retry", generation.guid)
                execution.fail(shown)
                await asyncio.sleep(delay)
            else:
                await reach(FaultPoint.SETTLED)
                execution.status = status
                if reported is not None:
                    execution.fail(shown if reported.code == shown.code else exception_of(reported))
                self._hand_over(execution, begun, began)
                return

    async def _settle_cancelled(self, execution: Execution) -> None:
        """Settle at shutdown, when the upstream may have done the work; recovery does it if this write fails."""
        generation = execution.generation
        outcome = outcome_of(UpstreamSilentException(), asked=execution.asked, upstream=generation.upstream)

        def write_down(data: Repositories) -> None:
            lock_budget(data, generation)
            if execution.asked:
                settle(data, generation, outcome)
            else:
                self.scheduler.lock(data)
                data.queue.put_back(generation, excluded=generation.excluded, error=generation.error)

        with contextlib.suppress(DatabaseException):
            await self.database.write(write_down)

    async def _see_through(self, execution: Execution, entry: SpoolEntry, *, moved: bool) -> None:
        """Record the pictures, storing them first unless ``moved``; while that fails, waiting clients get an error."""
        generation, folder = execution.generation, await self.spool.open()
        for delay in _delays():
            try:
                async with self.recorders:
                    if not moved:
                        await run_in_thread(self._move, generation, entry, folder)
                    began = time.monotonic()
                    stored, begun = await self._record(generation, entry, limit=self.slots.next_limit)
            except DatabaseBusyException:
                # All connections are in use; retry.
                await asyncio.sleep(FIRST_RETRY_SECONDS)
            except GenerationDeletedException as error:
                execution.status = GenerationStatus.FAILED
                execution.fail(error)
                await folder.remove(generation.guid)
                return
            except Exception as error:  # after any error, keep the paid picture
                logger.warning(
                    "generation %s is safe but cannot be recorded yet; will retry", generation.guid, exc_info=error
                )
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
            logger.exception("generation %s: its spool entry cannot be removed; recovery will retry", generation.guid)


def _put_back_or_end(
    data: Repositories, schedule: Schedule, execution: Execution, error: Exception | None
) -> tuple[GenerationError | None, GenerationStatus]:
    """Return the order to the queue for another upstream if one is eligible; else settle it and return its error."""
    generation, excluded = execution.generation, execution.generation.excluded
    former = generation.error
    if isinstance(error, DID_NOTHING) and generation.upstream_id is not None:
        excluded |= {generation.upstream_id}
        # If none did the work and one is at its limit, report the limit: it is temporary.
        former = former if former is not None and former.code == UpstreamBusyException.code else error_of(error)
    if error is None or (excluded != generation.excluded and schedule.is_served(generation.order.model, excluded)):
        if error is not None:
            logger.warning("%s did nothing (%s); calling another upstream", generation.upstream, error_of(error).code)
        data.queue.put_back(generation, excluded=excluded, error=former)
        return None, GenerationStatus.ACCEPTED
    outcome = outcome_of(error, asked=execution.asked, upstream=generation.upstream)
    if excluded != generation.excluded and former is not None:
        outcome = outcome.model_copy(update={"error": former})
    settle(data, generation, outcome)
    return outcome.error, outcome.status


def _begin(schedule: Schedule, limit: int) -> list[Generation]:
    """Give free slots to the next orders and store the state of the upstreams."""
    begun = schedule.start_waiting(limit=limit)
    schedule.save()
    return begun


def _require_files(inputs: list[Path]) -> None:
    """Raise ``InputPictureException`` if an input picture is missing from the store."""
    if not all(path.is_file() for path in inputs):
        raise InputPictureException


def _delays() -> Iterator[float]:
    """Yield the seconds to wait before each further attempt, without end."""
    delay = FIRST_RETRY_SECONDS
    while True:
        yield delay
        delay = min(delay * 2, LAST_RETRY_SECONDS)


def _pending(generation: Generation, error: Exception) -> PixyProxyException:
    """Return the error for waiting clients: the picture is safe but not recorded yet."""
    context = {"image": generation.image_guids[0], "generation": generation.guid}
    pending = RecordPendingException(context=context)
    pending.__cause__ = error
    return pending
