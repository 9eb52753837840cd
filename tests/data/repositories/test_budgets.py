"""The ``budgets`` repository: concurrent orders never exceed a limit."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from threading import Barrier

import anyio
import pytest
from sqlalchemy import Engine

from pixyproxy.core.exceptions import DatabaseException
from pixyproxy.core.models.budget import Spending
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Repositories
from tests.support.builders import new_guid, new_tenant
from tests.support.databases import TestDatabases, empty, opened_database, opened_engine

MONTH, NEXT_MONTH = "2026-11", "2026-12"
PRICE = 40_000
THREADS = 50


def _add_tenant(data: Repositories, budget_usd: str | None) -> Tenant:
    budget = None if budget_usd is None else Decimal(budget_usd)
    tenant = data.tenants.insert(new_tenant(name=new_guid(), monthly_budget_usd=budget))
    for month in (MONTH, NEXT_MONTH):
        data.budgets.lock(month, tenant_id=tenant.id)
    return tenant


def test_future_month_has_no_spending(data: Repositories, tenant: Tenant) -> None:
    assert data.budgets.get(MONTH, tenant_id=tenant.id) == Spending(month=MONTH)


def test_reserved_and_settled_amounts_are_returned(data: Repositories) -> None:
    tenant = _add_tenant(data, "1")
    assert data.budgets.reserve(MONTH, 5 * PRICE, tenant_id=tenant.id)
    data.budgets.settle(MONTH, released=2 * PRICE, spent=PRICE, tenant_id=tenant.id)
    expected = Spending(month=MONTH, reserved_micro_usd=3 * PRICE, spent_micro_usd=PRICE)
    assert data.budgets.get(MONTH, tenant_id=tenant.id) == expected


def test_spending_without_a_reservation_is_counted(data: Repositories) -> None:
    tenant = _add_tenant(data, None)
    data.budgets.settle(MONTH, released=0, spent=PRICE, tenant_id=tenant.id)
    assert data.budgets.get(MONTH, tenant_id=tenant.id) == Spending(month=MONTH, spent_micro_usd=PRICE)


def test_budget_can_be_used_to_the_last_micro_dollar(data: Repositories) -> None:
    tenant = _add_tenant(data, "0.1")
    assert not data.budgets.reserve(MONTH, 100_001, tenant_id=tenant.id)
    assert data.budgets.reserve(MONTH, 60_000, tenant_id=tenant.id)
    data.budgets.settle(MONTH, released=60_000, spent=50_000, tenant_id=tenant.id)
    assert not data.budgets.reserve(MONTH, 50_001, tenant_id=tenant.id)
    assert data.budgets.reserve(MONTH, 50_000, tenant_id=tenant.id)
    assert not data.budgets.reserve(MONTH, 1, tenant_id=tenant.id)


def test_zero_budget_allows_nothing(data: Repositories) -> None:
    tenant = _add_tenant(data, "0")
    assert not data.budgets.reserve(MONTH, 1, tenant_id=tenant.id)


def test_without_a_budget_everything_fits_and_is_counted(data: Repositories) -> None:
    tenant = _add_tenant(data, None)
    for _ in range(2):
        assert data.budgets.reserve(MONTH, 10**15, tenant_id=tenant.id)
    assert data.budgets.get(MONTH, tenant_id=tenant.id).reserved_micro_usd == 2 * 10**15


def test_new_month_has_the_full_budget(data: Repositories) -> None:
    tenant = _add_tenant(data, "0.04")
    assert data.budgets.reserve(MONTH, PRICE, tenant_id=tenant.id)
    assert not data.budgets.reserve(MONTH, PRICE, tenant_id=tenant.id)
    assert data.budgets.reserve(NEXT_MONTH, PRICE, tenant_id=tenant.id)
    data.budgets.settle(MONTH, released=PRICE, spent=PRICE, tenant_id=tenant.id)
    assert data.budgets.get(NEXT_MONTH, tenant_id=tenant.id).reserved_micro_usd == PRICE


def test_new_budget_includes_earlier_spending_of_the_month(data: Repositories) -> None:
    tenant = _add_tenant(data, None)
    assert data.budgets.reserve(MONTH, 2 * PRICE, tenant_id=tenant.id)
    limited = tenant.model_copy(update={"monthly_budget_usd": Decimal("0.12")})
    data.tenants.update(limited)
    assert data.budgets.reserve(MONTH, PRICE, tenant_id=tenant.id)
    assert not data.budgets.reserve(MONTH, PRICE, tenant_id=tenant.id)
    data.tenants.update(limited.model_copy(update={"monthly_budget_usd": None}))
    assert data.budgets.reserve(MONTH, PRICE, tenant_id=tenant.id)


def test_budgets_of_tenants_are_separate(data: Repositories) -> None:
    tenant, stranger = _add_tenant(data, "0.04"), _add_tenant(data, "0.04")
    assert data.budgets.reserve(MONTH, PRICE, tenant_id=tenant.id)
    assert data.budgets.reserve(MONTH, PRICE, tenant_id=stranger.id)
    data.budgets.settle(MONTH, released=PRICE, spent=PRICE, tenant_id=stranger.id)
    data.budgets.delete_all(tenant_id=stranger.id)
    assert data.budgets.get(MONTH, tenant_id=tenant.id).reserved_micro_usd == PRICE
    assert data.budgets.get(MONTH, tenant_id=stranger.id) == Spending(month=MONTH)


def _reserve_at_once(engine: Engine, tenant: Tenant) -> int:
    """Return how many of many threads reserved a picture's price, each in its own transaction."""
    ready = Barrier(THREADS)

    def reserve(_: int) -> bool:
        ready.wait()
        with engine.connect().execution_options(pixyproxy_writes=True) as connection, connection.begin():
            return Repositories(connection).budgets.reserve(MONTH, PRICE, tenant_id=tenant.id)

    with ThreadPoolExecutor(THREADS) as threads:
        return sum(threads.map(reserve, range(THREADS)))


