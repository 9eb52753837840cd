"""Watch generations: every client sees the same state, from any process and however it asks.

A client that waits, polls, follows the events or repeats its request with the same Idempotency-Key reads one row.
Changes of generations that this process executes are reported at once; one loop per process polls the rows of all
others that are followed in it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    GenerationCancelledException,
    GenerationNotFoundException,
    GenerationUnknownException,
    PixyProxyException,
)
from pixyproxy.core.models.generation import (
    Generation,
    GenerationChange,
    GenerationFilter,
    GenerationGuid,
    GenerationStatus,
    GenerationWithImages,
)
from pixyproxy.core.models.image import GenerationId, StoredImage
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.cursors import CursorCodec
from pixyproxy.service.private.generation.progress import Execution, FollowedTenant, Progress, has_moved
from pixyproxy.service.private.generation.retries import LONGEST_ORDER
from pixyproxy.service.private.generation.settlement import exception_of, require_images
from pixyproxy.service.private.upstream.scheduling import Scheduler

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often a process polls the followed generations that are executed elsewhere."""
LOOKED_AT_ONCE = 500
HEARTBEAT_SECONDS = 15.0
RECENT_SECONDS = 60
"""How long finished generations are polled along with open ones, since some finish between two polls."""
LATE_SECONDS = 10
"""How long after the time in its row a change may be committed."""
LONGEST_ABSENCE_SECONDS = 3600
MOST_ENDED = 1000
EVENTS_AT_ONCE = 100
ACCEPTED_ID, CALLING_ID, FIRST_PREVIEW_ID, FINAL_ID = 1, 2, 3, 100
"""An event's id depends on its content, not on time, so any process can continue the stream of another."""


@dataclass(frozen=True)
class GenerationState:
    """The state of a generation. ``position`` is 1 for the next in the queue, None if it does not wait."""

    found: GenerationWithImages
    status: GenerationStatus
    position: int | None = None
    estimate_seconds: float | None = None


@dataclass(frozen=True)
class Preview:
    """The complete file of a preview."""

    index: int
    path: Path
    generation: Generation


@dataclass(frozen=True)
class GenerationEvent:
    """A change of a generation; ``what`` is None for a heartbeat."""

    id: int
    what: GenerationState | Preview | None


@dataclass(frozen=True)
class GenerationPage:
    """One page of a list, and the cursor of the next page if there is one."""

    generations: list[GenerationWithImages]
    next_cursor: str | None


