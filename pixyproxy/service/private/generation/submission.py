"""Accept orders; an accepted order is executed even if its client disconnects."""

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    DatabaseException,
    GenerationCancelledException,
    GenerationInFlightException,
    GenerationNotFoundException,
    IdempotencyMismatchException,
    ImageGenerationException,
    ImageStorageException,
    ModelNotAllowedException,
    ModelUnknownException,
)
from pixyproxy.core.fault_points import FaultPoint, reach
from pixyproxy.core.models.generation import GenerationGuid, GenerationStatus
from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.models.order import NewOrder
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.billing.prices import Prices
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.generation.claims import Claim, Claims
from pixyproxy.service.private.generation.engine import Engine
from pixyproxy.service.private.generation.inputs import InputReceiver, Upload
from pixyproxy.service.private.generation.orders import (
    content_of,
    fingerprint,
    order_of,
    picture_order,
    require_storable,
)
from pixyproxy.service.private.generation.retries import Repetition
from pixyproxy.service.private.generation.settlement import lock_budget, outcome_of, settle
from pixyproxy.service.private.upstream.scheduling import Scheduler
from pixyproxy.service.revalidation import revalidate

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
class GenerationService:
    """Makes pictures for a principal.

    ``default_model`` is used where an order names no model; ``only_model``, if set, overrides every requested model.
    ``default_options`` are the quality and size of orders that name none, as far as the model's prices list them.
    ``retry_window_seconds`` is how long a retry without an Idempotency-Key is recognized.
    """

    database: Database
    store: LocalStore
    scheduler: Scheduler
    engine: Engine
    claims: Claims
    prices: Prices
    tasks: DetachedTasks
    inputs: InputReceiver
    default_model: str
    only_model: str | None
    default_options: Mapping[str, str]
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
        model = self._require_model(order, principal)
        guid = GenerationGuid(str(uuid.uuid4()))
        order = await self._with_inputs(order, uploads, guid, principal)
        same, follower = fingerprint(order), str(uuid.uuid4())
        repetition = None
        if idempotency_key is None:
            repetition = Repetition(
                content=content_of(same, principal.subject),
                follower=follower,
                tenant_id=principal.tenant_id,
                says_so=says_repeated,
                window_seconds=self.retry_window_seconds,
            )
        wanted = self.prices.with_defaults(picture_order(order, model=model), self.default_options)
        claim = Claim(
            guid=guid,
            principal=principal,
            order=order,
            wanted=wanted,
            fingerprint=same,
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
            outcome = outcome_of(GenerationCancelledException(), asked=False)
            outcome = outcome.model_copy(update={"status": GenerationStatus.CANCELLED})
            if settle(data, found, outcome, waiting=True):
                return True
            present = data.generations.get_by_guid(guid, tenant_id=tenant_id)
            if present is not None and not present.status.is_final:
                raise GenerationInFlightException(IN_FLIGHT, context={"generation": guid})
            return False

        cancelled = await self.database.write(end)
        self.engine.progress.announce(guid)
        return cancelled

    async def _submit(self, claim: Claim) -> Submission:
        try:
            claimed = await self.claims.claim(claim)
        except BaseException:
            await self._remove_inputs(claim)
            raise
        if claimed.replayed:
            await self._remove_inputs(claim)
        else:
            await reach(FaultPoint.CLAIMED)
        follower = None if claim.repetition is None else claim.follower
        return Submission(claimed.generation.guid, claim.principal.tenant_id, claimed.replayed, follower)

    def _require_model(self, order: NewOrder, principal: Principal) -> str:
        """Return the model that draws an order. Raise ``ModelNotAllowedException``."""
        requested = order.model or self.default_model
        model = self.only_model or requested
        if principal.allowed_models is not None and not {model, requested} & principal.allowed_models:
            raise ModelNotAllowedException(context={"model": requested})
        return model

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

    async def _remove_inputs(self, claim: Claim) -> None:
        if claim.order.inputs:
            await run_in_thread(self.store.orders.remove, claim.guid)

    async def _earlier(self, claim: Claim) -> GenerationGuid | None:
        """Return the generation of the same order and key: it needs no space in the store."""
        if claim.idempotency_key is None:
            return None
        try:
            earlier = await self.database.read(claim.earlier_generation)
        except IdempotencyMismatchException:
            return None
        return None if earlier is None else earlier.guid
