"""Recovery: finish what dead processes and outages left behind, without a restart."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    DatabaseException,
    DatabaseUnavailableException,
    GenerationDeletedException,
    PictureMissingException,
    PixyProxyException,
    UpstreamSilentException,
)
from pixyproxy.core.fault_points import FaultPoint, reach
from pixyproxy.core.models.generation import Generation, GenerationGuid, ProcessGuid
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.spool import Spool, SpoolEntry, SpoolFolder
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.generation.dispatch import Dispatcher
from pixyproxy.service.private.generation.engine import Engine
from pixyproxy.service.private.generation.settlement import lock_budget, outcome_of, settle
from pixyproxy.service.private.removal import TenantRemoval
from pixyproxy.service.private.retained_answers import remove_decided
from pixyproxy.service.private.upstream.scheduling import LEASE_SECONDS

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 3
RENEWAL_SECONDS = LEASE_SECONDS / 4
ROUNDS_PER_HOUR = 3600 // INTERVAL_SECONDS
GENERATIONS_AT_ONCE = 1000
RENEWED_AT_ONCE = 500
FOUND_AT_ONCE = 500
ORDER_FILES_KEPT = timedelta(seconds=1)
"""How long order files outlive their order: a follower may still have to read the last previews."""
TOKENS_KEPT = timedelta(seconds=LONGEST_TOKEN_SECONDS)
"""How long tokens outlive their expiry: a revoked sign-in still rejects the access tokens issued for it."""


@dataclass
class Renewal:
    """The time since which every lease renewal succeeded (``time.monotonic``)."""

    since: float = field(default_factory=time.monotonic)

    def broke_off(self) -> None:
        """Restart the count after a failed renewal."""
        self.since = time.monotonic()

    def lasts(self, seconds: float) -> bool:
        """Return whether renewals have succeeded for at least this long."""
        return time.monotonic() - self.since >= seconds


@dataclass(frozen=True)
class Recovery:
    """Looks every few seconds for leftovers of dead processes: spool entries, generations, unfinished deletions.

    Any number of processes may do so at once. Another machine's lease is treated as expired only after this process
    could renew its own for one whole lease: a database outage stops every renewal.
    """

    database: Database
    store: LocalStore
    spool: Spool
    engine: Engine
    dispatcher: Dispatcher
    removal: TenantRemoval
    renewal: Renewal = field(default_factory=Renewal)

    async def run_forever(self) -> None:
        """Renew leases, sweep and recover until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_forever())
            group.create_task(self._recover_forever())

    async def _renew_forever(self) -> None:
        """Renew in a separate loop, since a recovery round may take longer than a lease."""
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            try:
                await self.database.follow_clock()
                await self._renew(list(self.engine.progress.executions))
            except PixyProxyException as error:
                self.renewal.broke_off()
                logger.warning("leases could not be renewed and will be retried: %s", error.code)
            except Exception:
                self.renewal.broke_off()
                logger.exception("unexpected error while renewing leases; will retry")

    async def _renew(self, running: list[GenerationGuid]) -> None:
        """Renew only what this process executes, so that recovery finds orders that it has lost track of."""
        until = clock.now() + timedelta(seconds=LEASE_SECONDS)
        for start in range(0, len(running), RENEWED_AT_ONCE):
            guids = running[start : start + RENEWED_AT_ONCE]
            await self.database.write(partial(_renew_leases, owner=self.spool.owner, guids=guids, until=until))

    async def _recover_forever(self) -> None:
        for round_number in itertools.count():
            try:
                await self._round(round_number)
            except PixyProxyException as error:
                logger.warning("recovery round failed and will be retried: %s", error.code)
            except Exception:
                logger.exception("unexpected error in recovery; will retry")
            await asyncio.sleep(INTERVAL_SECONDS)

    async def recover(self) -> None:
        """Finish the spools of dead processes on this machine, and settle the orders of dead processes anywhere.

        Raise ``DatabaseException``. Other failures do not stop the remaining steps; the next round retries them.
        """
        await _attempt("the spool", self._finish_folders())
        moment = clock.now() if self.renewal.lasts(LEASE_SECONDS) else None
        for generation in await self._abandoned(moment):
            await _attempt(f"generation {generation.guid}", self._end_unless_worked_on(generation))

    async def _finish_folders(self) -> None:
        async with self.spool.dead_folders() as folders:
            for folder in folders:
                await _attempt(f"folder {folder.owner}", self._finish_folder(folder))

    async def _end_unless_worked_on(self, generation: Generation) -> None:
        """Settle unless a living process works on it: a database outage can expire the leases of living processes."""
        owner = generation.lease_owner
        if owner == self.spool.owner:
            worked_on = generation.guid in self.engine.progress.executions
        else:
            worked_on = owner is not None and await self.spool.is_alive(owner)
        if not worked_on:
            await self._end(generation)

    async def close(self) -> None:
        """Release unfinished work to other processes before this one stops."""
        if self.spool.is_held:
            with contextlib.suppress(DatabaseException):
                if self.engine.slots.in_doubt:
                    await self.dispatcher.put_back_lost()
                await self.database.write(lambda data: data.generations.release_leases(self.spool.owner))
            await self.spool.close()

    async def _round(self, round_number: int) -> None:
        await _attempt("the store's sweep", self.store.sweep())
        await self.recover()
        await _attempt("removal of order files", self._remove_order_files())
        await _attempt("tenant removal", self.removal.remove_all())
        await _attempt("removal of decided retained answers", remove_decided(self.database, self.engine.answers))
        if round_number % ROUNDS_PER_HOUR == 0:
            await self.database.write(_forget_expired_tokens)

    async def _remove_order_files(self) -> None:
        """Remove input pictures and previews of finished orders, and those without an order."""
        files = self.store.orders
        found = await run_in_thread(files.list_guids)
        guids, newest = list(found), clock.now() - ORDER_FILES_KEPT
        for start in range(0, len(guids), FOUND_AT_ONCE):
            some = guids[start : start + FOUND_AT_ONCE]
            rows = await self.database.read(partial(_find_all, guids=some))
            known = {row.guid for row in rows}
            over = {row.guid for row in rows if row.finished_at is not None and row.finished_at <= newest}
            for guid in some:
                if guid in over or (guid not in known and found[guid]):
                    await run_in_thread(files.remove, guid)

    async def _end(self, generation: Generation) -> None:
        """Settle as unknown; the slot stays in use until the call's deadline."""
        outcome = outcome_of(UpstreamSilentException(), asked=True).model_copy(update={"keeps_place": True})

        def end(data: Repositories) -> None:
            lock_budget(data, generation)
            settle(data, generation, outcome)

        await self.database.write(end)
        self.engine.progress.announce(generation.guid)
        logger.warning(
            "generation %s: outcome unknown; resolve it with `pixyproxy generation resolve`", generation.guid
        )

    async def _finish_folder(self, folder: SpoolFolder) -> None:
        """Record every entry of a dead process, settle its other generations, and remove its folder."""
        entries, all_readable = await folder.entries()
        recorded = [
            await _attempt(f"generation {entry.generation}", self._finish_entry(entry, folder)) for entry in entries
        ]
        if not (all_readable and all(recorded)):
            return
        await self.database.write(lambda data: data.generations.release_leases(folder.owner))
        abandoned = await self._abandoned(None)
        over = [
            await _attempt(f"generation {generation.guid}", self._end(generation))
            for generation in abandoned
            if generation.lease_owner == folder.owner
        ]
        if all(over) and len(abandoned) < GENERATIONS_AT_ONCE:
            await self.spool.remove_folder(folder)

    async def _abandoned(self, moment: datetime | None) -> list[Generation]:
        return await self.database.read(
            lambda data: data.generations.list_abandoned(at=moment, limit=GENERATIONS_AT_ONCE)
        )

    async def _finish_entry(self, entry: SpoolEntry, folder: SpoolFolder) -> None:
        """Record an entry. Raise as ``Engine.finish`` does."""
        generation = await self.database.read(lambda data: data.generations.find(entry.generation))
        if generation is None:
            # The tenant was removed.
            await folder.remove(entry.generation)
            return
        await reach(FaultPoint.RECOVERING)
        try:
            stored = await self.engine.finish(generation, entry, folder)
            await self.engine.clean(stored.generation, folder)
        except (GenerationDeletedException, PictureMissingException):
            # The images were deleted since, or were recorded by a process that died before cleaning up.
            await folder.remove(entry.generation)
        else:
            self.engine.progress.announce(entry.generation)
            logger.info("generation %s recorded", entry.generation)


async def _attempt(what: str, work: Awaitable[bool | None]) -> bool:
    """Run one recovery step; return whether it completed. Failures are logged and do not stop other steps.

    Raise ``DatabaseUnavailableException``, since no other step could succeed either.
    """
    try:
        return await work is not False
    except DatabaseUnavailableException:
        raise
    except PixyProxyException as error:
        # Messages of the file system contain only this installation's own paths.
        reason = error.__cause__ if isinstance(error.__cause__, OSError) else error.code
        logger.warning("recovery of %s failed and will be retried: %s", what, reason)
    except Exception:
        logger.exception("unexpected error in recovery of %s; will retry", what)
    return False


def _renew_leases(data: Repositories, *, owner: ProcessGuid, guids: list[GenerationGuid], until: datetime) -> None:
    data.generations.renew_leases(owner, guids, until=until)


def _find_all(data: Repositories, *, guids: list[GenerationGuid]) -> list[Generation]:
    return data.generations.find_all(guids)


def _forget_expired_tokens(data: Repositories) -> None:
    before = clock.now() - TOKENS_KEPT
    data.refresh_tokens.delete_expired(before=before)
    data.revoked_tokens.delete_expired(before=before)
