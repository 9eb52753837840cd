"""The ``generations`` repository: claims and outcomes."""

from datetime import datetime, timedelta

import anyio
import pytest
from sqlalchemy import text

from pixyproxy.core.models.generation import (
    Generation,
    GenerationError,
    GenerationFilter,
    GenerationGuid,
    GenerationStatus,
    NewGeneration,
    Outcome,
    ProcessGuid,
)
from pixyproxy.core.models.image import ImageGuid
from pixyproxy.core.models.order import InputPicture, Operation, UpstreamAnswer, UpstreamUsage
from pixyproxy.core.models.principal import Subject
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.repositories import generations
from tests.support.builders import (
    LATER,
    MOMENT,
    add_generation,
    add_tenant,
    new_generation,
    new_guid,
    new_order,
    stored_outcome,
)

ACCEPTED, CALLING, STORED, FAILED, UNKNOWN, CANCELLED = GenerationStatus
SECOND = timedelta(seconds=1)
ME, OTHER = ProcessGuid(new_guid()), ProcessGuid(new_guid())


def _ending(status: GenerationStatus) -> Outcome:
    return stored_outcome(status=status, frees_key=status is FAILED)


def _settle(data: Repositories, generation: Generation, *statuses: GenerationStatus) -> Generation:
    """Settle the generation with these statuses in order, and return it."""
    for status in statuses:
        data.generations.settle(generation.id, _ending(status), tenant_id=generation.tenant_id)
    return _found(data, generation)


def _found(data: Repositories, generation: NewGeneration) -> Generation:
    """Return the generation's row."""
    row = data.connection.execute(text(f"{generations.SELECT} WHERE guid = :guid"), {"guid": generation.guid})
    return generations.from_row(row.mappings().one())


@pytest.mark.parametrize("key", [None, "k", "Key-1 ~!@#$%^&*()'\"\\;", "k" * 255])
def test_every_column_round_trips(data: Repositories, tenant: Tenant, key: str | None) -> None:
    new = new_generation(tenant.id, idempotency_key=key)
    claimed = data.generations.claim(new)
    assert claimed is not None
    assert claimed.model_dump(include=set(NewGeneration.model_fields)) == new.model_dump()
    assert _found(data, new) == claimed


def test_complete_order_round_trips(data: Repositories, tenant: Tenant) -> None:
    mask = InputPicture(field="mask", media_type="image/png", byte_size=7, sha256="e" * 64)
    order = new_order(
        operation=Operation.EDIT, count=10, previews=3, options={"size": "auto", "n": None, "é": [1]}, inputs=(mask,)
    )
    guids = tuple(ImageGuid(new_guid()) for _ in range(10))
    new = new_generation(
        tenant.id,
        order=order,
        image_guids=guids,
        subject=Subject(new_guid()),
        filename=None,
        budget_month="2026-11",
        reserved_micro_usd=2**53,
        lease_owner=ME,
        lease_until=LATER,
    )
    claimed = data.generations.claim(new)
    assert claimed is not None
    assert (claimed.order, claimed.image_guids, claimed.image_count) == (order, guids, 10)
    assert _found(data, new) == claimed


def test_claimed_key_cannot_be_claimed_again(data: Repositories, tenant: Tenant) -> None:
    first = add_generation(data, tenant.id, idempotency_key="k")
    assert data.generations.claim(new_generation(tenant.id, idempotency_key="k")) is None
    assert data.generations.get_by_idempotency_key("k", tenant_id=tenant.id) == first


def test_keys_are_case_sensitive(data: Repositories, tenant: Tenant) -> None:
    lower = add_generation(data, tenant.id, idempotency_key="key")
    upper = add_generation(data, tenant.id, idempotency_key="KEY")
    assert data.generations.get_by_idempotency_key("key", tenant_id=tenant.id) == lower
    assert data.generations.get_by_idempotency_key("KEY", tenant_id=tenant.id) == upper


