"""Usage, and the resolution of unknown outcomes."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    DatabaseException,
    GenerationNotFoundException,
    GenerationResolvedException,
    GenerationUnknownException,
    UpstreamSilentException,
)
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.generation import Generation, GenerationStatus, Outcome, Resolution
from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.models.principal import Principal, Subject
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.retained_answers import RetainedAnswers
from pixyproxy.service.private.generation.resolution import OperationsService
from pixyproxy.service.private.generation.settlement import outcome_of, settle
from tests.service.private.identities import OPERATOR, Identity
from tests.service.private.processes import PRICE, Process
from tests.support.builders import add_generation, new_guid
from tests.support.drawing import FakeDrawer

pytestmark = pytest.mark.anyio
UNKNOWN = GenerationStatus.UNKNOWN
PRICED = ImagePrompt(prompt="a red fox", model="priced")


@pytest.fixture
def operations(database: Database, tmp_path: Path) -> OperationsService:
    return OperationsService(database, RetainedAnswers(tmp_path / "kept"))


async def _add(database: Database, tenant: Tenant, **changes: object) -> Generation:
    order = {"status": GenerationStatus.STORED} | changes
    return await database.write(lambda data: add_generation(data, tenant.id, **order))


async def _count(
    operations: OperationsService, tenant: Tenant, since: date | None = None, until: date | None = None
) -> int:
    rows = await operations.usage(tenant_id=tenant.id, since=since, until=until)
    return sum(row.images for row in rows)


async def test_usage_is_grouped_by_day_model_and_subject(operations: OperationsService, tenant: Tenant) -> None:
    first, second = datetime(2026, 10, 1, 12, tzinfo=UTC), datetime(2026, 10, 2, tzinfo=UTC)
    ann = Subject(new_guid())
    for at, model, subject in ((first, "m", ann), (first, "m", ann), (first, "n", ann), (second, "m", None)):
        await _add(operations.database, tenant, created_at=at, model=model, subject=subject)
    rows = await operations.usage(tenant_id=tenant.id, since=first.date(), until=second.date())
    assert [(row.day, row.model, row.key, row.images) for row in rows] == [
        (first.date(), "m", ann, 2),
        (first.date(), "n", ann, 1),
        (second.date(), "m", None, 1),
    ]


async def test_period_includes_both_days_completely(operations: OperationsService, tenant: Tenant) -> None:
    october, november = date(2026, 10, 1), date(2026, 10, 31)
    for at in (
        datetime(2026, 9, 30, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 10, 1, tzinfo=UTC),
        datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 11, 1, tzinfo=UTC),
    ):
        await _add(operations.database, tenant, created_at=at)
    assert await _count(operations, tenant, october, november) == 2
    assert await _count(operations, tenant, october, october) == 1


async def test_default_period_is_this_month(operations: OperationsService, tenant: Tenant) -> None:
    now = clock.now()
    month_began = now.replace(day=1, hour=0, minute=0, second=0)
    await _add(operations.database, tenant, created_at=now)
    await _add(operations.database, tenant, created_at=month_began)
    await _add(operations.database, tenant, created_at=month_began - timedelta(seconds=1))
    assert await _count(operations, tenant) == 2
    assert await _count(operations, tenant, since=(month_began - timedelta(days=1)).date()) == 3
    assert await _count(operations, tenant, until=now.date()) == 2


async def test_last_day_before_this_month_is_the_only_one(operations: OperationsService, tenant: Tenant) -> None:
    for day in (1, 2):
        await _add(operations.database, tenant, created_at=datetime(2020, 5, day, tzinfo=UTC))
    assert await _count(operations, tenant, until=date(2020, 5, 2)) == 1


async def test_future_period_is_empty(operations: OperationsService, tenant: Tenant) -> None:
    await _add(operations.database, tenant, created_at=clock.now())
    assert await _count(operations, tenant, since=clock.now().date() + timedelta(days=2)) == 0


async def test_usage_has_only_the_tenants_generations(
    operations: OperationsService, tenant: Tenant, stranger: Tenant
) -> None:
    await _add(operations.database, stranger, created_at=clock.now())
    assert await _count(operations, tenant) == 0


async def test_reversed_period_is_empty(operations: OperationsService, tenant: Tenant) -> None:
    await _add(operations.database, tenant, created_at=clock.now())
    assert await _count(operations, tenant, since=date(2126, 10, 2), until=date(2026, 10, 1)) == 0


@pytest.mark.parametrize(
    ("since", "until", "images"),
    [
        (date(2025, 10, 1), date(2026, 10, 2), 0),
        (date.min, date.min, 0),
        (None, date.min, 0),
        (date(999, 1, 1), date(999, 1, 2), 0),
        (date(9999, 1, 1), date.max, 0),
        (date.min, date.max, 1),
        (date.max, date.max, 0),
        (date.min, None, 1),
        (None, date.max, 0),
    ],
)
async def test_other_periods_are_accepted(
    operations: OperationsService, tenant: Tenant, since: date | None, until: date | None, images: int
) -> None:
    await _add(operations.database, tenant, created_at=datetime(2024, 1, 1, tzinfo=UTC))
    assert await _count(operations, tenant, since, until) == images


async def test_unresolved_generations_of_all_tenants_are_listed(
    operations: OperationsService, tenant: Tenant, stranger: Tenant
) -> None:
    made = [await _add(operations.database, owner, status=UNKNOWN) for owner in (tenant, stranger)]
    await _add(operations.database, tenant)
    listed = await operations.list_generations(UNKNOWN, limit=9)
    assert [(found.guid, found.tenant) for found in listed] == [
        (made[1].guid, stranger.guid),
        (made[0].guid, tenant.guid),
    ]
    assert len(await operations.list_generations(UNKNOWN, limit=1)) == 1


async def _unknown(process: Process, principal: Principal, drawer: FakeDrawer) -> str:
    """Return the GUID of a generation with an unknown outcome."""
    drawer.error = UpstreamSilentException()
    with pytest.raises(UpstreamSilentException):
        await process.make(PRICED, principal=principal, key="k")
    await process.finish()
    drawer.error = None
    (found,) = await OperationsService(process.database, process.engine.answers).list_generations(UNKNOWN, limit=9)
    return found.guid


async def test_resolution_as_not_bought_frees_the_idempotency_key(
    operations: OperationsService, process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    guid = await _unknown(process, principal, drawer)
    resolved = await operations.resolve_generation(guid, Resolution(bought=False), actor=OPERATOR)
    assert (resolved.guid, resolved.status) == (guid, GenerationStatus.FAILED)
    assert resolved.resolved_at is not None
    assert not (await process.submit(PRICED, principal=principal, key="k")).replayed
    await process.finish()
    assert len(drawer.asked) == 2


async def test_resolution_as_bought_keeps_the_idempotency_key(
    operations: OperationsService, process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    guid = await _unknown(process, principal, drawer)
    resolved = await operations.resolve_generation(guid, Resolution(bought=True), actor=OPERATOR)
    assert (resolved.guid, resolved.status) == (guid, UNKNOWN)
    assert resolved.resolved_at is not None
    with pytest.raises(GenerationUnknownException):
        await process.make(PRICED, principal=principal, key="k")
    assert len(drawer.asked) == 1


@pytest.mark.parametrize("bought", [True, False])
async def test_resolved_generation_is_not_listed_or_resolved_again(
    operations: OperationsService, tenant: Tenant, *, bought: bool
) -> None:
    generation = await _add(operations.database, tenant, status=UNKNOWN)
    resolution = Resolution(bought=bought)
    await operations.resolve_generation(generation.guid, resolution, actor=OPERATOR)
    assert await operations.list_generations(UNKNOWN, limit=9) == []
    for again in (resolution, Resolution(bought=not bought)):
        with pytest.raises(GenerationResolvedException):
            await operations.resolve_generation(generation.guid, again, actor=OPERATOR)


@pytest.mark.parametrize(("upstream", "since"), [("a", None), (None, 2), ("a", 2), (None, None), ("absent", None)])
async def test_bulk_resolution_filters_by_upstream_and_time(
    operations: OperationsService,
    identity: Identity,
    tenant: Tenant,
    upstream: str | None,
    since: int | None,
) -> None:
    days = {day: datetime(2026, 10, day, tzinfo=UTC) for day in (1, 2, 3)}
    outcome = outcome_of(UpstreamSilentException(), asked=True)
    made = []
    for name, day in (("a", 1), ("a", 2), ("A", 2), ("b", 3), (None, 2)):
        generation = await _add(operations.database, tenant, status=GenerationStatus.CALLING, created_at=days[day])
        update = outcome.model_copy(update={"upstream": name})
        await operations.database.write(partial(_end, generation=generation, outcome=update))
        made.append((generation.guid, name, day))
    known = await _add(operations.database, tenant, created_at=days[3])
    expected = {guid for guid, name, day in made if upstream in (None, name) and day >= (since or 1)}
    moment = None if since is None else days[since]
    resolution = Resolution(bought=False)
    count = await operations.resolve_generations(resolution, upstream=upstream, since=moment, actor=OPERATOR)
    assert count == len(expected)
    open_ones = {found.guid for found in await operations.list_generations(UNKNOWN, limit=9)}
    assert open_ones == {guid for guid, _, _ in made} - expected
    assert {entry.target for entry in await identity.entries()} == expected
    again = await operations.database.read(lambda data: data.generations.find(known.guid))
    assert again == known


def _end(data: Repositories, *, generation: Generation, outcome: Outcome) -> None:
    assert settle(data, generation, outcome)


@pytest.mark.parametrize("status", sorted(set(GenerationStatus) - {UNKNOWN}))
async def test_known_outcome_cannot_be_resolved(
    operations: OperationsService, tenant: Tenant, status: GenerationStatus
) -> None:
    generation = await _add(operations.database, tenant, status=status)
    with pytest.raises(GenerationResolvedException):
        await operations.resolve_generation(generation.guid, Resolution(bought=False), actor=OPERATOR)


async def test_missing_generation_cannot_be_resolved(operations: OperationsService) -> None:
    with pytest.raises(GenerationNotFoundException):
        await operations.resolve_generation(new_guid(), Resolution(bought=True), actor=OPERATOR)


@pytest.mark.parametrize("bought", [True, False])
async def test_resolution_charges_or_releases_the_reservation(
    operations: OperationsService, process: Process, principal: Principal, drawer: FakeDrawer, *, bought: bool
) -> None:
    spent = PRICE if bought else 0
    generation = await process.generation(await _unknown(process, principal, drawer))
    assert (await process.spending(generation)).reserved_micro_usd == PRICE
    resolved = await operations.resolve_generation(generation.guid, Resolution(bought=bought), actor=OPERATOR)
    assert (resolved.reserved_usd, resolved.cost_usd) == (0.04, spent / 1_000_000)
    spending = await process.spending(generation)
    assert (spending.spent_micro_usd, spending.reserved_micro_usd) == (spent, 0)


def _update(data: Repositories, *, tenant: Tenant) -> None:
    data.tenants.update(tenant)


async def test_budget_shows_the_remaining_amount(
    operations: OperationsService, process: Process, tenant: Tenant, principal: Principal, drawer: FakeDrawer
) -> None:
    before = await operations.budget(tenant_id=tenant.id)
    assert (before.month, before.limit_usd, before.left_usd) == (f"{clock.now():%Y-%m}", None, None)
    await process.make(PRICED, principal=principal)
    await _unknown(process, principal, drawer)
    for limit, left in (("1.50", 1.42), ("0.05", 0)):
        limited = tenant.model_copy(update={"monthly_budget_usd": Decimal(limit)})
        await process.database.write(partial(_update, tenant=limited))
        told = await operations.budget(tenant_id=tenant.id)
        assert (told.limit_usd, told.left_usd) == (float(limit), left)
        assert (told.spent_usd, told.reserved_usd) == (0.04, 0.04)


@pytest.mark.parametrize("bought", [True, False])
async def test_resolution_is_audited_once(
    operations: OperationsService, identity: Identity, tenant: Tenant, *, bought: bool
) -> None:
    generation = await _add(operations.database, tenant, status=UNKNOWN)
    await operations.resolve_generation(generation.guid, Resolution(bought=bought), actor=OPERATOR)
    with pytest.raises(GenerationResolvedException):
        await operations.resolve_generation(generation.guid, Resolution(bought=bought), actor=OPERATOR)
    (entry,) = await identity.entries()
    assert (entry.action, entry.actor) == (AuditAction.GENERATION_RESOLVED, OPERATOR.subject)
    assert (entry.tenant_guid, entry.target) == (tenant.guid, generation.guid)
    assert entry.details == {"bought": str(bought).lower()}


async def test_resolution_without_audit_is_rolled_back(
    operations: OperationsService, identity: Identity, tenant: Tenant
) -> None:
    generation = await _add(operations.database, tenant, status=UNKNOWN, idempotency_key="k")
    await identity.break_audit_log()
    with pytest.raises(DatabaseException):
        await operations.resolve_generation(generation.guid, Resolution(bought=False), actor=OPERATOR)
    found = await operations.database.read(lambda data: data.generations.find(generation.guid))
    assert found == generation
