"""Taking orders in: from then on they are executed, whatever becomes of whoever asked."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pixyproxy.core.exceptions import (
    BudgetExceededException,
    BudgetUnpricedException,
    DatabaseUnavailableException,
    GenerationInFlightException,
    IdempotencyMismatchException,
    ImageGenerationException,
    ImageStorageException,
    ModelNotAllowedException,
)
from pixyproxy.core.fault_points import FaultPoint, reach
from pixyproxy.core.models.budget import MICRO
from pixyproxy.core.models.generation import (
    Generation,
    GenerationGuid,
    GenerationStatus,
    NewGeneration,
)
from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.models.order import NewOrder
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.spool import SpoolFolder
from pixyproxy.data.store.local import LocalStore
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.generation.engine import LEASE_SECONDS, Engine
from pixyproxy.service.private.generation.inputs import InputReceiver, Upload
from pixyproxy.service.private.generation.jobs import Job, Jobs
from pixyproxy.service.private.generation.orders import (
    Terms,
    fingerprint,
    new_claim,
    order_of,
    picture_order,
    require_storable,
)
from pixyproxy.service.private.prices import Prices
from pixyproxy.service.private.upstream.pool import Turn, UpstreamPool
from pixyproxy.service.revalidation import revalidate


@dataclass(frozen=True)
class Submission:
    """An order that was taken in; ``replayed`` if an earlier request with the same Idempotency-Key was it."""

    guid: GenerationGuid
    replayed: bool


@dataclass(frozen=True)
class GenerationService:
    """Makes pictures for a principal.

    ``default_model`` is asked for where an order names none; ``only_model``, if it is set, draws whatever was
    asked for. ``default_options`` are the quality and size of orders that name none, as far as the model's price lists
    them.
    """

    database: Database
    store: LocalStore
    pool: UpstreamPool
    engine: Engine
    jobs: Jobs
    prices: Prices
    tasks: DetachedTasks
    inputs: InputReceiver
    default_model: str
    only_model: str | None
    default_options: Mapping[str, str]

    async def submit(
        self,
        incoming: ImagePrompt | NewOrder,
        *,
        principal: Principal,
        idempotency_key: str | None,
        uploads: Sequence[Upload] = (),
    ) -> Submission:
        """Take an order in: from then on it is executed, whatever becomes of the caller.

        A repeated ``idempotency_key`` of the tenant gives the generation that it made already. Raises
        ``ImagePromptException``, ``ModelNotAllowedException``, ``ImageStorageException`` and
        ``ImageGenerationException``; nothing was bought.
        """
        valid = revalidate(incoming)
        order = valid if isinstance(valid, NewOrder) else order_of(valid)
        require_storable(order, self.engine.limits)
        asked_for = order.model or self.default_model
        model = self.only_model or asked_for
        if principal.allowed_models is not None and not {model, asked_for} & principal.allowed_models:
            raise ModelNotAllowedException(context={"model": asked_for})
        # Its lock tells others that this process lives, so that nobody takes over what it is about to claim.
        folder = await self.engine.spool.open()
        guid = GenerationGuid(str(uuid.uuid4()))
        order = await self._with_inputs(order, uploads, guid, folder, principal)
        try:
            # Nothing is bought that could not be kept.
            await self.store.check()
            # From here on nothing is waited for, so that a caller who is gone leaves neither a turn nor files behind.
            turn = self.pool.join(principal.tenant_id, model)
        except (ImageStorageException, ImageGenerationException):
            earlier = await self._earlier(order, idempotency_key, principal.tenant_id)
            if order.inputs:
                await folder.remove(guid)
            if earlier is None:
                raise
            return Submission(earlier, replayed=True)
        wanted = self.prices.with_defaults(picture_order(order, model=model), self.default_options)
        terms = Terms(
            guid=guid,
            principal=principal,
            idempotency_key=idempotency_key,
            reserved_micro_usd=self.prices.upper_bound(wanted),
            status=GenerationStatus.CALLING if turn.ready else GenerationStatus.ACCEPTED,
            owner=self.engine.spool.owner,
            lease_seconds=LEASE_SECONDS,
        )
        return await self.tasks.run(self._claim_and_start(new_claim(order, wanted, terms), principal, turn))

    def resume(self, generation: Generation) -> None:
        """Execute an accepted generation that a dead process left, and that is this one's now.

        Raises ``QueueFullException`` and ``ModelUnknownException``.
        """
        self._start(generation, self.pool.join(generation.tenant_id, generation.order.model))

    async def _with_inputs(
        self,
        order: NewOrder,
        uploads: Sequence[Upload],
        guid: GenerationGuid,
        folder: SpoolFolder,
        principal: Principal,
    ) -> NewOrder:
        """The order with its input pictures, which are in the spool by then."""
        if not uploads:
            return order
        try:
            inputs = await self.inputs.receive(uploads, guid, folder=folder, tenant_id=principal.tenant_id)
        except BaseException:
            self.tasks.start(folder.remove(guid))
            raise
        return order.model_copy(update={"inputs": inputs})

    async def _earlier(self, order: NewOrder, key: str | None, tenant_id: TenantId) -> GenerationGuid | None:
        """The same order under the same key: it is not a new one, and needs no room."""
        if key is None:
            return None
        earlier = await self.database.read(
            lambda data: data.generations.get_by_idempotency_key(key, tenant_id=tenant_id)
        )
        return earlier.guid if earlier is not None and earlier.fingerprint == fingerprint(order) else None

    async def _claim_and_start(self, claim: NewGeneration, principal: Principal, turn: Turn) -> Submission:
        try:
            claimed = await self._claim(claim, principal)
        except BaseException:
            await self._withdraw(claim, turn)
            raise
        if claimed.guid != claim.guid:
            await self._withdraw(claim, turn)
            return Submission(claimed.guid, replayed=True)
        await reach(FaultPoint.CLAIMED)
        self._start(claimed, turn)
        return Submission(claimed.guid, replayed=False)

    async def _claim(self, claim: NewGeneration, principal: Principal) -> Generation:
        """The generation that a claim made or found; where a COMMIT's answer was lost, the database is asked again.

        If it does not answer, the caller is told that nothing was changed, and recovery ends a claim that stands.
        """
        try:
            return await self.database.write(lambda data: _claim_or_find(data, claim, principal))
        except DatabaseUnavailableException:
            claimed = None
            try:
                claimed = await self.database.read(lambda data: data.generations.find(claim.guid))
            finally:
                # Not before: recovery ends what is doubtful, and this one may yet be executed.
                if claimed is None:
                    self.jobs.doubtful.add(claim.guid)
            if claimed is None:
                raise
            return claimed

    async def _withdraw(self, claim: NewGeneration, turn: Turn) -> None:
        turn.pool.withdraw(turn)
        if claim.order.inputs:
            await (await self.engine.spool.open()).remove(claim.guid)

    def _start(self, generation: Generation, turn: Turn) -> None:
        job = self.jobs.add(Job(generation, turn, generation.status))
        self.tasks.start(self.engine.execute(job))


def _claim_or_find(data: Repositories, claim: NewGeneration, principal: Principal) -> Generation:
    """The new generation with its budget reserved, or the one that its Idempotency-Key made before."""
    claimed = data.generations.claim(claim)
    if claimed is not None:
        _reserve(data, claimed, principal)
        return claimed
    earlier = data.generations.get_by_idempotency_key(claim.idempotency_key or "", tenant_id=claim.tenant_id)
    if earlier is None:
        # It failed and set its key free since the claim: the next attempt will win.
        raise GenerationInFlightException
    if earlier.fingerprint != claim.fingerprint:
        raise IdempotencyMismatchException
    return earlier


def _reserve(data: Repositories, generation: Generation, principal: Principal) -> None:
    """Take what it may cost at the most from the month's budget; no limit is skipped because a price is unknown."""
    if generation.reserved_micro_usd is None:
        if principal.has_budget:
            raise BudgetUnpricedException(context={"model": generation.order.model})
    elif generation.reserved_micro_usd and generation.budget_month is not None:
        amount = generation.reserved_micro_usd
        if not data.budgets.reserve(generation.budget_month, amount, tenant_id=generation.tenant_id):
            raise BudgetExceededException(context={"may_cost_usd": f"{amount / MICRO:.6f}"})
