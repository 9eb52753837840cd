"""Budgets: reservations and charges, exact to the micro-dollar under concurrency."""

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.databases import TestDatabases
from tests.support.identity import EVERY_SCOPE, make_tenant, order_token
from tests.support.pictures import png
from tests.support.problems import assert_problem
from tests.support.scale import scaled
from tests.support.server import UNLIMITED, RunningServer, TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import CUT, HANG, HTML, MODERATED, SERVER_ERROR, Behaviour, FakeUpstream
from tests.web.builders import make_image

Json = dict[str, Any]
PRICE = 33_333
"""Micro-dollars per picture: a number that reveals any rounding."""
MILLION = 1_000_000


@pytest.fixture(scope="module")
def own() -> Iterator[FakeUpstream]:
    """Yield the upstream of this module's server."""
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def server(
    request: pytest.FixtureRequest,
    databases: TestDatabases,
    tmp_path_factory: pytest.TempPathFactory,
    own: FakeUpstream,
) -> Iterator[RunningServer]:
    """Yield a server that knows its model's price per picture."""
    folder = tmp_path_factory.mktemp(str(request.param))
    settings = make_settings(
        folder,
        database_url=databases.new(request.param),
        prices=price_file(folder),
        default_model="flat",
        **UNLIMITED,
        **upstream_settings(own),
    )
    with serving(settings) as running:
        yield running


@pytest.fixture
def upstream(own: FakeUpstream) -> Iterator[FakeUpstream]:
    """Yield the upstream, which accepts every model; nothing hangs at the end."""
    own.reset()
    own.picture = png(64, 64)
    yield own
    own.reset()


@pytest.fixture(scope="module")
def operator(server: RunningServer) -> Iterator[TenantClient]:
    """Yield the operator, who sets budgets."""
    operator = server.new_tenant("operator", scopes=EVERY_SCOPE)
    with operator.http:
        yield operator


def price_file(folder: Path) -> Path:
    """Write a file with one price."""
    path = folder / "prices.json"
    path.write_text(json.dumps({"models": {"flat": {"per_picture": PRICE / MILLION}}}))
    return path


def tenant_with_budget(server: RunningServer, operator: TenantClient, micro_usd: int) -> httpx2.Client:
    """Return a client of a new tenant with this budget."""
    tenant = make_tenant(operator.http, monthly_budget_usd=micro_usd / MILLION)
    scope = "image:read image:generate image:manage usage:read"
    return server.client(order_token(operator.http, tenant["guid"], scope=scope))


def budget_of(client: httpx2.Client) -> dict[str, int | None]:
    """Return limit, spent, reserved and remaining amounts from ``/me``, in micro-dollars."""
    told = client.get("/me").json()["budget"]
    return {
        name: None if told[f"{name}_usd"] is None else in_micro_usd(told[f"{name}_usd"])
        for name in ("limit", "spent", "reserved", "left")
    }


def in_micro_usd(usd: float) -> int:
    """Return whole micro-dollars; assert that the amount has no fraction of one."""
    exact = usd * MILLION
    assert exact == pytest.approx(round(exact), abs=1e-6)
    return round(exact)


def post(client: httpx2.Client, *, key: str | None = None, **options: object) -> httpx2.Response:
    """Send an order and return the response."""
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/image", json={"prompt": "a fox", **options}, headers=headers)


