"""Retries without an Idempotency-Key: one request at a time adopts an order, and it is bought once."""

from datetime import UTC, datetime, timedelta

import pytest

from pixyproxy.core import clock
from pixyproxy.core.models.generation import Generation, GenerationStatus, Outcome
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Repositories
from pixyproxy.service.private.generation.retries import RECENTLY_SECONDS, Repetition, Verdict
from tests.support.builders import add_generation, add_tenant

ACCEPTED, CALLING, STORED, FAILED, UNKNOWN, CANCELLED = GenerationStatus
WINDOW = 600.0
CONTENT = "c" * 64


@pytest.fixture
def backend() -> str:
    """SQLite only: the SQL is tested with the repository."""
    return "sqlite"


@pytest.fixture
def tenant(data: Repositories) -> Tenant:
    """Return a tenant."""
    return add_tenant(data)


def _adopt(
    data: Repositories, tenant: Tenant, follower: str = "second", *, says_so: bool = False, window: float = WINDOW
) -> Generation | Verdict:
    """Adopt an order for a request, or return the verdict."""
    return Repetition(CONTENT, follower, tenant.id, says_so, window).adopt(data)


def _followed(data: Repositories, tenant: Tenant, **changes: object) -> Generation:
    return add_generation(
        data, tenant.id, **({"content": CONTENT, "follower": "first", "created_at": clock.now()} | changes)
    )


def _lost(
    data: Repositories, tenant: Tenant, *, ago: float = 0.0, follower: str = "first", **changes: object
) -> Generation:
    generation = _followed(data, tenant, **changes)
    _lose(data, generation, ago=ago, follower=follower)
    return generation


def _lose(data: Repositories, generation: Generation, *, follower: str, ago: float = 0.0) -> None:
    at = clock.seconds() - ago
    data.generations.note_lost(generation.guid, follower, tenant_id=generation.tenant_id, at=at)


def _end(data: Repositories, generation: Generation, status: GenerationStatus, *, ago: float = 0.0) -> None:
    outcome = Outcome(status=status, at=datetime.fromtimestamp(int(clock.seconds() - ago), UTC))
    assert data.generations.settle(generation.id, outcome, tenant_id=generation.tenant_id)


def _guid(found: Generation | Verdict) -> str:
    assert isinstance(found, Generation)
    return found.guid


def test_first_request_with_its_content_is_new(data: Repositories, tenant: Tenant) -> None:
    _lost(data, tenant, content="d" * 64)
    _lost(data, add_tenant(data))
    assert _adopt(data, tenant) is Verdict.NEW


def test_marked_retry_without_an_order_may_have_overtaken_its_first_sending(data: Repositories, tenant: Tenant) -> None:
    assert _adopt(data, tenant, "retry", says_so=True) is Verdict.PERHAPS
    first = _followed(data, tenant)
    assert _guid(_adopt(data, tenant, "retry", says_so=True)) == first.guid


@pytest.mark.parametrize("status", [ACCEPTED, CALLING])
def test_lost_order_is_adopted_again_only_after_another_loss(
    data: Repositories, tenant: Tenant, status: GenerationStatus
) -> None:
    lost = _lost(data, tenant, status=status)
    assert _guid(_adopt(data, tenant, "second")) == lost.guid
    assert _adopt(data, tenant, "third") is Verdict.PERHAPS
    _lose(data, lost, follower="first")
    assert _adopt(data, tenant, "third") is Verdict.PERHAPS
    _lose(data, lost, follower="second")
    assert _guid(_adopt(data, tenant, "third")) == lost.guid


@pytest.mark.parametrize("status", [STORED, FAILED])
def test_finished_lost_order_is_adopted_once(data: Repositories, tenant: Tenant, status: GenerationStatus) -> None:
    lost = _lost(data, tenant)
    _end(data, lost, status)
    assert _guid(_adopt(data, tenant, "second")) == lost.guid
    assert _adopt(data, tenant, "third") is Verdict.NEW


