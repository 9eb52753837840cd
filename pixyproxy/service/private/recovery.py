"""Recovery: finishing what a crash or a database outage left behind, without a restart."""

import asyncio
import itertools
import logging
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from anyio import to_thread

from pixyproxy.core import clock
from pixyproxy.core.exceptions import DatabaseUnavailableException, PixyProxyException
from pixyproxy.core.models.generation import Generation, GenerationStatus
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.store.local import LocalStore
from pixyproxy.service.private.generation import record_picture
from pixyproxy.service.private.removal import TenantRemoval
from pixyproxy.service.private.upstream.picture import PictureLimits, inspect_picture

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 3
ROUNDS_PER_HOUR = 3600 // INTERVAL_SECONDS
GENERATIONS_AT_ONCE = 1000
TOKENS_KEPT = timedelta(seconds=LONGEST_TOKEN_SECONDS)
"""Beyond their time: a revoked sign-in still refuses the access tokens that came of it."""


@dataclass(frozen=True)
class Recovery:
    """Looks every few seconds for pictures without a record, and for deletions that broke off.

    Any number of processes may do so at once.

    ``longest_call_seconds`` is how long a generation may be ``calling`` before its process must have died.
    """

    database: Database
    store: LocalStore
    removal: TenantRemoval
    limits: PictureLimits
    longest_call_seconds: float

    async def run_forever(self) -> None:
        """Sweep what interrupted writes left and recover, again and again until cancelled."""
        for round_number in itertools.count():
            try:
                await self.store.sweep()
                await self.recover()
                await self.removal.remove_all()
                if round_number % ROUNDS_PER_HOUR == 0:
                    await self.database.write(_forget_expired_tokens)
            except PixyProxyException as error:
                logger.warning("recovery could not finish and will go on: %s", error.code)
            except Exception:
                logger.exception("recovery met something unforeseen and will go on")
            await asyncio.sleep(INTERVAL_SECONDS)

    async def recover(self) -> None:
        """Record every picture whose generation is still ``calling``, and give up calls that nobody can be making.

        Raises ``DatabaseUnavailableException``; a picture that fails in another way does not stop the others,
        and stays ``calling``.
        """
        calling = await self.database.read(lambda data: data.generations.list_calling(limit=GENERATIONS_AT_ONCE))
        for generation in calling:
            try:
                await self._finish(generation)
            except DatabaseUnavailableException:
                raise
            except PixyProxyException:
                logger.exception("picture %s could not be recorded", generation.image_guid)

    async def _finish(self, generation: Generation) -> None:
        media_type = await self.store.find(generation.image_guid)
        if media_type is None:
            await self._give_up_if_old(generation)
            return
        content = await self.store.read(generation.image_guid, media_type)
        picture = await to_thread.run_sync(partial(inspect_picture, content, limits=self.limits))
        await self.database.write(lambda data: record_picture(data, generation, picture))
        logger.info("picture %s recorded", generation.image_guid)

    async def _give_up_if_old(self, generation: Generation) -> None:
        """Without a picture, someone may still be drawing it; after the longest call, nobody is."""
        moment = clock.now()
        if moment - generation.created_at <= timedelta(seconds=self.longest_call_seconds):
            return
        status = GenerationStatus.UNKNOWN
        await self.database.write(
            lambda data: data.generations.settle(generation.id, status, tenant_id=generation.tenant_id, at=moment)
        )
        logger.warning("generation %s ended without a known outcome", generation.guid)


def _forget_expired_tokens(data: Repositories) -> None:
    before = clock.now() - TOKENS_KEPT
    data.refresh_tokens.delete_expired(before=before)
    data.revoked_tokens.delete_expired(before=before)
