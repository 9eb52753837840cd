"""Claim an order in one transaction: recognize retries, reserve the budget, and schedule.

A claim is a row of ``generations``. It is given a free slot at an upstream if no other order waits for one, and waits
in the queue otherwise.
"""

import asyncio
import contextlib
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import timedelta

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    BudgetExceededException,
    BudgetUnpricedException,
    DatabaseException,
    DatabaseUnavailableException,
    IdempotencyMismatchException,
    ImageLimitException,
)
from pixyproxy.core.models.budget import MICRO, month_of
from pixyproxy.core.models.generation import Generation, GenerationGuid, GenerationStatus, NewGeneration
from pixyproxy.core.models.image import ImageGuid
from pixyproxy.core.models.order import NewOrder, PictureOrder
from pixyproxy.core.models.principal import Principal, Subject
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.repositories.queue import Slot
from pixyproxy.data.wake_ups import QUEUE
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.generation.engine import Engine
from pixyproxy.service.private.generation.retries import NOTICE_SECONDS, Repetition, Verdict
from pixyproxy.service.private.generation.settlement import lock_budget, outcome_of, settle
from pixyproxy.service.private.generation.slots import ProcessSlots
from pixyproxy.service.private.upstream.scheduling import Scheduler

BEGUN_AT_ONCE = 4
"""Orders that a claim may start beside its own: freed slots go to the orders whose turn it is."""
NOTICE_LOOK_SECONDS = 0.1
IMAGE_WINDOW_SECONDS = 60
DOUBT_SECONDS = 1.0


@dataclass(frozen=True)
class Claim:
    """A principal's order and everything decided about it before the claim.

    ``order`` is as it was sent, ``wanted`` is the part that the upstream needs. ``reserved_micro_usd`` is the most that
    it may cost; None if its price is unknown. ``repetition`` is None where there is an ``idempotency_key``.
    """

    guid: GenerationGuid
    principal: Principal
    order: NewOrder
    wanted: PictureOrder
    fingerprint: str
    reserved_micro_usd: int | None
    idempotency_key: str | None
    repetition: Repetition | None
    follower: str

    def new_generation(self, slot: Slot | None, *, month: str) -> NewGeneration:
        """Return the generation to insert, charged to the budget of ``month``. Without a slot it waits."""
        moment = clock.now()
        return NewGeneration(
            guid=self.guid,
            tenant_id=self.principal.tenant_id,
            idempotency_key=self.idempotency_key,
            fingerprint=self.fingerprint,
            status=GenerationStatus.ACCEPTED if slot is None else GenerationStatus.CALLING,
            image_guids=tuple(ImageGuid(str(uuid.uuid4())) for _ in range(self.wanted.count)),
            order=self.wanted,
            filename=self.order.filename,
            visibility=self.order.visibility or self.principal.default_visibility,
            subject=self.principal.subject,
            budget_month=month,
            reserved_micro_usd=self.reserved_micro_usd,
            content=None if self.repetition is None else self.repetition.content,
            follower=self.follower,
            created_at=moment,
            updated_at=moment,
            **({} if slot is None else asdict(slot)),
        )

    def earlier_generation(self, data: Repositories) -> Generation | None:
        """Return the generation that has the Idempotency-Key already. Raise ``IdempotencyMismatchException``."""
        if self.idempotency_key is None:
            return None
        earlier = data.generations.get_by_idempotency_key(self.idempotency_key, tenant_id=self.principal.tenant_id)
        if earlier is not None and earlier.fingerprint != self.fingerprint:
            raise IdempotencyMismatchException
        return earlier


@dataclass(frozen=True)
class Claimed:
    """The generation of a claim, an earlier one if ``replayed``, and the generations started with it."""

    generation: Generation
    replayed: bool
    begun: list[Generation]


class _KeyTakenException(Exception):
    """Another claim of this Idempotency-Key was committed at the same moment."""


