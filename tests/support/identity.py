"""Tenants, users, keys and tokens, created over HTTP by a client with the necessary scopes."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from pixyproxy.core.models.principal import Role, Scope
from tests.support.process import wait_until

PASSWORD = "correct horse battery staple"
EVERY_SCOPE = frozenset(Scope)
Json = dict[str, Any]


@dataclass(frozen=True)
class Account:
    """A user with credentials."""

    guid: str
    username: str
    password: str = PASSWORD

    @property
    def password_form(self) -> dict[str, str]:
        """Return the form of the password grant."""
        return {"grant_type": "password", "username": self.username, "password": self.password}


def bearer(credential: str) -> dict[str, str]:
    """Return the header that carries an API key or an access token."""
    return {"Authorization": f"Bearer {credential}"}


def make_user(owner: httpx2.Client, role: Role = Role.MEMBER) -> Account:
    """Return a new user of the owner's tenant."""
    username = f"{uuid.uuid4()}@example.org"
    made = owner.post("/user", json={"username": username, "password": PASSWORD, "role": role})
    assert made.status_code == 201, made.text
    return Account(guid=made.json()["guid"], username=username)


def make_key(owner: httpx2.Client, *scopes: Scope, **order: object) -> Json:
    """Return a new key of the owner's tenant with its secret."""
    made = owner.post("/key", json={"name": "a key", "scopes": sorted(scopes), **order})
    assert made.status_code == 201, made.text
    key: Json = made.json()
    return key


def make_tenant(operator: httpx2.Client, **order: object) -> Json:
    """Return a new tenant as operators see it."""
    made = operator.post("/admin/tenant", json={"name": f"tenant {uuid.uuid4()}", **order})
    assert made.status_code == 201, made.text
    tenant: Json = made.json()
    return tenant


def order_token(operator: httpx2.Client, tenant: str, **order: object) -> str:
    """Return an access token that acts for a tenant."""
    issued = operator.post("/admin/token", json={"tenant": tenant, **order})
    assert issued.status_code == 201, issued.text
    token: str = issued.json()["access_token"]
    return token


def get_tokens(client: httpx2.Client, form: dict[str, str]) -> Json:
    """Return the successful response of the token endpoint."""
    issued = client.post("/auth/token", data=form)
    assert issued.status_code == 200, issued.text
    tokens: Json = issued.json()
    return tokens


def sign_in(client: httpx2.Client, account: Account, **form: str) -> Json:
    """Return the tokens of a user."""
    return get_tokens(client, {**account.password_form, **form})


def client_form(key: Json) -> dict[str, str]:
    """Return the form of the client_credentials grant, with the key as the client's secret."""
    return {"grant_type": "client_credentials", "client_id": key["key_id"], "client_secret": key["api_key"]}


def expired_key(owner: httpx2.Client, *scopes: Scope) -> Json:
    """Return a key that has just expired."""
    order: Json = {"name": "a key", "scopes": sorted(scopes)}
    # On a slow machine such a short-lived key may expire before it is created, which is rejected.
    for seconds in (2, 10, 30):
        soon = datetime.now(UTC) + timedelta(seconds=seconds)
        made = owner.post("/key", json=order | {"expires_at": soon.isoformat()})
        if made.status_code == httpx2.codes.CREATED:
            break
    assert made.status_code == httpx2.codes.CREATED, made.text
    key: Json = made.json()
    wait_until_refused(owner, key["api_key"])
    return key


def expired_token(operator: httpx2.Client, tenant: str, scope: str) -> str:
    """Return an access token that has just expired."""
    token = order_token(operator, tenant, scope=scope, expires_in=1)
    wait_until_refused(operator, token)
    return token


def wait_until_refused(client: httpx2.Client, credential: str) -> None:
    """Return once the client's server rejects a credential."""
    wait_until(
        lambda: client.get("/me", headers=bearer(credential)).status_code == httpx2.codes.UNAUTHORIZED,
        what="the refusal",
    )


def audit_entries(operator: httpx2.Client, **wanted: str) -> list[Json]:
    """Return the newest entries of the audit log that match."""
    listed = operator.get("/admin/audit", params={"limit": "100", **wanted})
    assert listed.status_code == 200, listed.text
    entries: list[Json] = listed.json()
    return entries
