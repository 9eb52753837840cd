"""The ``queue`` repository: waiting orders and their transitions."""

from datetime import timedelta

import pytest

from pixyproxy.core.models.generation import Generation, GenerationError, GenerationGuid, GenerationStatus, ProcessGuid
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.core.models.upstream import UpstreamId
from pixyproxy.data.database import Repositories
from pixyproxy.data.repositories.queue import QueueHead, Slot, Waiting
from tests.support.builders import LATER, MOMENT, add_generation, new_guid

ACCEPTED, CALLING, STORED, FAILED, UNKNOWN, CANCELLED = GenerationStatus
ME, OTHER = ProcessGuid(new_guid()), ProcessGuid(new_guid())
ONE, TWO = UpstreamId(1), UpstreamId(2)
PLACE = Slot(
    upstream_id=ONE,
    upstream="a",
    lease_owner=ME,
    started_at=1_800_000_000.25,
    place_until=1_800_000_600.75,
    lease_until=LATER,
)
ERROR = GenerationError(code="upstream_busy", detail="d", retry_after_seconds=7)
SECOND = timedelta(seconds=1)


def _wait(data: Repositories, tenant: Tenant, model: str = "m", **changes: object) -> Generation:
    return add_generation(data, tenant.id, status=ACCEPTED, model=model, **changes)


def _found(data: Repositories, generation: Generation) -> Generation:
    found = data.generations.get(generation.id, tenant_id=generation.tenant_id)
    assert found is not None
    return found


def _values(generation: Generation) -> dict[str, object]:
    """Return a row's values except its time of change, which MySQL sets itself."""
    return generation.model_dump(exclude={"updated_at"})


def _head(generation: Generation, *excluded: UpstreamId) -> QueueHead:
    return QueueHead(generation.tenant_id, generation.order.model, frozenset(excluded), generation.id)


def test_only_accepted_orders_wait(data: Repositories, tenant: Tenant) -> None:
    for status in sorted(set(GenerationStatus) - {ACCEPTED}):
        add_generation(data, tenant.id, status=status)
    assert data.queue.is_empty()
    assert (data.queue.heads(), data.queue.count_lines()) == ([], [])
    assert (data.queue.count(tenant_id=tenant.id), data.queue.list_waiting(tenant_id=tenant.id)) == (0, [])
    waiting = _wait(data, tenant)
    assert not data.queue.is_empty()
    assert data.queue.heads() == [_head(waiting)]
    assert data.queue.count(tenant_id=tenant.id) == 1


def test_each_tenant_model_and_exclusion_set_has_its_own_queue_lane(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    first, second, other, theirs = (
        _wait(data, owner, model) for owner, model in ((tenant, "m"), (tenant, "m"), (tenant, "M"), (stranger, "m"))
    )
    tried = data.queue.begin(_wait(data, tenant).id, PLACE)
    assert data.queue.put_back(tried, excluded=frozenset({TWO, ONE}), error=None)
    lines = dict(data.queue.count_lines())
    assert lines == {_head(first): 2, _head(other): 1, _head(theirs): 1, _head(tried, ONE, TWO): 1}
    assert set(data.queue.heads()) == set(lines)
    assert data.queue.count(tenant_id=tenant.id) == 4
    assert data.queue.list_waiting(tenant_id=tenant.id) == [
        Waiting(first.id, "m", frozenset()),
        Waiting(second.id, "m", frozenset()),
        Waiting(other.id, "M", frozenset()),
        Waiting(tried.id, "m", frozenset({ONE, TWO})),
    ]


def test_started_order_has_its_slot(data: Repositories, tenant: Tenant) -> None:
    waiting = _wait(data, tenant)
    begun = data.queue.begin(waiting.id, PLACE)
    held = {name: getattr(PLACE, name) for name in PLACE.__dataclass_fields__}
    assert _values(begun) == _values(waiting) | held | {"status": CALLING, "version": 1}
    assert begun == _found(data, waiting)
    # It is not started a second time.
    assert data.queue.begin(waiting.id, PLACE) == begun


def test_order_put_back_loses_its_slot(data: Repositories, tenant: Tenant) -> None:
    waiting = _wait(data, tenant)
    begun = data.queue.begin(waiting.id, PLACE)
    assert data.queue.put_back(begun, excluded=frozenset({ONE}), error=ERROR)
    changes = {"excluded": frozenset({ONE}), "error": ERROR.model_dump(), "version": 2}
    assert _values(_found(data, waiting)) == _values(waiting) | changes


def test_only_the_executing_process_can_put_back(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    begun = data.queue.begin(_wait(data, tenant).id, PLACE)
    for changes in ({"lease_owner": OTHER}, {"tenant_id": stranger.id}):
        assert not data.queue.put_back(begun.model_copy(update=changes), excluded=frozenset(), error=None)
    assert _found(data, begun) == begun
    assert data.queue.put_back(begun, excluded=frozenset(), error=None)
    assert not data.queue.put_back(begun, excluded=frozenset(), error=None)


def test_orders_unknown_to_their_process_are_listed(data: Repositories, tenant: Tenant) -> None:
    def begin(**changes: object) -> Generation:
        slot = Slot(**{**{name: getattr(PLACE, name) for name in PLACE.__dataclass_fields__}, **changes})
        return data.queue.begin(_wait(data, tenant).id, slot)

    known, lost, second = (begin() for _ in range(3))
    begin(lease_owner=OTHER)
    begin(started_at=PLACE.started_at + 1)
    # The claim of a new one was reported as failed.
    held = {name: getattr(PLACE, name) for name in PLACE.__dataclass_fields__}
    add_generation(data, tenant.id, status=CALLING, **held)

    def listed(*running: GenerationGuid, limit: int = 9) -> list[Generation]:
        return data.queue.list_lost(ME, running, before=PLACE.started_at + 1, limit=limit)

    assert listed(known.guid) == [lost, second]
    assert listed(known.guid, limit=1) == [lost]
    assert listed() == [known, lost, second]


def test_orders_waiting_too_long_are_listed_oldest_first(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    young, old = _wait(data, tenant, created_at=MOMENT), _wait(data, stranger, created_at=MOMENT - SECOND)
    _wait(data, tenant, created_at=MOMENT + SECOND)
    add_generation(data, tenant.id, status=CALLING, created_at=MOMENT)
    before = MOMENT + SECOND
    assert data.queue.list_expired(created_before=before, limit=9) == [old, young]
    assert data.queue.list_expired(created_before=before, limit=1) == [old]


@pytest.mark.parametrize("status", [STORED, FAILED, UNKNOWN, CANCELLED])
def test_finished_order_is_not_started(data: Repositories, tenant: Tenant, status: GenerationStatus) -> None:
    over = add_generation(data, tenant.id, status=status)
    assert data.queue.begin(over.id, PLACE) == over
