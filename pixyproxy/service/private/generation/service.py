"""Accept orders; an accepted order is executed even if its client disconnects."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    BudgetExceededException,
    BudgetUnpricedException,
    DatabaseException,
    DatabaseUnavailableException,
    GenerationCancelledException,
    GenerationInFlightException,
    GenerationNotFoundException,
    IdempotencyMismatchException,
    ImageGenerationException,
    ImageLimitException,
    ImageStorageException,
    ModelNotAllowedException,
    ModelUnknownException,
)
from pixyproxy.core.fault_points import FaultPoint, reach
from pixyproxy.core.models.budget import MICRO, month_of
from pixyproxy.core.models.generation import Generation, GenerationGuid, GenerationStatus
from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.models.order import NewOrder, PictureOrder
from pixyproxy.core.models.principal import Principal, Subject
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.data.threads import run_in_thread
from pixyproxy.data.wake_ups import QUEUE
from pixyproxy.service.private.billing.prices import Prices
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.generation.engine import Engine
from pixyproxy.service.private.generation.inputs import InputReceiver, Upload
from pixyproxy.service.private.generation.orders import (
    Terms,
    content_of,
    fingerprint,
    new_claim,
    order_of,
    picture_order,
    require_storable,
)
from pixyproxy.service.private.generation.places import Places
from pixyproxy.service.private.generation.retries import NOTICE_SECONDS, Repetition, Verdict
from pixyproxy.service.private.generation.settlement import ending_of, lock_budget, settle
from pixyproxy.service.private.upstream.scheduling import Scheduler
from pixyproxy.service.revalidation import revalidate

logger = logging.getLogger(__name__)

BEGUN_AT_ONCE = 4
"""Orders that a claim may start beside its own: freed slots go to the orders whose turn it is."""
NOTICE_LOOK_SECONDS = 0.1
IMAGE_WINDOW_SECONDS = 60
DOUBT_SECONDS = 1.0
IN_FLIGHT = "This order has already started and can no longer be cancelled."


@dataclass(frozen=True)
class Submission:
    """An accepted order; ``replayed`` if it belongs to an earlier request.

    ``follower`` identifies the request that follows it; None where the order has an Idempotency-Key.
    """

    guid: GenerationGuid
    tenant_id: TenantId
    replayed: bool
    follower: str | None = None


@dataclass(frozen=True)
class _Claim:
    """A principal's order and everything decided about it before the claim."""

    guid: GenerationGuid
    principal: Principal
    order: NewOrder
    wanted: PictureOrder
    reserved_micro_usd: int | None
    idempotency_key: str | None
    repetition: Repetition | None
    follower: str


@dataclass(frozen=True)
class _Claimed:
    """The generation of a claim, an earlier one if ``replayed``, and the generations started with it."""

    generation: Generation
    replayed: bool
    begun: list[Generation]


class _KeyTakenException(Exception):
    """Another claim of this Idempotency-Key was committed at the same moment."""


