"""The ``generations`` repository: claims, and the ways a generation can end."""

from datetime import datetime, timedelta

import anyio
import pytest
from sqlalchemy import text

from pixyproxy.core.models.generation import Generation, GenerationStatus, NewGeneration
from pixyproxy.core.models.principal import Subject
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data import generations
from pixyproxy.data.database import Database, Repositories
from tests.support.builders import LATER, MOMENT, add_generation, add_tenant, new_generation, new_guid

CALLING, STORED, FAILED, UNKNOWN = GenerationStatus


def _settle(data: Repositories, generation: Generation, *statuses: GenerationStatus) -> Generation:
    """The generation after it was settled so, one after the other."""
    for status in statuses:
        data.generations.settle(generation.id, status, tenant_id=generation.tenant_id, at=LATER)
    return _found(data, generation)


def _found(data: Repositories, generation: NewGeneration) -> Generation:
    """The generation as it stands in the table."""
    row = data.connection.execute(text(f"{generations.SELECT} WHERE guid = :guid"), {"guid": generation.guid})
    return generations.from_row(row.mappings().one())


@pytest.mark.parametrize("key", [None, "k", "Key-1 ~!@#$%^&*()'\"\\;", "k" * 255])
def test_every_column_comes_back_as_it_went_in(data: Repositories, tenant: Tenant, key: str | None) -> None:
    new = new_generation(tenant.id, idempotency_key=key)
    claimed = data.generations.claim(new)
    assert claimed is not None
    assert claimed.model_dump(exclude={"id", "resolved_at"}) == new.model_dump()
    assert _found(data, new) == claimed


def test_a_claimed_key_is_not_claimed_again(data: Repositories, tenant: Tenant) -> None:
    first = add_generation(data, tenant.id, idempotency_key="k")
    assert data.generations.claim(new_generation(tenant.id, idempotency_key="k")) is None
    assert data.generations.get_by_idempotency_key("k", tenant_id=tenant.id) == first


def test_keys_differ_by_case(data: Repositories, tenant: Tenant) -> None:
    lower = add_generation(data, tenant.id, idempotency_key="key")
    upper = add_generation(data, tenant.id, idempotency_key="KEY")
    assert data.generations.get_by_idempotency_key("key", tenant_id=tenant.id) == lower
    assert data.generations.get_by_idempotency_key("KEY", tenant_id=tenant.id) == upper


