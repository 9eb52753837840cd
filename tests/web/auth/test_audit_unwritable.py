"""If the audit log cannot be written, no administrator action takes effect and no token is issued."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from sqlalchemy import inspect, text

from pixyproxy.core.models.principal import Scope
from tests.conftest import BACKENDS
from tests.support.databases import TestDatabases, opened_engine
from tests.support.identity import (
    EVERY_SCOPE,
    PASSWORD,
    bearer,
    client_form,
    get_tokens,
    make_key,
    make_tenant,
    make_user,
    sign_in,
)
from tests.support.server import make_settings, serving

UNOBSERVED = {"last_used_at", "seen_at"}
"""Columns that any request, or a heartbeat, may write."""
Rows = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Broken:
    """A server whose audit log is missing, and resources created before."""

    url: str
    http: httpx2.Client
    known: dict[str, str]

    def rows(self) -> Rows:
        """Return the whole content of the database."""
        with opened_engine(self.url) as engine, engine.connect() as connection:
            inspector, found = inspect(connection), {}
            for table in inspector.get_table_names():
                names = [column["name"] for column in inspector.get_columns(table)]
                columns = ", ".join(name for name in names if name not in UNOBSERVED)
                found[table] = [tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM {table}"))]
        return found


@pytest.fixture(scope="module", params=BACKENDS)
def broken(
    request: pytest.FixtureRequest, databases: TestDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broken]:
    """Yield a server on its own database without the audit log table."""
    url = databases.new(request.param)
    settings = make_settings(tmp_path_factory.mktemp("broken"), database_url=url)
    with ExitStack() as stack:
        server = stack.enter_context(serving(settings))
        owner = server.new_tenant("owner", scopes=EVERY_SCOPE)
        http = stack.enter_context(owner.http)
        user, key, reader = make_user(http), make_key(http, *EVERY_SCOPE), make_key(http, Scope.IMAGE_READ)
        tokens = sign_in(http, user)
        known = {
            "user": user.guid,
            "username": user.username,
            "key": key["guid"],
            "key_id": key["key_id"],
            "secret": key["api_key"],
            "reader": reader["api_key"],
            "tenant": make_tenant(http)["guid"],
            "access_token": tokens["access_token"],
            "client_token": get_tokens(http, client_form(key))["access_token"],
            "refresh_token": tokens["refresh_token"],
        }
        with opened_engine(url) as engine, engine.begin() as connection:
            connection.execute(text("ALTER TABLE audit_log RENAME TO audit_log_away"))
        yield Broken(url, http, known)


ACTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "issue a key": ("POST", "/key", {"json": {"name": "new"}}),
    "rotate a key": ("POST", "/key/{key}/rotate", {"json": {"grace_seconds": 0}}),
    "revoke a key": ("DELETE", "/key/{key}", {}),
    "make a user": ("POST", "/user", {"json": {"username": "new", "password": PASSWORD}}),
    "change a password": ("PATCH", "/user/{user}", {"json": {"password": "another long password"}}),
    "change a role": ("PATCH", "/user/{user}", {"json": {"role": "operator"}}),
    "disable a user": ("PATCH", "/user/{user}", {"json": {"status": "disabled"}}),
    "delete a user": ("DELETE", "/user/{user}", {}),
    "make a tenant": ("POST", "/admin/tenant", {"json": {"name": "new"}}),
    "change a tenant": ("PATCH", "/admin/tenant/{tenant}", {"json": {"name": "changed"}}),
    "suspend a tenant": ("PATCH", "/admin/tenant/{tenant}", {"json": {"status": "suspended"}}),
    "delete a tenant": ("DELETE", "/admin/tenant/{tenant}", {}),
    "issue a token": ("POST", "/admin/token", {"json": {"tenant": "owner"}}),
    "sign in": ("POST", "/auth/token", {"data": {"grant_type": "password", "username": "{username}"}}),
    "fail to sign in": ("POST", "/auth/token", {"data": {"grant_type": "password", "username": "nobody"}}),
    "sign in with a key": (
        "POST",
        "/auth/token",
        {"data": {"grant_type": "client_credentials", "client_id": "{key_id}", "client_secret": "{secret}"}},
    ),
    "refresh": ("POST", "/auth/token", {"data": {"grant_type": "refresh_token", "refresh_token": "{refresh_token}"}}),
    "revoke an access token": ("POST", "/auth/revoke", {"data": {"token": "{access_token}"}}),
    "revoke a refresh token": ("POST", "/auth/revoke", {"data": {"token": "{refresh_token}"}}),
    "be refused": ("GET", "/admin/tenant", {"headers": {"Authorization": "Bearer {reader}"}}),
}


@pytest.mark.parametrize("act", ACTS)
def test_action_without_audit_entry_has_no_effect(act: str, broken: Broken) -> None:
    method, path, options = ACTS[act]
    filled: dict[str, Any] = {
        name: {key: value.format(**broken.known) if isinstance(value, str) else value for key, value in given.items()}
        for name, given in options.items()
    }
    if "username" in filled.get("data", {}):
        filled["data"]["password"] = PASSWORD
    before = broken.rows()
    answer = broken.http.request(method, path.format(**broken.known), **filled)
    assert answer.status_code >= 500, answer.text
    expected = {"error", "error_description"} if path.startswith("/auth") else {"type", "title", "status", "detail"}
    assert answer.json().keys() >= expected
    assert not {"access_token", "api_key", "guid"} & answer.json().keys()
    assert "audit" not in answer.text
    assert broken.rows() == before


def test_other_requests_still_work(broken: Broken) -> None:
    for credential in ("secret", "access_token", "client_token"):
        assert broken.http.get("/me", headers=bearer(broken.known[credential])).status_code == 200
    for path in ("/key", "/user", "/admin/tenant", "/readyz", "/image"):
        assert broken.http.get(path).status_code == 200, path