def test_lost_orders_are_adopted_oldest_first(data: Repositories, tenant: Tenant) -> None:
    open_one, *lost = _followed(data, tenant), *(_lost(data, tenant) for _ in range(3))
    adopted = [_guid(_adopt(data, tenant, f"follower {number}")) for number in range(3)]
    assert adopted == [each.guid for each in lost]
    assert _adopt(data, tenant, "late") is Verdict.PERHAPS
    assert _guid(_adopt(data, tenant, "late", says_so=True)) == open_one.guid


def test_unknown_order_is_returned_to_every_retry(data: Repositories, tenant: Tenant) -> None:
    unknown = _followed(data, tenant)
    _end(data, unknown, UNKNOWN)
    for number in range(3):
        assert _guid(_adopt(data, tenant, f"follower {number}")) == unknown.guid


@pytest.mark.parametrize(("ago", "recognized"), [(WINDOW - 5, True), (WINDOW + 5, False)])
def test_loss_and_unknown_outcome_are_recognized_within_the_window(
    data: Repositories, tenant: Tenant, ago: float, *, recognized: bool
) -> None:
    made = clock.now() - timedelta(seconds=2 * WINDOW)
    lost = _lost(data, tenant, ago=ago, created_at=made, status=STORED)
    assert (_adopt(data, tenant) is Verdict.NEW) is not recognized
    unknown = _followed(data, tenant, created_at=made)
    _end(data, unknown, UNKNOWN, ago=ago)
    found = _adopt(data, tenant, "third")
    assert (unknown.guid if recognized else Verdict.NEW) == (found.guid if isinstance(found, Generation) else found)
    assert lost.guid != unknown.guid


def test_window_of_zero_disables_retries(data: Repositories, tenant: Tenant) -> None:
    _lost(data, tenant)
    _end(data, _followed(data, tenant), UNKNOWN)
    for says_so in (True, False):
        assert _adopt(data, tenant, says_so=says_so, window=0) is Verdict.NEW


def test_marked_retry_adopts_the_oldest_open_order(data: Repositories, tenant: Tenant) -> None:
    first, second = _followed(data, tenant), _followed(data, tenant, follower="other")
    assert _adopt(data, tenant, "third") is Verdict.PERHAPS
    assert _guid(_adopt(data, tenant, "third", says_so=True)) == first.guid
    lost = _lost(data, tenant)
    assert _guid(_adopt(data, tenant, "fourth", says_so=True)) == lost.guid
    assert second.guid not in {first.guid, lost.guid}


def test_marked_retry_adopts_a_recently_stored_order_once(data: Repositories, tenant: Tenant) -> None:
    long_over, ended, failed = (_followed(data, tenant) for _ in range(3))
    _end(data, long_over, STORED, ago=RECENTLY_SECONDS + 2)
    _end(data, ended, STORED)
    # The client got the failure and wants a new attempt.
    _end(data, failed, FAILED)
    assert _adopt(data, tenant) is Verdict.NEW
    assert _guid(_adopt(data, tenant, "second", says_so=True)) == ended.guid
    assert _adopt(data, tenant, "third", says_so=True) is Verdict.NEW


def test_adopting_retry_may_be_lost_unnoticed(data: Repositories, tenant: Tenant) -> None:
    """A proxy in front may hide that the client of the first retry is gone, too."""
    followed = _followed(data, tenant)
    assert _guid(_adopt(data, tenant, "second", says_so=True)) == followed.guid
    _end(data, followed, STORED)
    assert _guid(_adopt(data, tenant, "third", says_so=True)) == followed.guid
    assert _adopt(data, tenant, "fourth", says_so=True) is Verdict.NEW


def test_cancelled_order_is_never_adopted(data: Repositories, tenant: Tenant) -> None:
    _lost(data, tenant, status=CANCELLED)
    cancelled = _followed(data, tenant, status=ACCEPTED)
    _end(data, cancelled, CANCELLED)
    assert _adopt(data, tenant) is Verdict.NEW
    assert not isinstance(_adopt(data, tenant, says_so=True), Generation)
