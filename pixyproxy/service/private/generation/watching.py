"""Watching generations: whoever does, in whatever way, from whichever process and however often, sees the same one.

A client that waits, one that asks again, one that follows the events, and one that repeats its request with the same
Idempotency-Key all look at one job.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from pixyproxy.core.exceptions import GenerationNotFoundException, GenerationUnknownException
from pixyproxy.core.models.generation import (
    Generation,
    GenerationFilter,
    GenerationGuid,
    GenerationStatus,
    GenerationWithImages,
)
from pixyproxy.core.models.image import GenerationId, StoredImage
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.spool import Spool
from pixyproxy.data.store.local import LocalStore
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.cursors import CursorCodec
from pixyproxy.service.private.generation.jobs import Job, Jobs
from pixyproxy.service.private.generation.settlement import exception_of, require_images

FIRST_LOOK_SECONDS = 0.1
LOOK_SECONDS = 1.0
"""How often another process's generation is looked at; by those who wait for its end sooner at first."""
HEARTBEAT_SECONDS = 15.0
ACCEPTED_ID, CALLING_ID, FIRST_PREVIEW_ID, FINAL_ID = 1, 2, 3, 100
"""Events are numbered by what they say, not by when: any process can go on where another one left off."""


@dataclass(frozen=True)
class Standing:
    """Where a generation stands. ``position`` is 1 for the next in the queue, None where it does not wait here."""

    found: GenerationWithImages
    status: GenerationStatus
    position: int | None = None
    estimate_seconds: float | None = None


@dataclass(frozen=True)
class Preview:
    """The file of a preview, whole."""

    index: int
    path: Path
    generation: Generation


@dataclass(frozen=True)
class GenerationEvent:
    """Something that happened to a generation; None: nothing did, for a while."""

    id: int
    what: Standing | Preview | None


@dataclass(frozen=True)
class GenerationPage:
    """One page of a list, and the cursor of the next one while there is more."""

    generations: list[GenerationWithImages]
    next_cursor: str | None