def test_same_key_of_two_tenants_is_independent(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    mine = add_generation(data, tenant.id, idempotency_key="k")
    theirs = add_generation(data, stranger.id, idempotency_key="k")
    assert data.generations.get_by_idempotency_key("k", tenant_id=tenant.id) == mine
    assert data.generations.get_by_idempotency_key("k", tenant_id=stranger.id) == theirs


def test_generations_without_a_key_are_unlimited(data: Repositories, tenant: Tenant) -> None:
    assert add_generation(data, tenant.id).id != add_generation(data, tenant.id).id


def test_another_tenants_generation_is_not_found(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    add_generation(data, tenant.id, idempotency_key="k")
    assert data.generations.get_by_idempotency_key("k", tenant_id=stranger.id) is None


@pytest.mark.anyio
async def test_exactly_one_of_twenty_concurrent_claims_succeeds(database: Database) -> None:
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
def test_calling_generation_gets_any_outcome(data: Repositories, tenant: Tenant, status: GenerationStatus) -> None:
    settled = _settle(data, add_generation(data, tenant.id), status)
    assert (settled.status, settled.updated_at) == (status, LATER)


def test_outcome_round_trips(data: Repositories, tenant: Tenant) -> None:
    generation = add_generation(data, tenant.id)
    outcome = stored_outcome(
        cost_micro_usd=2**53,
        image_count=3,
        upstream="a",
        answer=UpstreamAnswer(
            facts={"created": 1}, usage=UpstreamUsage(output_image_tokens=9), revised_prompts=(None,)
        ),
        error=GenerationError(code="c", detail="é", context={"a": "b"}, retry_after_seconds=3),
    )
    assert data.generations.settle(generation.id, outcome, tenant_id=tenant.id)
    found = _found(data, generation)
    same = ("cost_micro_usd", "image_count", "upstream", "answer", "error")
    assert [getattr(found, name) for name in same] == [getattr(outcome, name) for name in same]
    assert found.finished_at == found.updated_at == LATER


def test_failed_generation_releases_its_key(data: Repositories, tenant: Tenant) -> None:
    failed = _settle(data, add_generation(data, tenant.id, idempotency_key="k"), FAILED)
    assert (failed.status, failed.idempotency_key) == (FAILED, None)
    assert data.generations.claim(new_generation(tenant.id, idempotency_key="k")) is not None


@pytest.mark.parametrize("status", [STORED, UNKNOWN])
def test_possibly_bought_generation_keeps_its_key(data: Repositories, tenant: Tenant, status: GenerationStatus) -> None:
    settled = _settle(data, add_generation(data, tenant.id, idempotency_key="k"), status)
    assert settled.idempotency_key == "k"
    assert data.generations.claim(new_generation(tenant.id, idempotency_key="k")) is None


def test_answer_without_a_picture_keeps_its_key(data: Repositories, tenant: Tenant) -> None:
    generation = add_generation(data, tenant.id, idempotency_key="k")
    assert data.generations.settle(generation.id, stored_outcome(status=FAILED), tenant_id=tenant.id)
    assert _found(data, generation).idempotency_key == "k"


def test_unknown_becomes_stored_when_its_picture_is_found(data: Repositories, tenant: Tenant) -> None:
    assert _settle(data, add_generation(data, tenant.id), UNKNOWN, STORED).status is STORED


@pytest.mark.parametrize(
    ("final", "later"),
    [(STORED, FAILED), (STORED, UNKNOWN), (UNKNOWN, UNKNOWN), (FAILED, STORED), (FAILED, UNKNOWN)],
)
def test_final_outcome_does_not_change(
    data: Repositories, tenant: Tenant, final: GenerationStatus, later: GenerationStatus
) -> None:
    generation = _settle(data, add_generation(data, tenant.id, idempotency_key="k"), final)
    later_ending = _ending(later).model_copy(update={"at": LATER + SECOND})
    assert not data.generations.settle(generation.id, later_ending, tenant_id=tenant.id)
    assert _found(data, generation) == generation


def test_another_tenant_cannot_settle(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    generation = add_generation(data, tenant.id)
    assert not data.generations.settle(generation.id, _ending(FAILED), tenant_id=stranger.id)
    assert _found(data, generation) == generation


def test_settle_returns_whether_the_outcome_was_set(data: Repositories, tenant: Tenant) -> None:
    generation = add_generation(data, tenant.id)
    assert data.generations.settle(generation.id, stored_outcome(), tenant_id=tenant.id)
    assert not data.generations.settle(generation.id, stored_outcome(), tenant_id=tenant.id)


def _stored(data: Repositories, tenant: Tenant, at: datetime, **changes: object) -> None:
    add_generation(data, tenant.id, status=STORED, created_at=at, **changes)


def _usage(
    data: Repositories, tenant: Tenant, since: datetime = MOMENT, until: datetime = LATER
) -> list[tuple[str, str, str | None, int]]:
    rows = data.generations.usage(tenant_id=tenant.id, since=since, until=until)
    return [(row.day.isoformat(), row.model, row.key, row.images) for row in rows]


def test_usage_counts_stored_pictures_by_day_model_and_subject(data: Repositories, tenant: Tenant) -> None:
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


def test_usage_distinguishes_similar_subjects(data: Repositories, tenant: Tenant) -> None:
    subjects = sorted(f"https://login.example.com#{name}" for name in ("Bob", "bob", "böb", "bob "))
    for subject in subjects:
        _stored(data, tenant, MOMENT, subject=subject)
    assert _usage(data, tenant) == [("2026-11-21", "gpt-image-2", subject, 1) for subject in subjects]


def test_usage_includes_both_limits_of_the_period(data: Repositories, tenant: Tenant) -> None:
    _stored(data, tenant, MOMENT - timedelta(seconds=1))
    _stored(data, tenant, LATER + timedelta(seconds=1))
    assert _usage(data, tenant) == []
    _stored(data, tenant, MOMENT)
    _stored(data, tenant, LATER)
    assert _usage(data, tenant) == [("2026-11-21", "gpt-image-2", None, 2)]


def test_usage_without_a_known_price_has_no_cost(data: Repositories, tenant: Tenant) -> None:
    _stored(data, tenant, MOMENT)
    (row,) = data.generations.usage(tenant_id=tenant.id, since=MOMENT, until=LATER)
    assert row.cost_usd is None


def test_usage_excludes_unstored_pictures_and_other_tenants(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    for status in (CALLING, FAILED, UNKNOWN):
        data.generations.claim(new_generation(tenant.id, status=status))
    _stored(data, stranger, MOMENT)
    assert _usage(data, tenant) == []


def test_unresolved_generations_of_a_status_are_listed_newest_first(
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


def test_operator_finds_generation_of_any_tenant(data: Repositories, tenant: Tenant) -> None:
    generation = add_generation(data, tenant.id)
    assert data.generations.find(generation.guid) == generation
    assert data.generations.find(new_guid()) is None


@pytest.mark.parametrize(("bought", "status", "key"), [(True, UNKNOWN, "k"), (False, FAILED, None)])
def test_resolution_frees_the_key_unless_bought(
    data: Repositories, tenant: Tenant, status: GenerationStatus, key: str | None, *, bought: bool
) -> None:
    generation = _settle(data, add_generation(data, tenant.id, idempotency_key="k"), UNKNOWN)
    resolved_at = LATER + timedelta(seconds=1)
    assert data.generations.resolve(generation.id, tenant_id=tenant.id, bought=bought, at=resolved_at)
    found = _found(data, generation)
    assert (found.status, found.idempotency_key) == (status, key)
    assert found.resolved_at == found.updated_at == resolved_at


@pytest.mark.parametrize("status", [CALLING, STORED, FAILED])
def test_known_outcome_cannot_be_resolved(data: Repositories, tenant: Tenant, status: GenerationStatus) -> None:
    generation = add_generation(data, tenant.id)
    generation = generation if status is CALLING else _settle(data, generation, status)
    assert not data.generations.resolve(generation.id, tenant_id=tenant.id, bought=True, at=LATER)
    assert _found(data, generation) == generation


@pytest.mark.parametrize("bought", [True, False])
def test_generation_is_resolved_only_once(data: Repositories, tenant: Tenant, *, bought: bool) -> None:
    generation = _settle(data, add_generation(data, tenant.id, idempotency_key="k"), UNKNOWN)
    assert data.generations.resolve(generation.id, tenant_id=tenant.id, bought=bought, at=LATER)
    resolved = _found(data, generation)
    assert not data.generations.resolve(generation.id, tenant_id=tenant.id, bought=not bought, at=MOMENT)
    assert _found(data, generation) == resolved


def test_another_tenant_cannot_resolve(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    generation = _settle(data, add_generation(data, tenant.id), UNKNOWN)
    assert not data.generations.resolve(generation.id, tenant_id=stranger.id, bought=True, at=LATER)
    assert _found(data, generation) == generation


def test_delete_settled_keeps_running_generations_and_other_tenants(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    for status in (STORED, FAILED, UNKNOWN):
        _settle(data, add_generation(data, tenant.id), status)
    calling, other = add_generation(data, tenant.id), _settle(data, add_generation(data, stranger.id), STORED)
    assert not data.generations.delete_settled(tenant_id=tenant.id)
    assert data.generations.list_abandoned(at=LATER, limit=9) == [calling]
    _settle(data, calling, FAILED)
    assert data.generations.delete_settled(tenant_id=tenant.id)
    assert _found(data, other) == other


def test_existing_generations_of_any_tenant_are_found(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    found = [add_generation(data, owner.id) for owner in (tenant, stranger)]
    add_generation(data, tenant.id)
    absent = GenerationGuid(new_guid())
    all_found = data.generations.find_all([absent, *(each.guid for each in found)])
    assert sorted(all_found, key=lambda each: each.id) == found
    assert data.generations.find_all([]) == []


def test_tenant_finds_its_own_by_guid_and_id(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    generation = add_generation(data, tenant.id)
    assert data.generations.get_by_guid(generation.guid, tenant_id=tenant.id) == generation
    assert data.generations.get(generation.id, tenant_id=tenant.id) == generation
    assert data.generations.get_by_guid(generation.guid, tenant_id=stranger.id) is None
    assert data.generations.get(generation.id, tenant_id=stranger.id) is None


def test_tenants_generations_are_paged_newest_first_by_status(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    first, second = add_generation(data, tenant.id), add_generation(data, tenant.id)
    failed = _settle(data, add_generation(data, tenant.id), FAILED)
    add_generation(data, stranger.id)

    def listed(before: Generation | None = None, limit: int = 9, **wanted: GenerationStatus) -> list[Generation]:
        return data.generations.list_own(
            GenerationFilter(**wanted), tenant_id=tenant.id, before=None if before is None else before.id, limit=limit
        )

    assert listed() == [failed, second, first]
    assert listed(limit=1) == [failed]
    assert listed(before=failed) == [second, first]
    assert listed(status=CALLING, before=second) == [first]
    assert listed(status=FAILED) == [failed]


def _calling(data: Repositories, tenant: Tenant, **changes: object) -> Generation:
    lease = {"status": CALLING, "lease_owner": ME, "lease_until": LATER}
    return add_generation(data, tenant.id, **(lease | changes))


@pytest.mark.parametrize(
    ("until", "abandoned"),
    [(None, True), (LATER, True), (LATER + SECOND, False), (LATER + 2 * SECOND, False)],
    ids=["released", "over", "over now", "lasts"],
)
def test_lease_is_respected_until_it_expires(
    data: Repositories, tenant: Tenant, until: datetime | None, *, abandoned: bool
) -> None:
    generation = _calling(data, tenant, lease_until=until)
    assert (generation in data.generations.list_abandoned(at=LATER + SECOND, limit=9)) is abandoned
    assert (generation in data.generations.list_abandoned(at=None, limit=9)) is (until is None)


def test_renewal_and_release_affect_only_running_generations_of_the_process(data: Repositories, tenant: Tenant) -> None:
    mine = [_calling(data, tenant), _calling(data, tenant)]
    other, over = _calling(data, tenant, lease_owner=OTHER), _calling(data, tenant, status=STORED)
    lost = _calling(data, tenant)
    data.generations.renew_leases(ME, [each.guid for each in (*mine, other, over)], until=LATER + SECOND)
    assert [_found(data, each).lease_until for each in mine] == [LATER + SECOND, LATER + SECOND]
    assert _found(data, lost) == lost
    data.generations.release_leases(ME)
    assert [_found(data, each).lease_until for each in mine] == [None, None]
    assert [_found(data, each) for each in (other, over)] == [other, over]


def test_abandoned_generations_are_listed_oldest_first(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    young = _calling(data, tenant, lease_until=None, created_at=MOMENT + SECOND)
    old = _calling(data, stranger, lease_until=MOMENT)
    _calling(data, tenant)
    for status in (ACCEPTED, STORED, FAILED, UNKNOWN, CANCELLED):
        _calling(data, tenant, lease_until=None, status=status)
    assert data.generations.list_abandoned(at=LATER, limit=9) == [old, young]
    assert data.generations.list_abandoned(at=LATER, limit=1) == [old]


@pytest.mark.parametrize("status", GenerationStatus)
def test_only_waiting_generation_gets_an_outcome_by_end_waiting(
    data: Repositories, tenant: Tenant, stranger: Tenant, status: GenerationStatus
) -> None:
    generation, waits = add_generation(data, tenant.id, status=status), status is ACCEPTED
    outcome = stored_outcome(status=CANCELLED, frees_key=True)
    assert not data.generations.end_waiting(generation.id, outcome, tenant_id=stranger.id)
    assert data.generations.end_waiting(generation.id, outcome, tenant_id=tenant.id) is waits
    assert _found(data, generation).status is (CANCELLED if waits else status)


@pytest.mark.parametrize("keeps_place", [True, False])
def test_outcome_frees_the_slot_unless_the_upstream_may_still_work(
    data: Repositories, tenant: Tenant, *, keeps_place: bool
) -> None:
    generation = _calling(data, tenant, upstream_id=7, upstream="a", started_at=1.5, place_until=9.5)
    data.generations.settle(generation.id, stored_outcome(keeps_place=keeps_place), tenant_id=tenant.id)
    ended = _found(data, generation)
    assert (ended.upstream_id, ended.upstream, ended.started_at) == (7, "a", 1.5)
    assert ended.place_until == (9.5 if keeps_place else None)


def test_every_notified_change_increments_the_version(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    generation = add_generation(data, tenant.id)
    seen = [generation.version]
    data.generations.note_preview(generation.id, tenant_id=stranger.id)
    for change in (
        lambda: data.generations.note_preview(generation.id, tenant_id=tenant.id),
        lambda: data.generations.settle(generation.id, stored_outcome(status=UNKNOWN), tenant_id=tenant.id),
        lambda: data.generations.settle(generation.id, stored_outcome(), tenant_id=tenant.id),
    ):
        change()
        (found,) = data.generations.list_changes([generation.guid, GenerationGuid(new_guid())])
        assert (found.id, found.tenant_id, found.status) == (
            generation.id,
            tenant.id,
            _found(data, generation).status,
        )
        seen.append(found.version)
    assert seen == [0, 1, 2, 3]


def test_pictures_since_a_time_are_counted_by_tenant_and_subject(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    ann, bob = (Subject(new_guid()) for _ in range(2))
    for owner, subject, count, at in (
        (tenant, ann, 1, MOMENT - SECOND),
        (tenant, ann, 3, MOMENT),
        (tenant, bob, 1, MOMENT + SECOND),
        (tenant, None, 10, MOMENT + SECOND),
        (stranger, ann, 5, MOMENT + SECOND),
    ):
        guids = tuple(ImageGuid(new_guid()) for _ in range(count))
        status = FAILED if subject is None else STORED
        add_generation(data, owner.id, subject=subject, image_guids=guids, created_at=at, status=status)

    def counted(subject: Subject | None, since: datetime = MOMENT) -> tuple[int, datetime | None]:
        return data.generations.images_since(since, tenant_id=tenant.id, subject=subject)

    assert counted(None) == (14, MOMENT)
    assert (counted(ann), counted(bob)) == ((3, MOMENT), (1, MOMENT + SECOND))
    assert (counted(Subject(new_guid())), counted(ann, LATER)) == ((0, None), (0, None))


CONTENT = "c" * 64


def _repeatable(data: Repositories, tenant: Tenant) -> list[Generation]:
    return data.generations.list_repeatable(
        CONTENT, tenant_id=tenant.id, since=MOMENT, lost_since=100.0, ended_since=LATER
    )


def _followed(data: Repositories, tenant: Tenant, **changes: object) -> Generation:
    return add_generation(data, tenant.id, content=CONTENT, follower="first", **changes)


def _lose(data: Repositories, generation: Generation, *, at: float = 100.0, follower: str = "first") -> Generation:
    data.generations.note_lost(generation.guid, follower, tenant_id=generation.tenant_id, at=at)
    return _found(data, generation)


def test_repeatable_generations_are_listed_with_lost_ones_first(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    _followed(data, stranger)
    add_generation(data, tenant.id, content="d" * 64)
    _followed(data, tenant, created_at=MOMENT - SECOND)
    _followed(data, tenant, status=CANCELLED)
    waiting, calling = _followed(data, tenant, status=ACCEPTED), _followed(data, tenant)
    unknown, ended = (_settle(data, _followed(data, tenant), status) for status in (UNKNOWN, STORED))
    # Earlier ones whose clients got a response or disconnected long ago do not hide any, however many.
    for _ in range(3):
        _followed(data, tenant, status=STORED)
        _lose(data, _followed(data, tenant, status=FAILED), at=99.9)
    lost = _lose(data, _followed(data, tenant, status=STORED))
    assert _repeatable(data, tenant) == [lost, waiting, calling, unknown, ended]


def test_loss_is_recorded_once_and_only_for_the_follower(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    generation = _followed(data, tenant)
    assert _lose(data, generation, follower="another") == generation
    data.generations.note_lost(generation.guid, "first", tenant_id=stranger.id, at=100.0)
    assert _found(data, generation) == generation
    assert [_lose(data, generation, at=at).lost_at for at in (100.0, 200.0)] == [100.0, 100.0]


def test_generation_has_one_follower_at_a_time(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    generation = _lose(data, _followed(data, tenant))
    assert not data.generations.adopt(generation, "thief", tenant_id=stranger.id, at=101.0)
    assert data.generations.adopt(generation, "second", tenant_id=tenant.id, at=101.0)
    assert not data.generations.adopt(generation, "third", tenant_id=tenant.id, at=102.0)
    adopted = _found(data, generation)
    assert (adopted.follower, adopted.lost_at, adopted.adopted_at) == ("second", None, 101.0)
    assert _lose(data, adopted, follower="first").lost_at is None
    assert _lose(data, adopted, at=103.0, follower="second").lost_at == 103.0


@pytest.mark.parametrize("bought", [True, False])
def test_picture_found_after_a_resolution_is_stored_once(
    data: Repositories, tenant: Tenant, stranger: Tenant, *, bought: bool
) -> None:
    generation = _settle(data, add_generation(data, tenant.id, idempotency_key="k", reserved_micro_usd=7), UNKNOWN)
    assert not data.generations.settle_resolved(generation.id, stored_outcome(), tenant_id=tenant.id)
    data.generations.resolve(generation.id, tenant_id=tenant.id, bought=bought, at=LATER)
    assert _found(data, generation).cost_micro_usd == (7 if bought else 0)
    assert not data.generations.settle(generation.id, stored_outcome(), tenant_id=tenant.id)
    assert not data.generations.settle_resolved(generation.id, stored_outcome(), tenant_id=stranger.id)
    assert data.generations.settle_resolved(generation.id, stored_outcome(cost_micro_usd=5), tenant_id=tenant.id)
    assert not data.generations.settle_resolved(generation.id, stored_outcome(), tenant_id=tenant.id)
    stored = _found(data, generation)
    assert (stored.status, stored.cost_micro_usd, stored.idempotency_key) == (STORED, 5, "k" if bought else None)


def test_generation_that_failed_unresolved_is_not_stored_later(data: Repositories, tenant: Tenant) -> None:
    generation = _settle(data, add_generation(data, tenant.id), FAILED)
    assert not data.generations.settle_resolved(generation.id, stored_outcome(), tenant_id=tenant.id)


def test_usage_sums_pictures_and_cost(data: Repositories, tenant: Tenant) -> None:
    for count, cost in ((1, 40_000), (3, 120_000)):
        generation = add_generation(data, tenant.id, model="m")
        data.generations.settle(
            generation.id, stored_outcome(image_count=count, cost_micro_usd=cost), tenant_id=tenant.id
        )
    unknown = _settle(data, add_generation(data, tenant.id, model="m", reserved_micro_usd=40_000), UNKNOWN)
    data.generations.resolve(unknown.id, tenant_id=tenant.id, bought=True, at=LATER)
    (row,) = data.generations.usage(tenant_id=tenant.id, since=MOMENT, until=LATER)
    assert (row.images, row.cost_usd) == (4, 0.2)
