"""Clients that repeat a request by themselves get their order once, whichever process they reach."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.retrying_clients import (
    CLIENT_SECONDS,
    ENDS,
    PICTURE,
    Loss,
    Order,
    bought_wrongly,
    figures,
    new_orders,
    order_by_sdk,
    order_insistently,
)
from tests.support.installation import Installation
from tests.support.scale import FULL, scaled

ORDERS = scaled(12, 300)
AT_ONCE = scaled(12, 40)
ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests" / "clients"
LITELLM = ROOT / ".venv-peers" / "bin" / "python"
VERCEL_AI = os.environ.get("VERCEL_AI", "")
"""A folder with the SDK's packages."""


@pytest.mark.parametrize("hang_up", ["passed on", "not passed on"])
def test_orders_that_the_official_sdk_retries_are_bought_once(
    hang_up: str, installation: Installation, record_property: Callable[[str, object], None]
) -> None:
    balancer = installation.balancer
    url = {"passed on": balancer.url, "not passed on": balancer.patient_url}[hang_up]
    tenant = installation.new_tenant()
    orders = new_orders(ORDERS, [Loss.TIMEOUT, Loss.CUT_BELOW, Loss.CUT_ABOVE], installation.upstream)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda order: order_by_sdk(url, tenant.api_key, order), orders))
    record_property("figures", figures(f"official SDK, hang-up {hang_up}", orders, installation.upstream))
    assert min(order.attempts for order in orders if order.loss is not Loss.CUT_ABOVE) > 1
    assert bought_wrongly(orders, installation.upstream) == {}
    assert [order for order in orders if order.ended not in ENDS[order.loss]] == []


@pytest.mark.parametrize("path", ["/image", "/v1/images/generations"])
def test_orders_that_are_repeated_without_a_retry_header_are_bought_once(
    path: str, installation: Installation, record_property: Callable[[str, object], None]
) -> None:
    url, tenant = installation.balancer.url, installation.new_tenant()
    orders = new_orders(ORDERS // 2, [Loss.TIMEOUT, Loss.CUT_ABOVE], installation.upstream)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda order: order_insistently(url, tenant.api_key, order, path=path), orders))
    record_property("figures", figures(f"repeated without a retry header, {path}", orders, installation.upstream))
    assert min(order.attempts for order in orders) > 1
    assert bought_wrongly(orders, installation.upstream) == {}
    assert [order for order in orders if order.ended not in ENDS[order.loss]] == []


@pytest.mark.skipif(not (FULL and LITELLM.exists()), reason="needs FULL=1 and the environment of make bench-peers")
def test_orders_of_litellms_router_are_bought_once(
    installation: Installation, record_property: Callable[[str, object], None]
) -> None:
    command = [str(LITELLM), str(CLIENTS / "litellm_router.py")]
    orders = ordered_by(command, CLIENTS, installation, environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"})
    record_property("figures", figures("LiteLLM's Router", orders, installation.upstream))
    assert bought_wrongly(orders, installation.upstream) == {}
    assert [order.ended == PICTURE for order in orders] == [False, True]


@pytest.mark.skipif(not VERCEL_AI, reason="needs the SDK's packages: see tests/clients/vercel_ai.mjs")
def test_orders_of_the_vercel_ai_sdk_are_bought_once(
    installation: Installation, record_property: Callable[[str, object], None]
) -> None:
    script = shutil.copy(CLIENTS / "vercel_ai.mjs", VERCEL_AI)
    orders = ordered_by(["node", script], Path(VERCEL_AI), installation)
    record_property("figures", figures("Vercel AI SDK", orders, installation.upstream))
    assert bought_wrongly(orders, installation.upstream) == {}
    assert [order.ended == PICTURE for order in orders] == [False, True]


def ordered_by(
    command: list[str], folder: Path, installation: Installation, *, environment: dict[str, str] | None = None
) -> list[Order]:
    """Run a client in a separate process that orders a picture whose response is cut and one that takes long."""
    tenant = installation.new_tenant()
    orders = new_orders(2, [Loss.CUT_ABOVE, Loss.TIMEOUT], installation.upstream)
    arguments = [installation.balancer.url, "wide", str(CLIENT_SECONDS), *(order.prompt for order in orders)]
    finished = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PIXYPROXY_API_KEY": tenant.api_key, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    for order, ended in zip(orders, json.loads(finished.stdout), strict=True):
        order.ended = ended
    return orders