@dataclass(frozen=True)
class GenerationWatcher:
    """Follows generations: those of this process as things happen, those of others by looking."""

    database: Database
    store: LocalStore
    spool: Spool
    jobs: Jobs
    cursors: CursorCodec
    look_seconds: float = LOOK_SECONDS
    heartbeat_seconds: float = HEARTBEAT_SECONDS

    async def outcome(
        self, guid: GenerationGuid, *, tenant_id: TenantId, seconds: float | None = None
    ) -> GenerationWithImages:
        """The pictures of a generation, once they are stored.

        Raises the error that it ended with, ``GenerationUnknownException``, ``GenerationDeletedException``,
        ``GenerationNotFoundException``; and ``TimeoutError`` where ``seconds`` pass before it ends.
        """
        async with asyncio.timeout(seconds):
            job = self.jobs.get(guid)
            if job is not None and job.generation.tenant_id == tenant_id and not job.status.is_final:
                return await asyncio.shield(job.outcome)
            look = FIRST_LOOK_SECONDS
            while True:
                found = await self.database.read(lambda data: _outcome(data, guid, tenant_id))
                if found is not None:
                    return found
                await asyncio.sleep(look)
                look = min(look * 2, self.look_seconds)

    async def list_generations(
        self, wanted: GenerationFilter, *, tenant_id: TenantId, limit: int, cursor: str | None
    ) -> GenerationPage:
        """At most ``limit`` generations of the tenant, newest first. Raises ``InvalidCursorException``."""
        before = None if cursor is None else GenerationId(self.cursors.decode(cursor, wanted))

        def find(data: Repositories) -> list[GenerationWithImages]:
            found = data.generations.list_own(wanted, tenant_id=tenant_id, before=before, limit=limit + 1)
            images = data.images.list_of_generations([each.id for each in found], tenant_id=tenant_id)
            return [_with_images(each, images) for each in found]

        found = await self.database.read(find)
        page = found[:limit]
        following = self.cursors.encode(page[-1].generation.id, wanted) if len(found) > limit else None
        return GenerationPage(page, following)

    async def standing(self, guid: GenerationGuid, *, tenant_id: TenantId) -> Standing:
        """A generation of the tenant as it is now. Raises ``GenerationNotFoundException``."""
        job = self.jobs.get(guid)
        if job is not None and job.generation.tenant_id == tenant_id and not job.status.is_final:
            position = job.turn.position or None
            estimate = None if position is None else job.turn.estimate_seconds
            return Standing(GenerationWithImages(generation=job.generation, images=()), job.status, position, estimate)
        found = await self.database.read(lambda data: _require(data, guid, tenant_id))
        return Standing(found, found.generation.status)

    async def events(self, guid: GenerationGuid, *, tenant_id: TenantId, after: int) -> AsyncIterator[GenerationEvent]:
        """What has happened to a generation since the event of the id ``after``, and what happens; the last is final.

        Raises ``GenerationNotFoundException`` and ``DatabaseException``.
        """
        told, position, quiet, watched = after, None, 0.0, False
        while told < FINAL_ID:
            job = self.jobs.get(guid)
            version = 0 if job is None else job.version
            standing = await self.standing(guid, tenant_id=tenant_id)
            news = await self._news(standing, told, moved=standing.position != position)
            if watched and standing.status.is_final:
                # What came since the last look; whoever comes when all is over is told the end alone.
                news = [*await self._previews(standing.found.generation, told), *news]
            watched = True
            for event in news:
                yield event
            if not news and quiet >= self.heartbeat_seconds:
                yield GenerationEvent(told, None)
            told, position = max([told, *(event.id for event in news)]), standing.position
            if standing.status.is_final:
                return
            quiet = 0.0 if news or quiet >= self.heartbeat_seconds else quiet
            quiet += await self._pause(job, version, waits=standing.position is not None)

    async def pictures(self, found: GenerationWithImages) -> list[bytes | Path]:
        """Its images in their order, from memory or as files. Raises ``PictureMissingException``."""
        return [await self.store.at_hand(image.guid, image.media_type) for image in found.images]

    async def _news(self, standing: Standing, told: int, *, moved: bool) -> list[GenerationEvent]:
        """What has happened since the event of the id ``told``, in order."""
        if standing.status.is_final:
            return [GenerationEvent(FINAL_ID, standing)]
        news = []
        if standing.status is GenerationStatus.ACCEPTED and (told < ACCEPTED_ID or moved):
            news.append(GenerationEvent(ACCEPTED_ID, standing))
        if standing.status is GenerationStatus.CALLING and told < CALLING_ID:
            news.append(GenerationEvent(CALLING_ID, standing))
        return news + await self._previews(standing.found.generation, told)

    async def _pause(self, job: Job | None, version: int, *, waits: bool) -> float:
        """Wait until there may be something new; the seconds that passed."""
        began = time.monotonic()
        if job is None:
            await asyncio.sleep(self.look_seconds)
        else:
            changes = [job.wait_changed(version, self.heartbeat_seconds)] + ([job.turn.wait_changed()] if waits else [])
            tasks = [asyncio.ensure_future(change) for change in changes]
            try:
                await asyncio.wait(tasks, timeout=self.heartbeat_seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
        return time.monotonic() - began

    async def _previews(self, generation: Generation, told: int) -> list[GenerationEvent]:
        if generation.lease_owner is None:
            return []
        folder = self.spool.folder_of(generation.lease_owner)
        first = max(0, told + 1 - FIRST_PREVIEW_ID)
        paths = {index: folder.preview(generation.guid, index) for index in range(first, generation.order.previews)}
        found = await run_in_thread(_those_there, paths) if paths else {}
        return [
            GenerationEvent(FIRST_PREVIEW_ID + index, Preview(index, path, generation)) for index, path in found.items()
        ]


def _those_there(paths: dict[int, Path]) -> dict[int, Path]:
    return {index: path for index, path in paths.items() if path.is_file()}


def _require(data: Repositories, guid: GenerationGuid, tenant_id: TenantId) -> GenerationWithImages:
    generation = data.generations.get_by_guid(guid, tenant_id=tenant_id)
    if generation is None:
        raise GenerationNotFoundException
    return _with_images(generation, data.images.list_of_generations([generation.id], tenant_id=tenant_id))


def _with_images(generation: Generation, images: list[StoredImage]) -> GenerationWithImages:
    own = tuple(image for image in images if image.generation_id == generation.id)
    return GenerationWithImages(generation=generation, images=own)


def _outcome(data: Repositories, guid: GenerationGuid, tenant_id: TenantId) -> GenerationWithImages | None:
    """How a generation ended, None while it has not."""
    found = _require(data, guid, tenant_id)
    generation = found.generation
    if generation.status is GenerationStatus.STORED:
        return require_images(data, generation)
    if generation.status is GenerationStatus.UNKNOWN:
        raise GenerationUnknownException(context={"generation": guid})
    if generation.status is GenerationStatus.FAILED:
        raise exception_of(generation.error) if generation.error else GenerationUnknownException()
    return None