@dataclass(frozen=True)
class GenerationWatcher:
    """Reports the state and the changes of generations."""

    database: Database
    store: LocalStore
    scheduler: Scheduler
    progress: Progress
    cursors: CursorCodec
    look_seconds: float = LOOK_SECONDS
    heartbeat_seconds: float = HEARTBEAT_SECONDS

    async def look_forever(self) -> None:
        """Poll what is followed in this process until cancelled."""
        while True:
            await self.progress.pause(self.look_seconds)
            try:
                await self._look()
            except PixyProxyException as error:
                logger.warning("changes of generations cannot be read and will be retried: %s", error.code)
            except Exception:
                logger.exception("unexpected error while polling for changes; will retry")

    async def outcome(
        self, guid: GenerationGuid, *, tenant_id: TenantId, seconds: float | None = None, replayed: bool = True
    ) -> GenerationWithImages:
        """Return the generation with its pictures, once they are stored.

        Only the original request, which is not ``replayed``, gets the reason of an unknown outcome. Raise the error of
        the failed generation, ``GenerationUnknownException``, ``GenerationCancelledException``,
        ``GenerationDeletedException`` or ``GenerationNotFoundException``; raise ``TimeoutError`` if it does not finish
        within ``seconds``.
        """
        async with asyncio.timeout(seconds):
            with self.progress.follow(guid) as followed:
                while True:
                    execution = self._execution(guid, tenant_id)
                    if execution is not None and not execution.status.is_final:
                        stored = await asyncio.shield(execution.outcome)
                        if stored is not None:
                            return stored
                    count = followed.count
                    found = await self.database.read(lambda data: _outcome(data, guid, tenant_id, replayed=replayed))
                    if found is not None:
                        return found
                    await followed.wait(count)

    async def list_generations(
        self, wanted: GenerationFilter, *, tenant_id: TenantId, limit: int, cursor: str | None
    ) -> GenerationPage:
        """Return at most ``limit`` generations of the tenant, newest first. Raise ``InvalidCursorException``."""
        before = None if cursor is None else GenerationId(self.cursors.decode(cursor, wanted))

        def find(data: Repositories) -> list[GenerationWithImages]:
            found = data.generations.list_own(wanted, tenant_id=tenant_id, before=before, limit=limit + 1)
            images = data.images.list_of_generations([each.id for each in found], tenant_id=tenant_id)
            return [_with_images(each, images) for each in found]

        found = await self.database.read(find)
        page = found[:limit]
        following = self.cursors.encode(page[-1].generation.id, wanted) if len(found) > limit else None
        return GenerationPage(page, following)

    async def state(self, guid: GenerationGuid, *, tenant_id: TenantId) -> GenerationState:
        """Return the current state of a tenant's generation. Raise ``GenerationNotFoundException``."""
        execution = self._execution(guid, tenant_id)
        if execution is not None and not execution.status.is_final:
            return GenerationState(GenerationWithImages(generation=execution.generation, images=()), execution.status)

        def find(data: Repositories) -> GenerationState:
            found = _require(data, guid, tenant_id)
            generation = found.generation
            if generation.status is not GenerationStatus.ACCEPTED:
                return GenerationState(found, generation.status)
            queue_positions = self.scheduler.look(data).queue_positions(tenant_id)
            return GenerationState(found, generation.status, *queue_positions.get(generation.id, (None, None)))

        return await self.database.read(find)

    async def events(self, guid: GenerationGuid, *, tenant_id: TenantId, after: int) -> AsyncIterator[GenerationEvent]:
        """Yield what happened to a generation since the event with the id ``after``, until the final event.

        Raise ``GenerationNotFoundException`` and ``DatabaseException``.
        """
        last_id, position, polled = after, None, False
        idle_since = time.monotonic()
        with self.progress.follow(guid) as followed:
            while last_id < FINAL_ID:
                count = followed.count
                state = await self.state(guid, tenant_id=tenant_id)
                new_events = await self._new_events(state, last_id, moved=state.position != position)
                if polled and state.status.is_final:
                    # Previews since the last poll; a client that connects after the outcome gets only that.
                    new_events = [*await self._previews(state.found.generation, last_id), *new_events]
                for event in new_events:
                    yield event
                if new_events:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since >= self.heartbeat_seconds:
                    yield GenerationEvent(last_id, None)
                    idle_since = time.monotonic()
                last_id, position, polled = max([last_id, *(event.id for event in new_events)]), state.position, True
                if state.status.is_final:
                    return
                await followed.wait(count, idle_since + self.heartbeat_seconds - time.monotonic())

    async def tenant_events(self, *, tenant_id: TenantId, after: int | None) -> AsyncIterator[GenerationEvent]:
        """Yield every open generation of the tenant, then each change of any of them, without end.

        The id of an event is a time in seconds since 1970; everything before it was reported. With such an id in
        ``after``, start with what finished since then, at most an hour back; some events may repeat. Raise
        ``DatabaseException``.
        """
        with self.progress.follow_tenant(tenant_id) as followed:
            if followed.looked_at is None:
                await self._poll_tenant(tenant_id, followed)
            done_until, idle_since = followed.looked_at_second, time.monotonic()
            known = {each.guid: (each.status, each.position) for each in followed.changes if each.status.is_final}
            missed: list[GenerationChange] = []
            if after is not None:
                done_until = min(done_until, max(after, done_until - LONGEST_ABSENCE_SECONDS))
                missed = await self.database.read(partial(_ended_since, moment=done_until, tenant_id=tenant_id))
                for each in missed:
                    known.pop(each.guid, None)
            while True:
                count, looked_at = followed.count, followed.looked_at_second
                present = {each.guid: each for each in [*missed, *followed.changes]}
                new_events = [
                    guid for guid, (status, _) in known.items() if not status.is_final and guid not in present
                ]
                new_events += [guid for guid, each in present.items() if _has_changed(each, known.get(guid))]
                for start in range(0, len(new_events), EVENTS_AT_ONCE):
                    some = new_events[start : start + EVENTS_AT_ONCE]
                    for state in await self.database.read(partial(self._states, guids=some, tenant_id=tenant_id)):
                        yield GenerationEvent(done_until, state)
                        known[state.found.generation.guid] = state.status, state.position
                        idle_since = time.monotonic()
                if time.monotonic() - idle_since >= self.heartbeat_seconds:
                    yield GenerationEvent(done_until, None)
                    idle_since = time.monotonic()
                known = {guid: each for guid, each in known.items() if guid in present}
                missed = []
                if looked_at - done_until > RECENT_SECONDS // 2:
                    # The client reads slowly, or the database was unavailable.
                    missed = await self.database.read(partial(_ended_since, moment=done_until, tenant_id=tenant_id))
                done_until = looked_at
                if not missed:
                    await followed.wait(count, idle_since + self.heartbeat_seconds - time.monotonic())

    async def pictures(self, found: GenerationWithImages) -> list[bytes | Path]:
        """Return the images in order, as bytes or as files. Raise ``PictureMissingException``."""
        return [await self.store.at_hand(image.guid, image.media_type) for image in found.images]

    async def _new_events(self, state: GenerationState, last_id: int, *, moved: bool) -> list[GenerationEvent]:
        """Return what happened since the event with the id ``last_id``, in order."""
        if state.status.is_final:
            return [GenerationEvent(FINAL_ID, state)]
        new_events = []
        if state.status is GenerationStatus.ACCEPTED and (last_id < ACCEPTED_ID or moved):
            new_events.append(GenerationEvent(ACCEPTED_ID, state))
        if state.status is GenerationStatus.CALLING and last_id < CALLING_ID:
            new_events.append(GenerationEvent(CALLING_ID, state))
        return new_events + await self._previews(state.found.generation, last_id)

    async def _look(self) -> None:
        guids = self.progress.followed_elsewhere
        for start in range(0, len(guids), LOOKED_AT_ONCE):
            some = guids[start : start + LOOKED_AT_ONCE]
            for each in await self.database.read(partial(self._changes, guids=some)):
                self.progress.note(each.guid, each.version, each.position)
        for tenant_id, followed in list(self.progress.tenants.items()):
            await self._poll_tenant(tenant_id, followed)

    def _changes(self, data: Repositories, *, guids: list[GenerationGuid]) -> list[GenerationChange]:
        return self._with_positions(data, data.generations.list_changes(guids))

    async def _poll_tenant(self, tenant_id: TenantId, followed: FollowedTenant) -> None:
        """Store the state of the tenant's open and recently finished generations."""
        moment = clock.seconds()

        def look(data: Repositories) -> list[GenerationChange]:
            ended = _ended_since(data, int(moment) - RECENT_SECONDS, tenant_id=tenant_id, longest=timedelta(0))
            return self._with_positions(data, [*data.generations.list_open(tenant_id=tenant_id), *ended])

        followed.note(await self.database.read(look), moment)

    def _with_positions(self, data: Repositories, changes: list[GenerationChange]) -> list[GenerationChange]:
        tenants = {change.tenant_id for change in changes if change.status is GenerationStatus.ACCEPTED}
        if not tenants:
            return changes
        schedule = self.scheduler.look(data)
        queue_positions = {
            id_: each for tenant_id in tenants for id_, each in schedule.queue_positions(tenant_id).items()
        }
        return [each.model_copy(update={"position": queue_positions.get(each.id, (None, None))[0]}) for each in changes]

    def _states(self, data: Repositories, *, guids: list[GenerationGuid], tenant_id: TenantId) -> list[GenerationState]:
        """Return the current state of these generations of the tenant, some hundred at most, oldest first."""
        found = sorted(data.generations.find_all(guids), key=lambda each: each.id)
        images = data.images.list_of_generations([each.id for each in found], tenant_id=tenant_id)
        waits = any(each.status is GenerationStatus.ACCEPTED for each in found)
        queue_positions = self.scheduler.look(data).queue_positions(tenant_id) if waits else {}
        return [
            GenerationState(_with_images(each, images), each.status, *queue_positions.get(each.id, (None, None)))
            for each in found
        ]

    def _execution(self, guid: GenerationGuid, tenant_id: TenantId) -> Execution | None:
        execution = self.progress.executions.get(guid)
        return execution if execution is not None and execution.generation.tenant_id == tenant_id else None

    async def _previews(self, generation: Generation, last_id: int) -> list[GenerationEvent]:
        first = max(0, last_id + 1 - FIRST_PREVIEW_ID)
        files = self.store.orders
        paths = {index: files.preview(generation.guid, index) for index in range(first, generation.order.previews)}
        found = await run_in_thread(_existing, paths) if paths else {}
        return [
            GenerationEvent(FIRST_PREVIEW_ID + index, Preview(index, path, generation)) for index, path in found.items()
        ]


