"""The ``upstreams`` repository: the shared state of upstreams."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pixyproxy.core.models.generation import GenerationStatus
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.core.models.upstream import UpstreamId, UpstreamNumbers, UpstreamState
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.engine import is_lock_conflict
from pixyproxy.data.repositories.upstreams import STARTS_KEPT_SECONDS
from tests.support.builders import add_generation, stored_outcome

NUMBERS = UpstreamNumbers(weight=2, concurrency=3, requests_per_minute=None)
OTHERS = UpstreamNumbers(weight=1, concurrency=9, requests_per_minute=60)
ONE, TWO = UpstreamId(1), UpstreamId(2)


def _registered(data: Repositories, *names: str) -> list[UpstreamState]:
    for name in names:
        data.upstreams.register(name, NUMBERS, revision=1.0)
    return data.upstreams.list_named(names)


def test_new_upstream_has_its_limits_and_initial_state(data: Repositories) -> None:
    (state,) = _registered(data, "a")
    assert state == UpstreamState(id=state.id, name="a", **NUMBERS.model_dump())


def test_upstreams_are_listed_by_id_the_lock_order(data: Repositories) -> None:
    first, second = _registered(data, "z", "a")
    assert first.id < second.id
    assert data.upstreams.list_named(["a", "absent", "z"], lock=True) == [first, second]
    assert data.upstreams.list_named(["A", "Z"]) == []
    assert data.upstreams.list_named([]) == []


@pytest.mark.parametrize(("revision", "written"), [(0.9, NUMBERS), (1.0, OTHERS), (1.1, OTHERS)])
def test_limits_of_the_newest_settings_win(data: Repositories, revision: float, written: UpstreamNumbers) -> None:
    (state,) = _registered(data, "a")
    data.upstreams.register("a", OTHERS, revision=revision)
    assert data.upstreams.list_named(["a"]) == [state.model_copy(update=written.model_dump())]


def test_register_keeps_the_state(data: Repositories) -> None:
    (state,) = _registered(data, "a")
    changed = state.model_copy(
        update={
            "share": 1.5,
            "paused_until": 1_800_000_000.25,
            "failed_at": 1_799_999_999.75,
            "failures": 2,
            "unusable": 1,
            "mean_seconds": 7.5,
        }
    )
    data.upstreams.save(changed)
    assert _registered(data, "a") == [changed]


def test_slots_are_counted_until_they_expire_or_are_freed(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    for owner, upstream, until in (
        (tenant, ONE, 9.5),
        (stranger, ONE, 10.5),
        (tenant, TWO, 99.0),
        (tenant, None, None),
    ):
        add_generation(data, owner.id, upstream_id=upstream, place_until=until)
    over, unknown = (add_generation(data, tenant.id, upstream_id=ONE, place_until=99.0) for _ in range(2))
    data.generations.settle(over.id, stored_outcome(), tenant_id=tenant.id)
    outcome = stored_outcome(status=GenerationStatus.UNKNOWN, keeps_place=True)
    data.generations.settle(unknown.id, outcome, tenant_id=tenant.id)
    assert data.upstreams.count_slots(now=9.0) == {ONE: 3, TWO: 1}
    assert data.upstreams.count_slots(now=9.5) == {ONE: 2, TWO: 1}
    assert data.upstreams.count_slots(now=99.0) == {}


def test_starts_are_counted_in_a_window_and_removed_later(data: Repositories) -> None:
    for upstream, at in ((ONE, 10.0), (TWO, 20.0), (ONE, 30.0), (ONE, 40.0)):
        data.upstreams.note_start(upstream, at=at)
    assert data.upstreams.starts_since(ONE, 10.0) == (2, 30.0)
    assert data.upstreams.starts_since(ONE, 9.9) == (3, 10.0)
    assert data.upstreams.starts_since(ONE, 40.0) == (0, None)
    data.upstreams.note_start(ONE, at=30.0 + STARTS_KEPT_SECONDS)
    assert data.upstreams.starts_since(ONE, 0.0) == (3, 30.0)
    assert data.upstreams.starts_since(TWO, 0.0) == (1, 20.0)


def test_latest_turn_of_each_tenant_and_upstream_is_stored(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    for owner, upstream, at in ((tenant, ONE, 1.0), (tenant, ONE, 2.5), (tenant, TWO, 2.0), (stranger, ONE, 3.0)):
        data.upstreams.take_turn(owner.id, upstream, at=at)
    assert data.upstreams.turns([tenant.id]) == {(tenant.id, ONE): 2.5, (tenant.id, TWO): 2.0}
    assert len(data.upstreams.turns([tenant.id, stranger.id])) == 3
    assert data.upstreams.turns([]) == {}
    data.upstreams.delete_turns(tenant_id=tenant.id)
    assert data.upstreams.turns([tenant.id, stranger.id]) == {(stranger.id, ONE): 3.0}


@pytest.mark.anyio
@pytest.mark.parametrize("backend", ["mysql"])
async def test_locked_upstream_cannot_be_locked_by_another_transaction(database: Database) -> None:
    """Server only: SQLite has a single writer anyway."""
    await database.write(lambda data: data.upstreams.register("a", NUMBERS, revision=1.0))

    def lock(data: Repositories) -> int:
        data.connection.execute(text("SET innodb_lock_wait_timeout = 0"))
        return len(data.upstreams.list_named(["a"], lock=True))

    def lock_while_another_holds_it(data: Repositories) -> tuple[int, bool]:
        with database.engine.connect() as connection, connection.begin():
            Repositories(connection).upstreams.list_named(["a"], lock=True)
            seen = len(data.upstreams.list_named(["a"]))
            with pytest.raises(DBAPIError) as caught:
                lock(data)
            return seen, is_lock_conflict(caught.value)

    assert await database.write(lock_while_another_holds_it) == (1, True)
    assert await database.write(lock) == 1