@dataclass(frozen=True)
class Claims:
    """Claims orders. ``images_per_minute`` is the limit of tenants that have none of their own."""

    database: Database
    scheduler: Scheduler
    slots: ProcessSlots
    engine: Engine
    tasks: DetachedTasks
    images_per_minute: int

    async def claim(self, claim: Claim) -> Claimed:
        """Claim an order, after at most ``NOTICE_SECONDS`` if it may be a retry whose loss is not noticed yet.

        Raise ``IdempotencyMismatchException``, ``ImageLimitException``, ``ImageGenerationException`` and
        ``DatabaseException``; nothing was bought.
        """
        deadline = time.monotonic() + NOTICE_SECONDS
        while True:
            last = time.monotonic() >= deadline
            claimed = await self._try_to_claim(claim, perhaps_new=last)
            if claimed is not None:
                return claimed
            await asyncio.sleep(NOTICE_LOOK_SECONDS)

    async def _try_to_claim(self, claim: Claim, *, perhaps_new: bool) -> Claimed | None:
        """Return the generation that the claim made or found, and start what was scheduled with it.

        After a COMMIT whose result was lost, read the database again. If it does not respond, the caller gets an error
        that says nothing was changed, and a claim that did take effect is failed later.
        """
        began = time.monotonic()
        taken = self.slots.take(BEGUN_AT_ONCE)
        begun: list[Generation] = []
        try:
            claimed = await self.slots.decide(
                self.database, lambda data: self._decide(data, claim, limit=taken, perhaps_new=perhaps_new)
            )
            begun = [] if claimed is None else claimed.begun
        except _KeyTakenException:
            return await self._try_to_claim(claim, perhaps_new=perhaps_new)
        except DatabaseException as error:
            claimed = await self._find_doubtful(claim) if error.in_doubt else None
            if claimed is None:
                raise
            begun = claimed.begun
        finally:
            self.slots.give_back(taken - len(begun))
        for generation in begun:
            self.engine.start(generation, began=began)
        if claimed is not None and not claimed.replayed and not begun:
            self.engine.progress.publish(QUEUE)
        return claimed

    def _decide(self, data: Repositories, claim: Claim, *, limit: int, perhaps_new: bool) -> Claimed | None:
        """Find the generation that this request repeats, or claim a new one; return None if that is not certain yet."""
        principal = claim.principal
        if (earlier := claim.earlier_generation(data)) is not None:
            return Claimed(earlier, replayed=True, begun=[])
        month = month_of(clock.now())
        data.budgets.lock(month, tenant_id=principal.tenant_id)
        if claim.repetition is not None:
            found = claim.repetition.adopt(data)
            if isinstance(found, Generation):
                return Claimed(found, replayed=True, begun=[])
            if found is Verdict.PERHAPS and not perhaps_new:
                return None
        self._require_images(data, claim)
        _reserve(data, claim, month)
        schedule = self.scheduler.lock(data)
        slot = schedule.free_slot(principal.tenant_id, claim.wanted.model) if limit else None
        claimed = data.generations.claim(claim.new_generation(slot, month=month))
        if claimed is None:
            raise _KeyTakenException
        begun = [claimed] if slot is not None else schedule.start_waiting(limit=limit)
        if all(each.id != claimed.id for each in begun):
            schedule.require_room(principal.tenant_id, claim.wanted.model)
        schedule.save()
        return Claimed(claimed, replayed=False, begun=begun)

    def _require_images(self, data: Repositories, claim: Claim) -> None:
        """Raise ``ImageLimitException`` if the tenant or the key has reached its limit of images per minute."""
        principal, moment = claim.principal, clock.now()
        since = moment - timedelta(seconds=IMAGE_WINDOW_SECONDS)
        own = principal.tenant_images_per_minute
        limits: list[tuple[int, Subject | None]] = [(self.images_per_minute if own is None else own, None)]
        if principal.key_images_per_minute is not None:
            limits.append((principal.key_images_per_minute, principal.subject))
        for most, subject in limits:
            ordered, first = data.generations.images_since(since, tenant_id=principal.tenant_id, subject=subject)
            if ordered + claim.wanted.count > most:
                passed = 0 if first is None else int((moment - first).total_seconds())
                raise ImageLimitException(retry_after_seconds=max(1, IMAGE_WINDOW_SECONDS + 1 - passed))

    async def _find_doubtful(self, claim: Claim) -> Claimed | None:
        """Return the generation of a claim in doubt, if the COMMIT took effect."""
        try:
            found = await self.database.read(lambda data: data.generations.find(claim.guid))
        except BaseException:
            self.tasks.start(self._end_doubtful(claim.guid))
            raise
        if found is None:
            return None
        mine = found.version == 0 and found.status is GenerationStatus.CALLING
        return Claimed(found, replayed=False, begun=[found] if mine else [])

    async def _end_doubtful(self, guid: GenerationGuid) -> None:
        """Fail a claim in doubt if its COMMIT took effect: its client already got an error.

        A generation that was given to a process since then continues; its row has another version.
        """
        outcome = outcome_of(DatabaseUnavailableException(), asked=False)

        def end(data: Repositories) -> None:
            found = data.generations.find(guid)
            if found is None:
                return
            lock_budget(data, found)
            self.scheduler.lock(data)
            present = data.generations.find(guid)
            if present is not None and present.version == 0:
                settle(data, present, outcome)

        while True:
            await asyncio.sleep(DOUBT_SECONDS)
            with contextlib.suppress(DatabaseException):
                await self.database.write(end)
                return


def _reserve(data: Repositories, claim: Claim, month: str) -> None:
    """Reserve the highest possible cost in the month's budget; an unknown price never skips a limit."""
    amount = claim.reserved_micro_usd
    if amount is None:
        if claim.principal.has_budget:
            raise BudgetUnpricedException(context={"model": claim.wanted.model})
    elif amount and not data.budgets.reserve(month, amount, tenant_id=claim.principal.tenant_id):
        raise BudgetExceededException(context={"may_cost_usd": f"{amount / MICRO:.6f}"})
