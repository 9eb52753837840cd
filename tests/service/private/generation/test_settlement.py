"""Settlement writes status, images and charge together, and the budget stays exact whatever is found out later."""

from pathlib import Path

import pytest

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.generation import Generation, GenerationError, GenerationStatus, Resolution
from pixyproxy.core.models.image import ImageGuid
from pixyproxy.core.models.order import ReceivedPicture, UpstreamAnswer, UpstreamUsage
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.core.models.webhook import WebhookEvent
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.retained_answers import RetainedAnswers
from pixyproxy.data.files.spool import SpoolEntry
from pixyproxy.service.private.generation.resolution import OperationsService
from pixyproxy.service.private.generation.settlement import (
    EXCEPTIONS,
    Settlement,
    exception_of,
    outcome_of,
    require_images,
    settle,
)
from tests.service.private.identities import OPERATOR
from tests.service.private.processes import PRICE, PRICES
from tests.support.builders import add_generation, new_guid, new_order
from tests.support.webhook_receiver import new_webhook

pytestmark = pytest.mark.anyio
MONTH = "2026-11"
ACCEPTED, CALLING, STORED, FAILED, UNKNOWN, CANCELLED = GenerationStatus
SETTLEMENT = Settlement(prices=PRICES)
PICTURE = ReceivedPicture(media_type="image/png", byte_size=7, sha256="a" * 64, width=3, height=2)
TOKENS = UpstreamAnswer(usage=UpstreamUsage(input_text_tokens=10, output_image_tokens=100))
TOKENS_COST = 10 * 1 + 100 * 10


def _reserved(data: Repositories, tenant: Tenant, *, count: int = 1, model: str = "priced") -> Generation:
    """Add a generation whose upstream is being called, with its budget reserved."""
    order = new_order(count=count, model=model)
    bound = PRICES.upper_bound(order)
    data.budgets.lock(MONTH, tenant_id=tenant.id)
    reserved = bound is not None and data.budgets.reserve(MONTH, bound, tenant_id=tenant.id)
    assert reserved is (bound is not None)
    return add_generation(
        data,
        tenant.id,
        idempotency_key=new_guid(),
        order=order,
        image_guids=tuple(ImageGuid(new_guid()) for _ in range(count)),
        budget_month=MONTH,
        reserved_micro_usd=bound,
    )


def _entry(generation: Generation, *, pictures: int = 1, answer: UpstreamAnswer | None = None) -> SpoolEntry:
    return SpoolEntry(
        generation=generation.guid, upstream="a", pictures=(PICTURE,) * pictures, answer=answer or UpstreamAnswer()
    )


async def _claim(database: Database, tenant: Tenant, *, count: int = 1, model: str = "priced") -> Generation:
    return await database.write(lambda data: _reserved(data, tenant, count=count, model=model))


async def _record(
    database: Database, generation: Generation, *, pictures: int = 1, answer: UpstreamAnswer | None = None
) -> Generation:
    entry = _entry(generation, pictures=pictures, answer=answer)
    return (await database.write(lambda data: SETTLEMENT.record(data, generation, entry))).generation


async def _end(database: Database, generation: Generation, error: BaseException) -> bool:
    outcome = outcome_of(error, asked=True)
    return await database.write(lambda data: settle(data, generation, outcome))


async def _budget(database: Database, tenant: Tenant) -> tuple[int, int]:
    """Return the spent and the reserved amount."""
    spending = await database.read(lambda data: data.budgets.get(MONTH, tenant_id=tenant.id))
    return spending.spent_micro_usd, spending.reserved_micro_usd


async def test_stored_pictures_are_charged_once(database: Database, tenant: Tenant) -> None:
    generation = await _claim(database, tenant, count=2)
    assert await _budget(database, tenant) == (0, 2 * PRICE)
    stored = [await _record(database, generation, pictures=2) for _ in range(3)]
    assert stored[0] == stored[1] == stored[2]
    assert (stored[0].status, stored[0].cost_micro_usd, stored[0].image_count) == (STORED, 2 * PRICE, 2)
    assert await _budget(database, tenant) == (2 * PRICE, 0)
    images = await database.read(lambda data: require_images(data, generation).images)
    assert tuple(image.guid for image in images) == generation.image_guids


async def test_only_received_pictures_are_charged(database: Database, tenant: Tenant) -> None:
    generation = await _claim(database, tenant, count=3)
    stored = await _record(database, generation, pictures=1)
    assert (stored.cost_micro_usd, stored.image_count) == (PRICE, 1)
    assert await _budget(database, tenant) == (PRICE, 0)


async def test_reported_tokens_determine_the_charge(database: Database, tenant: Tenant) -> None:
    generation = await _claim(database, tenant, model="by-tokens")
    assert generation.reserved_micro_usd is not None
    assert generation.reserved_micro_usd > TOKENS_COST
    stored = await _record(database, generation, answer=TOKENS)
    assert (stored.cost_micro_usd, stored.answer) == (TOKENS_COST, TOKENS)
    assert await _budget(database, tenant) == (TOKENS_COST, 0)


async def test_unpriced_picture_is_stored_without_a_charge(database: Database, tenant: Tenant) -> None:
    stored = await _record(database, await _claim(database, tenant, model="fake"))
    assert (stored.status, stored.cost_micro_usd) == (STORED, None)
    assert await _budget(database, tenant) == (0, 0)


