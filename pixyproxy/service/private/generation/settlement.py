"""Settle a generation: status, images, charge and webhooks in one transaction."""

import logging
from dataclasses import dataclass
from datetime import datetime

from pixyproxy.core import clock, exceptions
from pixyproxy.core.exceptions import (
    GenerationDeletedException,
    ImageGenerationException,
    PictureUnusableException,
    PixyProxyException,
    UpstreamAnswerException,
    UpstreamSilentException,
)
from pixyproxy.core.models.generation import (
    Generation,
    GenerationError,
    GenerationStatus,
    GenerationWithImages,
    Outcome,
)
from pixyproxy.core.models.webhook import GenerationOutcome
from pixyproxy.data.database import Repositories
from pixyproxy.data.files.spool import SpoolEntry
from pixyproxy.service.private.billing.prices import Prices
from pixyproxy.service.private.generation.orders import new_images
from pixyproxy.service.private.webhooks import subscriptions as webhooks

logger = logging.getLogger(__name__)

EXCEPTIONS: dict[str, type[PixyProxyException]] = {
    kind.code: kind
    for kind in vars(exceptions).values()
    if isinstance(kind, type) and issubclass(kind, PixyProxyException)
}
"""Exceptions by code, so that a stored error is raised again unchanged."""


@dataclass(frozen=True)
class Settlement:
    """Records the outcomes of generations."""

    prices: Prices

    def record(self, data: Repositories, generation: Generation, entry: SpoolEntry) -> GenerationWithImages:
        """Record and charge the stored pictures of a generation; idempotent.

        The caller holds the lock of its budget. Raise ``GenerationDeletedException`` if the tenant was removed or the
        images were deleted meanwhile.
        """
        cost = self.prices.cost(generation.order, entry.answer, pictures=len(entry.pictures))
        if cost is not None and generation.reserved_micro_usd is not None and cost > generation.reserved_micro_usd:
            logger.warning("generation %s cost more than its reservation: check the model's price", generation.guid)
        outcome = Outcome(
            status=GenerationStatus.STORED,
            at=clock.now(),
            cost_micro_usd=cost,
            image_count=len(entry.pictures),
            upstream=entry.upstream,
            answer=entry.answer,
        )
        if settle(data, generation, outcome) or _settle_resolved(data, generation, outcome):
            images = tuple(data.images.record(image) for image in new_images(generation, entry.pictures))
            return GenerationWithImages(generation=_ended(generation, outcome), images=images)
        return require_images(data, generation)


def lock_budget(data: Repositories, generation: Generation) -> None:
    """Lock the budget of a generation. Lock order: budgets, upstreams, generations."""
    if generation.budget_month is not None:
        data.budgets.lock(generation.budget_month, tenant_id=generation.tenant_id)


def settle(data: Repositories, generation: Generation, outcome: Outcome, *, waiting: bool = False) -> bool:
    """Settle a generation once, with its budget locked; return False if it has already finished.

    ``waiting``: only if it is still in the queue. An unknown outcome keeps the reservation, which is charged if an
    operator finds that the upstream did the work.
    """
    end = data.generations.end_waiting if waiting else data.generations.settle
    if not end(generation.id, outcome, tenant_id=generation.tenant_id):
        return False
    if outcome.status is not GenerationStatus.UNKNOWN:
        charge(data, generation, released=generation.reserved_micro_usd or 0, spent=outcome.cost_micro_usd or 0)
    webhooks.enqueue(data, webhook_outcome(_ended(generation, outcome), at=outcome.at))
    return True


def outcome_of(error: BaseException, *, asked: bool, upstream: str | None = None) -> Outcome:
    """Return the outcome for an error; ``upstream`` is the last one that was called.

    The outcome is unknown if something may have been bought, or if a picture cannot be stored so that its cost is not
    known. If no upstream was called (``asked``), nothing was bought. A response without a picture is not charged, but
    its Idempotency-Key stays in use so that the upstream is not called again. Every other error bought nothing and
    frees the key.
    """
    answered = isinstance(error, UpstreamAnswerException)
    unknown = isinstance(error, UpstreamSilentException | PictureUnusableException)
    refused = not (asked and (unknown or not isinstance(error, ImageGenerationException)))
    return Outcome(
        status=GenerationStatus.FAILED if refused else GenerationStatus.UNKNOWN,
        at=clock.now(),
        cost_micro_usd=0 if refused else None,
        upstream=upstream if asked else None,
        error=error_of(error),
        frees_key=refused and not answered,
    )


def error_of(error: BaseException) -> GenerationError:
    """Return an exception as stored in a generation's row; hide the details of foreign exceptions."""
    shown = error if isinstance(error, PixyProxyException) else PixyProxyException()
    return GenerationError(
        code=shown.code,
        detail=shown.message,
        context=shown.context,
        retry_after_seconds=shown.retry_after_seconds,
    )


def exception_of(error: GenerationError) -> PixyProxyException:
    """Return the exception of a failed generation, to be raised again."""
    kind = EXCEPTIONS.get(error.code, ImageGenerationException)
    return kind(error.detail, retry_after_seconds=error.retry_after_seconds, context=error.context)


def require_images(data: Repositories, generation: Generation) -> GenerationWithImages:
    """Return a stored generation with its images. Raise ``GenerationDeletedException`` if none is left."""
    stored = data.generations.get(generation.id, tenant_id=generation.tenant_id)
    images = data.images.list_of_generations([generation.id], tenant_id=generation.tenant_id)
    if stored is None or not images:
        raise GenerationDeletedException
    return GenerationWithImages(generation=stored, images=tuple(images))


def _settle_resolved(data: Repositories, generation: Generation, outcome: Outcome) -> bool:
    """Settle a generation whose picture was found after an operator's decision, and correct that charge."""
    before = data.generations.get(generation.id, tenant_id=generation.tenant_id)
    if before is None or not data.generations.settle_resolved(before.id, outcome, tenant_id=before.tenant_id):
        return False
    charge(data, before, released=0, spent=(outcome.cost_micro_usd or 0) - (before.cost_micro_usd or 0))
    webhooks.enqueue(data, webhook_outcome(_ended(before, outcome), at=outcome.at))
    return True


def webhook_outcome(generation: Generation, *, at: datetime) -> GenerationOutcome:
    """Return the webhook event data of a generation."""
    return GenerationOutcome(
        tenant_id=generation.tenant_id,
        guid=generation.guid,
        status=generation.status,
        prompt=generation.order.prompt,
        images=generation.image_guids[: generation.image_count] if generation.status is GenerationStatus.STORED else (),
        error=None if generation.error is None else generation.error.code,
        at=at,
    )


def _ended(generation: Generation, outcome: Outcome) -> Generation:
    """Return the generation as its row is now."""
    values = {name: getattr(outcome, name) for name in Outcome.model_fields if name in Generation.model_fields}
    changes = {"finished_at": outcome.at, "updated_at": outcome.at, "version": generation.version + 1}
    place_until = generation.place_until if outcome.keeps_place else None
    return generation.model_copy(update=values | changes | {"place_until": place_until})


def charge(data: Repositories, generation: Generation, *, released: int, spent: int) -> None:
    """Release a generation's reservation in its month's budget and add what was spent, in micro-dollars."""
    if generation.budget_month is not None and (released or spent):
        data.budgets.settle(generation.budget_month, released=released, spent=spent, tenant_id=generation.tenant_id)