def test_concurrent_orders_do_not_exceed_budget(
    server: RunningServer, operator: TenantClient, upstream: FakeUpstream
) -> None:
    orders, affordable = scaled(150, 500), scaled(30, 100)
    with tenant_with_budget(server, operator, affordable * PRICE + PRICE - 1) as client:

        def buy(_: int) -> list[int]:
            with httpx2.Client(base_url=server.url, headers=client.headers, timeout=60) as other:
                return [post(other).status_code for _ in range(orders // 50)]

        with ThreadPoolExecutor(50) as pool:
            statuses = Counter(status for some in pool.map(buy, range(50)) for status in some)
        assert statuses == {201: affordable, 402: orders - affordable}
        assert [line.bought for line in upstream.ledger] == [True] * affordable
        assert budget_of(client) == {
            "limit": (affordable + 1) * PRICE - 1,
            "spent": affordable * PRICE,
            "reserved": 0,
            "left": PRICE - 1,
        }
        (row,) = client.get("/usage").json()
        assert (row["images"], in_micro_usd(row["cost_usd"])) == (affordable, affordable * PRICE)
        assert_problem(post(client), 402, "budget_exceeded")


@pytest.mark.usefixtures("upstream")
def test_order_that_exactly_uses_budget_is_accepted(server: RunningServer, operator: TenantClient) -> None:
    with tenant_with_budget(server, operator, 2 * PRICE) as client:
        assert [post(client).status_code for _ in range(3)] == [201, 201, 402]
        assert budget_of(client)["left"] == 0
        (first, second) = client.get("/generation").json()
        assert in_micro_usd(first["cost_usd"]) == in_micro_usd(second["cost_usd"]) == PRICE


def test_order_of_several_pictures_reserves_all(
    server: RunningServer, operator: TenantClient, upstream: FakeUpstream
) -> None:
    with tenant_with_budget(server, operator, 5 * PRICE) as client:
        orders = [client.post("/generation", json={"prompt": "a fox", "n": 3}) for _ in range(2)]
        assert [each.status_code for each in orders] == [202, 402]
        assert_problem(orders[1], 402, "budget_exceeded")
        client.get(orders[0].headers["location"], headers={"Prefer": "wait=25"})
        assert budget_of(client) == {"limit": 5 * PRICE, "spent": 3 * PRICE, "reserved": 0, "left": 2 * PRICE}
    assert [line.n for line in upstream.ledger] == [3]


def test_running_order_stays_reserved(server: RunningServer, operator: TenantClient, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    with tenant_with_budget(server, operator, 3 * PRICE) as client:
        taken = client.post("/generation", json={"prompt": "a fox", "n": 2})
        assert budget_of(client) == {"limit": 3 * PRICE, "spent": 0, "reserved": 2 * PRICE, "left": PRICE}
        upstream.wait_for_requests(1)
        upstream.release()
        client.get(taken.headers["location"], headers={"Prefer": "wait=25"})
        assert budget_of(client) == {"limit": 3 * PRICE, "spent": 2 * PRICE, "reserved": 0, "left": PRICE}


def test_unpriced_model_is_rejected_with_budget(
    server: RunningServer, operator: TenantClient, upstream: FakeUpstream
) -> None:
    with tenant_with_budget(server, operator, 100 * MILLION) as client:
        assert_problem(post(client, model="unpriced", key="k"), 402, "budget_unpriced")
        assert upstream.ledger == []
        assert client.get("/generation").json() == []
        # Nothing was claimed, so the key can be used.
        assert post(client, key="k").status_code == 201


@pytest.mark.usefixtures("upstream")
def test_unpriced_model_is_accepted_without_budget(server: RunningServer) -> None:
    tenant = server.new_tenant(f"no budget {uuid.uuid4()}", scopes=EVERY_SCOPE)
    with tenant.http:
        make_image(tenant, model="unpriced")
        make_image(tenant)
        rows = tenant.http.get("/usage").json()
        assert {row["model"]: row["cost_usd"] for row in rows} == {"unpriced": None, "flat": PRICE / MILLION}
        assert budget_of(tenant.http) == {"limit": None, "spent": PRICE, "reserved": 0, "left": None}


@pytest.mark.parametrize(
    ("behaviour", "status"), [(MODERATED, 400), (SERVER_ERROR, 502), (HTML, 502)], ids=["refused", "failed", "HTML"]
)
def test_failed_order_costs_nothing(
    behaviour: Behaviour, status: int, server: RunningServer, operator: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.behave_once(behaviour)
    with tenant_with_budget(server, operator, PRICE) as client:
        assert post(client).status_code == status
        assert budget_of(client) == {"limit": PRICE, "spent": 0, "reserved": 0, "left": PRICE}
        assert post(client).status_code == 201


RESOLVED = {True: (PRICE, (409, "generation_unknown")), False: (0, (201, None))}
"""The amount spent, and a retry's response, by the operator's resolution."""


@pytest.mark.parametrize("bought", RESOLVED)
def test_unknown_outcome_stays_reserved_until_resolved(
    bought: bool,  # noqa: FBT001  (a pytest parameter)
    server: RunningServer,
    operator: TenantClient,
    upstream: FakeUpstream,
) -> None:
    spent, repeated = RESOLVED[bought]
    upstream.behave_once(CUT)
    with tenant_with_budget(server, operator, PRICE) as client:
        assert_problem(post(client, key="k"), 502, "upstream_silent")
        assert budget_of(client) == {"limit": PRICE, "spent": 0, "reserved": PRICE, "left": 0}
        assert_problem(post(client), 402, "budget_exceeded")
        guid = assert_problem(post(client, key="k"), 409, "generation_unknown")["generation"]
        listed = operator.http.get("/admin/generation", params={"status": "unknown"}).json()
        (found,) = (each for each in listed if each["guid"] == guid)
        assert in_micro_usd(found["reserved_usd"]) == PRICE
        resolved = operator.http.post(f"/admin/generation/{guid}/resolve", json={"bought": bought})
        assert resolved.status_code == 200, resolved.text
        assert budget_of(client) == {"limit": PRICE, "spent": spent, "reserved": 0, "left": PRICE - spent}
        again = operator.http.post(f"/admin/generation/{guid}/resolve", json={"bought": bought})
        assert_problem(again, 409, "generation_resolved")
        answer = post(client, key="k")
        assert (answer.status_code, answer.json().get("code")) == repeated
        assert budget_of(client) == {"limit": PRICE, "spent": PRICE, "reserved": 0, "left": 0}


@pytest.mark.usefixtures("upstream")
def test_changed_budget_applies_at_once(server: RunningServer, operator: TenantClient) -> None:
    tenant = server.new_tenant(f"changed {uuid.uuid4()}", scopes=EVERY_SCOPE)
    with tenant.http:
        make_image(tenant)
        path = f"/admin/tenant/{tenant.guid}"
        assert operator.http.patch(path, json={"monthly_budget_usd": 0}).status_code == 200
        # Includes spending from before the budget was set.
        assert budget_of(tenant.http) == {"limit": 0, "spent": PRICE, "reserved": 0, "left": 0}
        assert_problem(post(tenant.http), 402, "budget_exceeded")
        assert operator.http.patch(path, json={"monthly_budget_usd": None}).status_code == 200
        make_image(tenant)
        assert budget_of(tenant.http) == {"limit": None, "spent": 2 * PRICE, "reserved": 0, "left": None}
