"""Recovery: finishing what dead processes and outages left behind, without a restart."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    DatabaseException,
    DatabaseUnavailableException,
    GenerationDeletedException,
    InputPictureException,
    ModelUnknownException,
    PictureMissingException,
    PixyProxyException,
    QueueFullException,
    UpstreamSilentException,
)
from pixyproxy.core.fault_points import FaultPoint, reach
from pixyproxy.core.models.generation import Generation, GenerationGuid, GenerationStatus, ProcessGuid
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.spool import InputsTaken, Spool, SpoolEntry, SpoolFolder
from pixyproxy.data.store.local import LocalStore
from pixyproxy.service.private.generation.engine import LEASE_SECONDS, Engine
from pixyproxy.service.private.generation.kept import remove_decided
from pixyproxy.service.private.generation.service import GenerationService
from pixyproxy.service.private.generation.settlement import ending_of, settle
from pixyproxy.service.private.removal import TenantRemoval

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 3
RENEWAL_SECONDS = LEASE_SECONDS / 4
ROUNDS_PER_HOUR = 3600 // INTERVAL_SECONDS
GENERATIONS_AT_ONCE = 1000
RENEWED_AT_ONCE = 500
FOUND_AT_ONCE = 500
TOKENS_KEPT = timedelta(seconds=LONGEST_TOKEN_SECONDS)
"""Beyond their time: a revoked sign-in still refuses the access tokens that came of it."""


@dataclass(frozen=True)
class Recovery:
    """Looks every few seconds for what dead processes left: spool entries, generations, deletions that broke off.

    Any number of processes may do so at once.
    """

    database: Database
    store: LocalStore
    spool: Spool
    engine: Engine
    generation: GenerationService
    removal: TenantRemoval

    async def run_forever(self) -> None:
        """Say that this process lives, sweep and recover, again and again until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_forever())
            group.create_task(self._recover_forever())

    async def _renew_forever(self) -> None:
        """In a loop of its own: a round of recovery may take longer than a lease."""
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            try:
                await self._renew(list(self.engine.jobs.running))
            except PixyProxyException as error:
                logger.warning("leases could not be renewed: %s", error.code)
            except Exception:
                logger.exception("renewing leases met something unforeseen and will go on")

    async def _renew(self, running: list[GenerationGuid]) -> None:
        """Only what this process works on: what it has lost track of is to be found."""
        until = clock.now() + timedelta(seconds=LEASE_SECONDS)
        for start in range(0, len(running), RENEWED_AT_ONCE):
            guids = running[start : start + RENEWED_AT_ONCE]
            await self.database.write(partial(_renew_leases, owner=self.spool.owner, guids=guids, until=until))

    async def _recover_forever(self) -> None:
        for round_number in itertools.count():
            try:
                await self._round(round_number)
            except PixyProxyException as error:
                logger.warning("recovery could not finish and will go on: %s", error.code)
            except Exception:
                logger.exception("recovery met something unforeseen and will go on")
            await asyncio.sleep(INTERVAL_SECONDS)

    async def recover(self) -> None:
        """Finish the spools of this machine's dead processes, and what dead processes anywhere had accepted.

        Raises ``DatabaseException``; what fails in another way does not stop the others, and the next round tries it
        again.
        """
        await _attempt("the spool", self._finish_folders())
        for generation in await self._abandoned():
            await _attempt(f"generation {generation.guid}", self._finish_unless_worked_on(generation))

    async def _finish_folders(self) -> None:
        async with self.spool.dead_folders() as folders:
            for folder in folders:
                await _attempt(f"folder {folder.owner}", self._finish_folder(folder))

    async def _finish_unless_worked_on(self, generation: Generation) -> bool:
        return await self._is_worked_on(generation) or await self._finish_abandoned(generation)

    async def _is_worked_on(self, generation: Generation) -> bool:
        """A database that was away for long lets the leases of the living end as well.

        A doubtful one was refused, and is about to be ended.
        """
        if generation.guid in self.engine.jobs.doubtful:
            return True
        if generation.lease_owner == self.spool.owner:
            return self.engine.jobs.get(generation.guid) is not None
        return generation.lease_owner is not None and await self.spool.is_alive(generation.lease_owner)

    async def close(self) -> None:
        """Leave what this process has not finished to any other: it stops."""
        if self.spool.is_held:
            with contextlib.suppress(DatabaseException):
                await self.database.write(lambda data: data.generations.release_leases(self.spool.owner))
            await self.spool.close()

    async def _round(self, round_number: int) -> None:
        await _attempt("sweeping", self.store.sweep())
        await self._end_doubtful()
        await self.recover()
        await _attempt("removing tenants", self.removal.remove_all())
        await _attempt("letting go of kept answers", remove_decided(self.database, self.engine.answers))
        if round_number % ROUNDS_PER_HOUR == 0:
            await self.database.write(_forget_expired_tokens)

    async def _end_doubtful(self) -> None:
        """End what this process claimed without knowing it: whoever ordered was told that nothing was changed.

        What another process has taken over since is that one's to end: its upstream may have been asked by now.
        """
        doubtful, refusal = self.engine.jobs.doubtful, DatabaseUnavailableException()
        claims = doubtful.list_all()
        for start in range(0, len(claims), FOUND_AT_ONCE):
            guids = claims[start : start + FOUND_AT_ONCE]
            left = {
                each.guid
                for each in await self.database.read(partial(_find_all, guids=guids))
                if not await _attempt(
                    f"generation {each.guid}", self._end(each, refusal, asked=False, owner=self.spool.owner)
                )
            }
            for guid in guids:
                if guid not in left:
                    doubtful.discard(guid)

    async def _end(
        self, generation: Generation, error: PixyProxyException, *, asked: bool, owner: ProcessGuid | None = None
    ) -> None:
        """End a generation without a picture; ``asked``: an upstream may have been. ``owner``: only while it is its."""
        ending = ending_of(error, asked=asked)
        await self.database.write(lambda data: settle(data, generation, ending, owner=owner))

    async def _finish_folder(self, folder: SpoolFolder) -> None:
        """Record every entry of a dead process, end or take over its generations, and remove its folder."""
        entries, all_readable = await folder.entries()
        recorded = [
            await _attempt(f"generation {entry.generation}", self._finish_entry(entry, folder)) for entry in entries
        ]
        if not (all_readable and all(recorded)):
            return
        await self.database.write(lambda data: data.generations.release_leases(folder.owner))
        abandoned = await self._abandoned()
        over = [
            await _attempt(f"generation {generation.guid}", self._finish_abandoned(generation))
            for generation in abandoned
            if generation.lease_owner == folder.owner
        ]
        # Inputs of what is left may be in there.
        if all(over) and len(abandoned) < GENERATIONS_AT_ONCE:
            await self.spool.remove_folder(folder)

    async def _abandoned(self) -> list[Generation]:
        moment = clock.now()
        return await self.database.read(
            lambda data: data.generations.list_abandoned(at=moment, limit=GENERATIONS_AT_ONCE)
        )

    async def _finish_entry(self, entry: SpoolEntry, folder: SpoolFolder) -> None:
        """Record an entry. Raises as ``Engine.finish`` does where its turn has yet to come."""
        generation = await self.database.read(lambda data: data.generations.find(entry.generation))
        if generation is None:
            # Its tenant was removed.
            await folder.remove(entry.generation)
            return
        await reach(FaultPoint.RECOVERING)
        try:
            stored = await self.engine.finish(generation, entry, folder)
            await self.engine.clean(stored.generation, folder)
        except (GenerationDeletedException, PictureMissingException):
            # The images were deleted since, or whoever recorded them was about to clean up.
            await folder.remove(entry.generation)
        else:
            logger.info("generation %s recorded", entry.generation)

    async def _finish_abandoned(self, generation: Generation) -> bool:
        """Execute what a dead process had only accepted; what it had asked for cannot be known any more.

        False where it has to be left as it is for now.
        """
        if generation.status is GenerationStatus.ACCEPTED:
            return await self._take_over(generation)
        await self._end(generation, UpstreamSilentException(), asked=True)
        logger.warning("generation %s ended without a known outcome", generation.guid)
        return True

    async def _take_over(self, generation: Generation) -> bool:
        """Execute it here; False while a living process has its pictures, which is about to do so itself.

        Its pictures come first: whoever dies in between has left them where the next one looks.
        """
        moment = clock.now()
        until = moment + timedelta(seconds=LEASE_SECONDS)
        inputs = await self.spool.take_inputs(generation.guid, count=len(generation.order.inputs))
        if inputs is InputsTaken.HELD:
            return False
        taken = await self.database.write(
            lambda data: data.generations.take_over(
                generation.id, self.spool.owner, tenant_id=generation.tenant_id, until=until, at=moment
            )
        )
        if not taken:
            return True
        try:
            if inputs is InputsTaken.MISSING:
                # They are on another machine.
                raise InputPictureException  # noqa: TRY301  (one way to end it)
            self.generation.resume(generation.model_copy(update={"lease_owner": self.spool.owner}))
            logger.info("generation %s taken over", generation.guid)
        except (QueueFullException, ModelUnknownException, InputPictureException) as error:
            await self._end(generation, error, asked=False)
            await (await self.spool.open()).remove(generation.guid)
        return True


async def _attempt(what: str, work: Awaitable[bool | None]) -> bool:
    """Do a part of a round, and tell whether it is over. What keeps it from that is logged, and keeps no other from it.

    Raises ``DatabaseUnavailableException``, since nothing else could be done either.
    """
    try:
        return await work is not False
    except DatabaseUnavailableException:
        raise
    except PixyProxyException as error:
        # Those of the file system name nothing but what is ours.
        reason = error.__cause__ if isinstance(error.__cause__, OSError) else error.code
        logger.warning("recovery could not finish %s and will go on: %s", what, reason)
    except Exception:
        logger.exception("recovery met something unforeseen with %s and will go on", what)
    return False


def _renew_leases(data: Repositories, *, owner: ProcessGuid, guids: list[GenerationGuid], until: datetime) -> None:
    data.generations.renew_leases(owner, guids, until=until)


def _find_all(data: Repositories, *, guids: list[GenerationGuid]) -> list[Generation]:
    return data.generations.find_all(guids)


def _forget_expired_tokens(data: Repositories) -> None:
    before = clock.now() - TOKENS_KEPT
    data.refresh_tokens.delete_expired(before=before)
    data.revoked_tokens.delete_expired(before=before)
