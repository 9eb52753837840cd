"""Forty-eight connections that all hash passwords do not keep other users from signing in."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from pixyproxy.core.models.principal import Scope
from tests.support.identity import PASSWORD, make_user
from tests.support.passwords import FakeContext
from tests.support.process import wait_until
from tests.support.server import UNLIMITED, RunningServer, TenantClient, make_settings, serving

CROWD = 48
OWN_PASSWORD = "a password of its own"
Ask = Callable[[httpx2.Client, TenantClient, str], httpx2.Response]


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[tuple[RunningServer, FakeContext]]:
    """Yield a server whose password checks wait for a gate, which is open."""
    context = FakeContext()
    context.gate.set()
    with serving(make_settings(tmp_path, **UNLIMITED)) as server:
        server.services.users.passwords.context = context
        yield server, context
        context.gate.set()


def sign_in(client: httpx2.Client, _: TenantClient, username: str) -> httpx2.Response:
    form = {"grant_type": "password", "username": username, "password": PASSWORD}
    return client.post("/auth/token", data=form)


def sign_in_as_nobody(client: httpx2.Client, tenant: TenantClient, _: str) -> httpx2.Response:
    return sign_in(client, tenant, f"{uuid.uuid4()}@example.org")


def make_another_user(_: httpx2.Client, tenant: TenantClient, __: str) -> httpx2.Response:
    return tenant.http.post("/user", json={"username": f"{uuid.uuid4()}@example.org", "password": PASSWORD})


@pytest.mark.parametrize("ask", [sign_in, sign_in_as_nobody, make_another_user])
def test_many_requests_of_one_kind_leave_another_sign_in_its_turn(
    ask: Ask, gated: tuple[RunningServer, FakeContext]
) -> None:
    server, context = gated
    slots = server.services.users.passwords.slots
    crowded, quiet = (server.new_tenant(name, scopes=frozenset(Scope)) for name in ("crowded", "quiet"))
    with crowded.http, quiet.http, server.client() as client, ThreadPoolExecutor(CROWD + 1) as threads:
        usernames = [make_user(crowded.http).username for _ in range(CROWD)]
        quiet.http.post("/user", json={"username": "quiet@example.org", "password": OWN_PASSWORD})
        tenant = server.call(lambda services: services.tenants.require_tenant(quiet.guid))
        context.gate.clear()
        crowd = [threads.submit(ask, client, crowded, username) for username in usernames]
        wait_until(lambda: len(slots.waiting) >= CROWD - slots.count, what="the crowd")
        form = {"grant_type": "password", "username": "quiet@example.org", "password": OWN_PASSWORD}
        signing_in = threads.submit(client.post, "/auth/token", data=form)
        wait_until(lambda: tenant.id in {requester.tenant for requester in slots.waiting}, what="the sign-in")
        context.done.clear()
        context.gate.set()
        assert signing_in.result().status_code == 200
        assert {asked.result().is_success for asked in crowd} == {ask is not sign_in_as_nobody}
    # Only the checks in progress and one turn came before it, each with the dummy's hash.
    assert context.done.index(f"verify {OWN_PASSWORD}") <= 2 * (slots.count + 1)
    assert len(context.done) > CROWD