@dataclass(frozen=True)
class GenerationService:
    """Makes pictures for a principal.

    ``default_model`` is used where an order names no model; ``only_model``, if set, overrides every requested model.
    ``default_options`` are the quality and size of orders that name none, as far as the model's prices list them.
    ``retry_window_seconds`` is how long a retry without an Idempotency-Key is recognized.
    """

    database: Database
    store: LocalStore
    scheduler: Scheduler
    places: Places
    engine: Engine
    prices: Prices
    tasks: DetachedTasks
    inputs: InputReceiver
    default_model: str
    only_model: str | None
    default_options: Mapping[str, str]
    images_per_minute: int
    retry_window_seconds: float

    async def submit(
        self,
        incoming: ImagePrompt | NewOrder,
        *,
        principal: Principal,
        idempotency_key: str | None,
        uploads: Sequence[Upload] = (),
        says_repeated: bool = False,
    ) -> Submission:
        """Accept an order; it is then executed even if the caller is cancelled.

        Return the existing generation for an ``idempotency_key`` that the tenant has used before, or for a retry
        without a key whose original client is gone; ``says_repeated``: the client marks the request as a retry. Raise
        ``ImagePromptException``, ``ModelNotAllowedException``, ``ImageLimitException``, ``ImageStorageException`` or
        ``ImageGenerationException``; nothing was bought.
        """
        valid = revalidate(incoming)
        order = valid if isinstance(valid, NewOrder) else order_of(valid)
        require_storable(order, self.engine.limits)
        asked_for = order.model or self.default_model
        model = self.only_model or asked_for
        if principal.allowed_models is not None and not {model, asked_for} & principal.allowed_models:
            raise ModelNotAllowedException(context={"model": asked_for})
        guid = GenerationGuid(str(uuid.uuid4()))
        order = await self._with_inputs(order, uploads, guid, principal)
        follower = str(uuid.uuid4())
        repetition = None
        if idempotency_key is None:
            repetition = Repetition(
                content=content_of(order, principal.subject),
                follower=follower,
                tenant_id=principal.tenant_id,
                says_so=says_repeated,
                window_seconds=self.retry_window_seconds,
            )
        wanted = self.prices.with_defaults(picture_order(order, model=model), self.default_options)
        claim = _Claim(
            guid=guid,
            principal=principal,
            order=order,
            wanted=wanted,
            reserved_micro_usd=self.prices.upper_bound(wanted),
            idempotency_key=idempotency_key,
            repetition=repetition,
            follower=follower,
        )
        try:
            # Buy nothing that could not be stored.
            await self.store.check()
            # The spool's lock shows this machine when the process is dead, so hold it before the process owns any
            # order.
            await self.engine.spool.open()
            if not self.scheduler.serves(model):
                raise ModelUnknownException
        except (ImageStorageException, ImageGenerationException):
            earlier = await self._earlier(claim)
            await self._remove_inputs(claim)
            if earlier is None:
                raise
            return Submission(earlier, principal.tenant_id, replayed=True)
        return await self.tasks.run(self._submit(claim))

    async def note_lost(self, submission: Submission) -> None:
        """Record that the client left before its response was sent, so that a retry is recognized."""
        follower = submission.follower
        if follower is None:
            return
        with contextlib.suppress(DatabaseException):
            await self.database.write(
                lambda data: data.generations.note_lost(
                    submission.guid, follower, tenant_id=submission.tenant_id, at=clock.seconds()
                )
            )

    async def cancel(self, guid: GenerationGuid, *, tenant_id: TenantId) -> bool:
        """Cancel a waiting order; return False if it has finished. Decided under the scheduling lock.

        Raise ``GenerationNotFoundException``, or ``GenerationInFlightException`` if an upstream is working on it.
        """

        def end(data: Repositories) -> bool:
            found = data.generations.get_by_guid(guid, tenant_id=tenant_id)
            if found is None:
                raise GenerationNotFoundException
            lock_budget(data, found)
            self.scheduler.lock(data)
            ending = ending_of(GenerationCancelledException(), asked=False)
            ending = ending.model_copy(update={"status": GenerationStatus.CANCELLED})
            if settle(data, found, ending, waiting=True):
                return True
            present = data.generations.get_by_guid(guid, tenant_id=tenant_id)
            if present is not None and not present.status.is_final:
                raise GenerationInFlightException(IN_FLIGHT, context={"generation": guid})
            return False

        cancelled = await self.database.write(end)
        self.engine.progress.announce(guid)
        return cancelled

    async def _submit(self, claim: _Claim) -> Submission:
        try:
            claimed = await self._claim_when_certain(claim)
        except BaseException:
            await self._remove_inputs(claim)
            raise
        if claimed.replayed:
            await self._remove_inputs(claim)
        else:
            await reach(FaultPoint.CLAIMED)
        follower = None if claim.repetition is None else claim.follower
        return Submission(claimed.generation.guid, claim.principal.tenant_id, claimed.replayed, follower)

    async def _claim_when_certain(self, claim: _Claim) -> _Claimed:
        """Claim, after at most ``NOTICE_SECONDS`` if the request may be a retry whose loss is not noticed yet."""
        deadline = time.monotonic() + NOTICE_SECONDS
        while True:
            last = time.monotonic() >= deadline
            claimed = await self._claim(claim, perhaps_new=last)
            if claimed is not None:
                return claimed
            await asyncio.sleep(NOTICE_LOOK_SECONDS)

    async def _claim(self, claim: _Claim, *, perhaps_new: bool) -> _Claimed | None:
        """Return the generation that the claim made or found, and start what was scheduled with it.

        After a COMMIT whose result was lost, read the database again. If it does not respond, the caller gets an error
        that says nothing was changed, and a claim that did take effect is failed later.
        """
        began = time.monotonic()
        taken = self.places.take(BEGUN_AT_ONCE)
        begun: list[Generation] = []
        try:
            claimed = await self.places.decide(
                self.database, lambda data: self._decide(data, claim, limit=taken, perhaps_new=perhaps_new)
            )
            begun = [] if claimed is None else claimed.begun
        except _KeyTakenException:
            return await self._claim(claim, perhaps_new=perhaps_new)
        except DatabaseException as error:
            claimed = await self._find_doubtful(claim) if error.in_doubt else None
            if claimed is None:
                raise
            begun = claimed.begun
        finally:
            self.places.give_back(taken - len(begun))
        for generation in begun:
            self.engine.start(generation, began=began)
        if claimed is not None and not claimed.replayed and not begun:
            self.engine.progress.publish(QUEUE)
        return claimed

    def _decide(self, data: Repositories, claim: _Claim, *, limit: int, perhaps_new: bool) -> _Claimed | None:
        """Find the generation that this request repeats, or claim a new one; return None if that is not certain yet."""
        principal = claim.principal
        if (earlier := _of_key(data, claim)) is not None:
            return _Claimed(earlier, replayed=True, begun=[])
        month = month_of(clock.now())
        data.budgets.lock(month, tenant_id=principal.tenant_id)
        if claim.repetition is not None:
            found = claim.repetition.adopt(data)
            if isinstance(found, Generation):
                return _Claimed(found, replayed=True, begun=[])
            if found is Verdict.PERHAPS and not perhaps_new:
                return None
        self._require_images(data, claim)
        _reserve(data, claim, month)
        schedule = self.scheduler.lock(data)
        place = schedule.place_at_once(principal.tenant_id, claim.wanted.model) if limit else None
        terms = Terms(
            guid=claim.guid,
            principal=principal,
            idempotency_key=claim.idempotency_key,
            reserved_micro_usd=claim.reserved_micro_usd,
            place=place,
            content=None if claim.repetition is None else claim.repetition.content,
            follower=claim.follower,
        )
        claimed = data.generations.claim(new_claim(claim.order, claim.wanted, terms))
        if claimed is None:
            raise _KeyTakenException
        begun = [claimed] if place is not None else schedule.begin_waiting(limit=limit)
        if all(each.id != claimed.id for each in begun):
            schedule.require_room(principal.tenant_id, claim.wanted.model)
        schedule.save()
        return _Claimed(claimed, replayed=False, begun=begun)

    def _require_images(self, data: Repositories, claim: _Claim) -> None:
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

    async def _find_doubtful(self, claim: _Claim) -> _Claimed | None:
        """Return the generation of a claim in doubt, if the COMMIT took effect."""
        try:
            found = await self.database.read(lambda data: data.generations.find(claim.guid))
        except BaseException:
            self.tasks.start(self._end_doubtful(claim.guid))
            raise
        if found is None:
            return None
        mine = found.version == 0 and found.status is GenerationStatus.CALLING
        return _Claimed(found, replayed=False, begun=[found] if mine else [])

    async def _end_doubtful(self, guid: GenerationGuid) -> None:
        """Fail a claim in doubt if its COMMIT took effect: its client already got an error.

        A generation that was given to a process since then continues; its row has another version.
        """
        ending = ending_of(DatabaseUnavailableException(), asked=False)

        def end(data: Repositories) -> None:
            found = data.generations.find(guid)
            if found is None:
                return
            lock_budget(data, found)
            self.scheduler.lock(data)
            present = data.generations.find(guid)
            if present is not None and present.version == 0:
                settle(data, present, ending)

        while True:
            await asyncio.sleep(DOUBT_SECONDS)
            with contextlib.suppress(DatabaseException):
                await self.database.write(end)
                return

    async def _with_inputs(
        self, order: NewOrder, uploads: Sequence[Upload], guid: GenerationGuid, principal: Principal
    ) -> NewOrder:
        """Store the input pictures and return the order with them."""
        if not uploads:
            return order
        try:
            inputs = await self.inputs.receive(uploads, guid, tenant_id=principal.tenant_id)
        except BaseException:
            self.tasks.start(run_in_thread(self.store.orders.remove, guid))
            raise
        return order.model_copy(update={"inputs": inputs})

    async def _remove_inputs(self, claim: _Claim) -> None:
        if claim.order.inputs:
            await run_in_thread(self.store.orders.remove, claim.guid)

    async def _earlier(self, claim: _Claim) -> GenerationGuid | None:
        """Return the generation of the same order and key: it needs no space in the store."""
        if claim.idempotency_key is None:
            return None
        try:
            earlier = await self.database.read(lambda data: _of_key(data, claim))
        except IdempotencyMismatchException:
            return None
        return None if earlier is None else earlier.guid


def _of_key(data: Repositories, claim: _Claim) -> Generation | None:
    """Return the earlier generation of the claim's Idempotency-Key. Raise ``IdempotencyMismatchException``."""
    key = claim.idempotency_key
    if key is None:
        return None
    earlier = data.generations.get_by_idempotency_key(key, tenant_id=claim.principal.tenant_id)
    if earlier is not None and earlier.fingerprint != fingerprint(claim.order):
        raise IdempotencyMismatchException
    return earlier


def _reserve(data: Repositories, claim: _Claim, month: str) -> None:
    """Reserve the highest possible cost in the month's budget; an unknown price never skips a limit."""
    amount = claim.reserved_micro_usd
    if amount is None:
        if claim.principal.has_budget:
            raise BudgetUnpricedException(context={"model": claim.wanted.model})
    elif amount and not data.budgets.reserve(month, amount, tenant_id=claim.principal.tenant_id):
        raise BudgetExceededException(context={"may_cost_usd": f"{amount / MICRO:.6f}"})