async def test_failure_releases_the_reservation_once(database: Database, tenant: Tenant) -> None:
    generation, other = [await _claim(database, tenant) for _ in range(2)]
    assert await _end(database, generation, core.PromptRefusedException())
    assert not await _end(database, generation, core.PromptRefusedException())
    assert not await _end(database, generation, core.UpstreamSilentException())
    assert await _budget(database, tenant) == (0, PRICE)
    assert other.reserved_micro_usd == PRICE


async def test_unknown_outcome_keeps_the_reservation_until_a_picture_is_found(
    database: Database, tenant: Tenant
) -> None:
    generation = await _claim(database, tenant, model="by-tokens")
    assert await _end(database, generation, core.UpstreamSilentException())
    assert not await _end(database, generation, core.UpstreamSilentException())
    assert await _budget(database, tenant) == (0, generation.reserved_micro_usd)
    stored = await _record(database, generation, answer=TOKENS)
    assert stored.status is STORED
    assert await _budget(database, tenant) == (TOKENS_COST, 0)


@pytest.mark.parametrize("model", ["priced", "by-tokens", "fake"])
@pytest.mark.parametrize("bought", [True, False])
async def test_picture_found_after_a_resolution_corrects_the_charge(
    database: Database, tenant: Tenant, tmp_path: Path, model: str, *, bought: bool
) -> None:
    generation = await _claim(database, tenant, model=model)
    await _end(database, generation, core.UpstreamSilentException())
    operations = OperationsService(database, RetainedAnswers(tmp_path))
    await operations.resolve_generation(generation.guid, Resolution(bought=bought), actor=OPERATOR)
    bound = generation.reserved_micro_usd or 0
    assert await _budget(database, tenant) == (bound if bought else 0, 0)
    cost = {"priced": PRICE, "by-tokens": TOKENS_COST, "fake": None}[model]
    for _ in range(2):
        stored = await _record(database, generation, answer=TOKENS)
        assert (stored.status, stored.cost_micro_usd) == (STORED, cost)
        assert await _budget(database, tenant) == (cost or 0, 0)


@pytest.mark.parametrize("status", [STORED, FAILED, UNKNOWN])
async def test_first_of_two_concurrent_outcomes_counts(
    database: Database, tenant: Tenant, status: GenerationStatus
) -> None:
    generation = await _claim(database, tenant)
    errors = {FAILED: core.PromptRefusedException(), UNKNOWN: core.UpstreamSilentException()}
    if status is STORED:
        await _record(database, generation)
    else:
        await _end(database, generation, errors[status])
    for error in errors.values():
        await _end(database, generation, error)
    found = await database.read(lambda data: data.generations.find(generation.guid))
    assert found is not None
    # That the upstream certainly did nothing replaces an unknown outcome.
    assert found.status is (FAILED if status is UNKNOWN else status)
    assert await _budget(database, tenant) == (PRICE if status is STORED else 0, 0)


async def test_pictures_of_a_removed_tenant_are_not_recorded(database: Database, tenant: Tenant) -> None:
    generation = await _claim(database, tenant)
    await _end(database, generation, core.UpstreamSilentException())
    await database.write(lambda data: data.generations.delete_settled(tenant_id=tenant.id))
    with pytest.raises(core.GenerationDeletedException):
        await _record(database, generation)


async def test_deleted_pictures_are_not_recorded_again(database: Database, tenant: Tenant) -> None:
    generation = await _claim(database, tenant)
    await _record(database, generation)
    await database.write(lambda data: data.images.delete(generation.image_guids[0], tenant_id=tenant.id))
    with pytest.raises(core.GenerationDeletedException):
        await _record(database, generation)
    assert await _budget(database, tenant) == (PRICE, 0)


async def test_each_outcome_enqueues_one_webhook_event(database: Database, tenant: Tenant) -> None:
    webhook = new_webhook(tenant.id)
    await database.write(lambda data: data.webhooks.insert(webhook))
    stored, failed = [await _claim(database, tenant) for _ in range(2)]
    for _ in range(2):
        await _record(database, stored)
        await _end(database, failed, core.PromptRefusedException())
    deliveries = await database.read(
        lambda data: data.webhook_deliveries.list_of_webhook(webhook.guid, tenant_id=tenant.id, limit=9)
    )
    assert {each.event for each in deliveries} == {WebhookEvent.GENERATION_STORED, WebhookEvent.GENERATION_FAILED}
    assert len(deliveries) == 2


@pytest.mark.parametrize("code", sorted(EXCEPTIONS))
def test_stored_error_is_raised_again_unchanged(code: str) -> None:
    error = GenerationError(code=code, detail="d", context={"a": "b"}, retry_after_seconds=3)
    again = exception_of(error)
    assert (type(again), again.code) == (EXCEPTIONS[code], code)
    assert (again.message, again.context, again.retry_after_seconds) == ("d", {"a": "b"}, 3)


def test_unknown_error_code_is_a_generation_exception() -> None:
    assert type(exception_of(GenerationError(code="of tomorrow", detail="d"))) is core.ImageGenerationException


def test_every_exception_is_found_by_its_code() -> None:
    kinds: list[type[core.PixyProxyException]] = [core.PixyProxyException]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    outcome = [kind for kind in kinds if issubclass(kind, core.ImageException | core.DatabaseException)]
    assert [kind.__name__ for kind in outcome if EXCEPTIONS[kind.code] is not kind] == []
