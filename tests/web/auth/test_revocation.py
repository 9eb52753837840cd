"""Every process rejects a revoked credential within a second, however it was revoked."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from pixyproxy.core.models.principal import Role, Scope
from pixyproxy.core.settings import Settings
from tests.support.commands import run_command
from tests.support.databases import TestDatabases
from tests.support.identity import (
    EVERY_SCOPE,
    bearer,
    client_form,
    get_tokens,
    make_key,
    make_tenant,
    make_user,
    order_token,
    sign_in,
)
from tests.support.process import new_api_key, running_server
from tests.support.server import make_settings

PROMISED_SECONDS = 1
"""Measured: after this time every process rejects the credential, however slow it is; only time informs it."""


@dataclass(frozen=True)
class Pair:
    """Two server processes on one database; an operator revokes credentials at ``first``."""

    settings: Settings
    first: httpx2.Client
    second: httpx2.Client

    def codes(self, credential: str) -> list[str]:
        """Return both processes' error codes for a credential; empty if accepted."""
        answers = [http.get("/me", headers=bearer(credential)) for http in (self.first, self.second)]
        return [answer.json().get("code", "") for answer in answers]


@pytest.fixture(scope="module")
def pair(databases: TestDatabases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two processes with a common database and secret, and separate data folders."""
    shared = {"database_url": databases.new("mysql"), "secret_key": "a secret that both processes have in common"}
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    settings = [make_settings(folder, **shared) for folder in folders]
    operator = new_api_key(settings[0], scopes=EVERY_SCOPE, tenant="operators")
    with ExitStack() as stack:
        servers = [
            stack.enter_context(running_server(each, folder)) for each, folder in zip(settings, folders, strict=True)
        ]
        first, second = (stack.enter_context(server.client(operator)) for server in servers)
        yield Pair(settings[0], first, second)


def altered(credential: str) -> str:
    """Return the credential with one character near its end changed, still well-formed."""
    return f"{credential[:-3]}{'A' if credential[-3] != 'A' else 'B'}{credential[-2:]}"


def test_revoked_credential_is_rejected_by_every_process_within_a_second(pair: Pair) -> None:
    http = pair.first
    revoked_key, its_key, rotated = (make_key(http, Scope.IMAGE_READ) for _ in range(3))
    disabled, deleted, renewed, revoked_user = (make_user(http) for _ in range(4))
    tenant = make_tenant(http)
    token = sign_in(http, revoked_user)["access_token"]
    credentials = {
        "revoked token": token,
        "revoked key": revoked_key["api_key"],
        "token of a revoked key": get_tokens(http, client_form(its_key))["access_token"],
        "rotated key": rotated["api_key"],
        "disabled user's token": sign_in(http, disabled)["access_token"],
        "deleted user's token": sign_in(http, deleted)["access_token"],
        "token from before a new password": sign_in(http, renewed)["access_token"],
        "suspended tenant's token": order_token(http, tenant["guid"]),
    }
    for name, credential in credentials.items():
        assert pair.codes(credential) == ["", ""], name
    answers = [
        http.post("/auth/revoke", data={"token": token}),
        http.delete(f"/key/{revoked_key['guid']}"),
        http.delete(f"/key/{its_key['guid']}"),
        http.post(f"/key/{rotated['guid']}/rotate", json={"grace_seconds": 0}),
        http.patch(f"/user/{disabled.guid}", json={"status": "disabled"}),
        http.delete(f"/user/{deleted.guid}"),
        http.patch(f"/user/{renewed.guid}", json={"password": "another long password"}),
        http.patch(f"/admin/tenant/{tenant['guid']}", json={"status": "suspended"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 204, 204, 200, 200, 204, 200, 200]
    expected = dict.fromkeys(credentials, "credential_invalid") | {"suspended tenant's token": "tenant_suspended"}
    assert {name: pair.codes(credential)[0] for name, credential in credentials.items()} == expected
    time.sleep(PROMISED_SECONDS)
    for name, credential in credentials.items():
        assert pair.codes(credential) == [expected[name]] * 2, name
        assert pair.codes(altered(credential)) == ["credential_invalid"] * 2, name
    assert pair.codes(answers[3].json()["api_key"]) == ["", ""]


def test_expired_key_is_rejected_by_every_process(pair: Pair) -> None:
    token = order_token(pair.first, "operators", expires_in=1)
    time.sleep(2)
    assert pair.codes(token) == ["credential_invalid"] * 2


def test_revoked_signing_key_is_rejected_by_every_process_within_a_second(pair: Pair, tmp_path: Path) -> None:
    user = make_user(pair.first, Role.TENANT_ADMIN)
    former = sign_in(pair.first, user)
    assert pair.codes(former["access_token"]) == ["", ""]
    rotated = run_command("keys", "rotate", "--now", settings=pair.settings, folder=tmp_path)
    assert rotated.returncode == 0, rotated.stderr
    issued = run_command("token", "issue", "--tenant", "operators", settings=pair.settings, folder=tmp_path)
    assert pair.codes(issued.stdout.strip()) == ["", ""]
    time.sleep(PROMISED_SECONDS)
    assert pair.codes(former["access_token"]) == ["credential_invalid"] * 2
    assert pair.codes(altered(former["access_token"])) == ["credential_invalid"] * 2
    assert pair.codes(sign_in(pair.second, user)["access_token"]) == ["", ""]