def test_fifty_concurrent_orders_do_not_exceed_the_budget(databases: TestDatabases, backend: str) -> None:
    url = databases.migrated(backend)
    with opened_engine(url, pool_size=THREADS) as engine:
        with engine.connect().execution_options(pixyproxy_writes=True) as connection, connection.begin():
            data = Repositories(connection)
            tenant = _add_tenant(data, "0.4")
        assert _reserve_at_once(engine, tenant) == 10
        with engine.connect() as connection:
            spending = Repositories(connection).budgets.get(MONTH, tenant_id=tenant.id)
    empty(databases.engine(backend))
    assert spending == Spending(month=MONTH, reserved_micro_usd=10 * PRICE)


@pytest.mark.anyio
async def test_fifty_concurrent_first_orders_of_a_month_do_not_exceed_the_budget(
    databases: TestDatabases, backend: str, tmp_path: Path
) -> None:
    url = databases.migrated(backend)
    ends: list[bool | DatabaseException] = []
    async with opened_database(url, tmp_path, pool_size=20) as database:
        tenant, later = await database.write(lambda data: _add_tenant(data, "0.4")), "2027-01"

        def lock_and_reserve(data: Repositories) -> bool:
            data.budgets.lock(later, tenant_id=tenant.id)
            return data.budgets.reserve(later, PRICE, tenant_id=tenant.id)

        async def reserve() -> None:
            try:
                ends.append(await database.write(lock_and_reserve))
            except DatabaseException as error:
                ends.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(THREADS):
                group.start_soon(reserve)
        spending = await database.read(lambda data: data.budgets.get(later, tenant_id=tenant.id))
    empty(databases.engine(backend))
    assert (ends.count(True), ends.count(False)) == (10, THREADS - 10)
    assert spending == Spending(month=later, reserved_micro_usd=10 * PRICE)