def _ended_since(
    data: Repositories, moment: int, *, tenant_id: TenantId, longest: timedelta = LONGEST_ORDER
) -> list[GenerationChange]:
    """Return generations finished since ``moment``, made at most ``longest`` before; late commits included."""
    since = datetime.fromtimestamp(moment - LATE_SECONDS, UTC)
    return data.generations.list_ended(
        tenant_id=tenant_id, created_since=since - longest, finished_since=since, limit=MOST_ENDED
    )


def _has_changed(change: GenerationChange, known: tuple[GenerationStatus, int | None] | None) -> bool:
    return known is None or change.status is not known[0] or has_moved(known[1], change.position)


def _existing(paths: dict[int, Path]) -> dict[int, Path]:
    return {index: path for index, path in paths.items() if path.is_file()}


def _require(data: Repositories, guid: GenerationGuid, tenant_id: TenantId) -> GenerationWithImages:
    generation = data.generations.get_by_guid(guid, tenant_id=tenant_id)
    if generation is None:
        raise GenerationNotFoundException
    return _with_images(generation, data.images.list_of_generations([generation.id], tenant_id=tenant_id))


def _with_images(generation: Generation, images: list[StoredImage]) -> GenerationWithImages:
    own = tuple(image for image in images if image.generation_id == generation.id)
    return GenerationWithImages(generation=generation, images=own)


def _outcome(
    data: Repositories, guid: GenerationGuid, tenant_id: TenantId, *, replayed: bool
) -> GenerationWithImages | None:
    """Return the finished generation, or None if it is still open; raise its error."""
    found = _require(data, guid, tenant_id)
    generation = found.generation
    if generation.status is GenerationStatus.STORED:
        return require_images(data, generation)
    if generation.status is GenerationStatus.UNKNOWN and (replayed or generation.error is None):
        raise GenerationUnknownException(context={"generation": guid})
    if generation.status in {GenerationStatus.FAILED, GenerationStatus.UNKNOWN}:
        raise exception_of(generation.error) if generation.error else GenerationUnknownException()
    if generation.status is GenerationStatus.CANCELLED:
        raise GenerationCancelledException(context={"generation": guid})
    return None