def test_the_same_key_of_two_tenants_is_two_keys(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    mine = add_generation(data, tenant.id, idempotency_key="k")
    theirs = add_generation(data, stranger.id, idempotency_key="k")
    assert data.generations.get_by_idempotency_key("k", tenant_id=tenant.id) == mine
    assert data.generations.get_by_idempotency_key("k", tenant_id=stranger.id) == theirs


def test_any_number_of_generations_go_without_a_key(data: Repositories, tenant: Tenant) -> None:
    assert add_generation(data, tenant.id).id != add_generation(data, tenant.id).id


def test_another_tenants_generation_is_not_found(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    add_generation(data, tenant.id, idempotency_key="k")
    assert data.generations.get_by_idempotency_key("k", tenant_id=stranger.id) is None


@pytest.mark.anyio
async def test_of_twenty_claims_at_once_exactly_one_wins(database: Database) -> None:
    tenant = await database.write(add_tenant)
    won: list[Generation | None] = []

    async def claim() -> None:
        new = new_generation(tenant.id, idempotency_key="contended")
        won.append(await database.write(lambda data: data.generations.claim(new)))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(claim)
    assert len(won) == 20
    assert sum(generation is not None for generation in won) == 1


@pytest.mark.parametrize("status", [STORED, FAILED, UNKNOWN])
def test_a_call_ends_once(data: Repositories, tenant: Tenant, status: GenerationStatus) -> None:
    settled = _settle(data, add_generation(data, tenant.id), status)
    assert (settled.status, settled.updated_at) == (status, LATER)


def test_a_failed_generation_sets_its_key_free(data: Repositories, tenant: Tenant) -> None:
    failed = _settle(data, add_generation(data, tenant.id, idempotency_key="k"), FAILED)
    assert (failed.status, failed.idempotency_key) == (FAILED, None)
    assert data.generations.claim(new_generation(tenant.id, idempotency_key="k")) is not None


@pytest.mark.parametrize("status", [STORED, UNKNOWN])
def test_what_was_or_may_have_been_bought_keeps_its_key(
    data: Repositories, tenant: Tenant, status: GenerationStatus
) -> None:
    settled = _settle(data, add_generation(data, tenant.id, idempotency_key="k"), status)
    assert settled.idempotency_key == "k"
    assert data.generations.claim(new_generation(tenant.id, idempotency_key="k")) is None


def test_a_picture_that_turns_up_makes_unknown_into_stored(data: Repositories, tenant: Tenant) -> None:
    assert _settle(data, add_generation(data, tenant.id), UNKNOWN, STORED).status is STORED


@pytest.mark.parametrize(
    ("final", "later"),
    [(STORED, FAILED), (STORED, UNKNOWN), (UNKNOWN, FAILED), (FAILED, STORED), (FAILED, UNKNOWN)],
)
def test_what_has_ended_does_not_end_otherwise(
    data: Repositories, tenant: Tenant, final: GenerationStatus, later: GenerationStatus
) -> None:
    generation = _settle(data, add_generation(data, tenant.id, idempotency_key="k"), final)
    assert _settle(data, generation, later) == generation


def test_another_tenant_settles_nothing(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    generation = add_generation(data, tenant.id)
    data.generations.settle(generation.id, FAILED, tenant_id=stranger.id, at=LATER)
    assert _found(data, generation) == generation


def test_what_is_calling_is_listed_oldest_first(data: Repositories, tenant: Tenant) -> None:
    young = data.generations.claim(new_generation(tenant.id, created_at=MOMENT + timedelta(seconds=1)))
    old = add_generation(data, tenant.id)
    _settle(data, add_generation(data, tenant.id), STORED)
    assert data.generations.list_calling(limit=10) == [old, young]
    assert data.generations.list_calling(limit=1) == [old]


def test_it_is_told_whether_a_status_was_still_to_be_given(data: Repositories, tenant: Tenant) -> None:
    generation = add_generation(data, tenant.id)
    assert data.generations.settle(generation.id, STORED, tenant_id=tenant.id, at=LATER)
    assert not data.generations.settle(generation.id, STORED, tenant_id=tenant.id, at=LATER)


def _stored(data: Repositories, tenant: Tenant, at: datetime, **changes: object) -> None:
    new = new_generation(tenant.id, status=STORED, created_at=at).model_copy(update=changes)
    assert data.generations.claim(new) is not None


def _usage(
    data: Repositories, tenant: Tenant, since: datetime = MOMENT, until: datetime = LATER
) -> list[tuple[str, str, str | None, int]]:
    rows = data.generations.usage(tenant_id=tenant.id, since=since, until=until)
    assert all(row.cost_usd is None for row in rows)
    return [(row.day.isoformat(), row.model, row.key, row.images) for row in rows]


def test_usage_counts_what_was_stored_by_day_model_and_subject(data: Repositories, tenant: Tenant) -> None:
    ann, bob = (Subject(new_guid()) for _ in range(2))
    ann, bob = sorted((ann, bob))
    for subject, model, days in (
        (ann, "m", 0), (ann, "m", 0), (ann, "n", 0), (bob, "m", 0), (ann, "m", 1), (None, "m", 1),
    ):  # fmt: skip
        _stored(data, tenant, MOMENT + timedelta(days=days), subject=subject, model=model)
    assert _usage(data, tenant, until=MOMENT + timedelta(days=2)) == [
        ("2026-11-21", "m", ann, 2),
        ("2026-11-21", "m", bob, 1),
        ("2026-11-21", "n", ann, 1),
        ("2026-11-22", "m", None, 1),
        ("2026-11-22", "m", ann, 1),
    ]


def test_usage_begins_and_ends_with_the_moments_that_are_named(data: Repositories, tenant: Tenant) -> None:
    _stored(data, tenant, MOMENT - timedelta(seconds=1))
    _stored(data, tenant, LATER + timedelta(seconds=1))
    assert _usage(data, tenant) == []
    _stored(data, tenant, MOMENT)
    _stored(data, tenant, LATER)
    assert _usage(data, tenant) == [("2026-11-21", "gpt-image-2", None, 2)]


def test_usage_counts_nothing_that_was_not_stored_or_is_another_tenants(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    for status in (CALLING, FAILED, UNKNOWN):
        data.generations.claim(new_generation(tenant.id, status=status))
    _stored(data, stranger, MOMENT)
    assert _usage(data, tenant) == []


def test_what_is_in_a_status_and_open_is_listed_newest_first_with_its_tenant(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    first = _settle(data, add_generation(data, tenant.id), UNKNOWN)
    second = _settle(data, add_generation(data, stranger.id), UNKNOWN)
    resolved = _settle(data, add_generation(data, tenant.id), UNKNOWN)
    data.generations.resolve(resolved.id, tenant_id=tenant.id, bought=True, at=LATER)
    calling = add_generation(data, tenant.id)
    listed = [(stranger.guid, second), (tenant.guid, first)]
    assert data.generations.list_of_status(UNKNOWN, limit=9) == listed
    assert data.generations.list_of_status(UNKNOWN, limit=1) == listed[:1]
    assert data.generations.list_of_status(CALLING, limit=9) == [(tenant.guid, calling)]


def test_an_operator_finds_a_generation_of_any_tenant(data: Repositories, tenant: Tenant) -> None:
    generation = add_generation(data, tenant.id)
    assert data.generations.find_for_operator(generation.guid) == generation
    assert data.generations.find_for_operator(new_guid()) is None


@pytest.mark.parametrize(("bought", "status", "key"), [(True, UNKNOWN, "k"), (False, FAILED, None)])
def test_resolving_frees_the_key_of_what_was_not_bought(
    data: Repositories, tenant: Tenant, status: GenerationStatus, key: str | None, *, bought: bool
) -> None:
    generation = _settle(data, add_generation(data, tenant.id, idempotency_key="k"), UNKNOWN)
    resolved_at = LATER + timedelta(seconds=1)
    assert data.generations.resolve(generation.id, tenant_id=tenant.id, bought=bought, at=resolved_at)
    found = _found(data, generation)
    assert (found.status, found.idempotency_key) == (status, key)
    assert found.resolved_at == found.updated_at == resolved_at


@pytest.mark.parametrize("status", [CALLING, STORED, FAILED])
def test_what_is_known_is_not_resolved(data: Repositories, tenant: Tenant, status: GenerationStatus) -> None:
    generation = add_generation(data, tenant.id)
    generation = generation if status is CALLING else _settle(data, generation, status)
    assert not data.generations.resolve(generation.id, tenant_id=tenant.id, bought=True, at=LATER)
    assert _found(data, generation) == generation


@pytest.mark.parametrize("bought", [True, False])
def test_nothing_is_resolved_twice(data: Repositories, tenant: Tenant, *, bought: bool) -> None:
    generation = _settle(data, add_generation(data, tenant.id, idempotency_key="k"), UNKNOWN)
    assert data.generations.resolve(generation.id, tenant_id=tenant.id, bought=bought, at=LATER)
    resolved = _found(data, generation)
    assert not data.generations.resolve(generation.id, tenant_id=tenant.id, bought=not bought, at=MOMENT)
    assert _found(data, generation) == resolved


def test_another_tenant_resolves_nothing(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    generation = _settle(data, add_generation(data, tenant.id), UNKNOWN)
    assert not data.generations.resolve(generation.id, tenant_id=stranger.id, bought=True, at=LATER)
    assert _found(data, generation) == generation


def test_a_tenant_that_goes_takes_what_is_over_and_waits_for_the_rest(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    for status in (STORED, FAILED, UNKNOWN):
        _settle(data, add_generation(data, tenant.id), status)
    calling, other = add_generation(data, tenant.id), _settle(data, add_generation(data, stranger.id), STORED)
    assert not data.generations.delete_settled(tenant_id=tenant.id)
    assert data.generations.list_calling(limit=9) == [calling]
    _settle(data, calling, FAILED)
    assert data.generations.delete_settled(tenant_id=tenant.id)
    assert _found(data, other) == other
