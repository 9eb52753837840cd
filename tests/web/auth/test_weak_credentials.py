"""Resources created with a limited or expiring credential have its limits and expiry, on every route."""

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pixyproxy.core.models.principal import Role, Scope
from pixyproxy.core.models.trusted_issuer import TrustedIssuer
from pixyproxy.web.app import create_app
from tests.support.identity import (
    EVERY_SCOPE,
    PASSWORD,
    Json,
    bearer,
    client_form,
    get_tokens,
    make_key,
    make_user,
    order_token,
    sign_in,
)
from tests.support.oidc import AUDIENCE, FakeIssuer
from tests.support.problems import assert_problem
from tests.support.server import UNLIMITED, RunningServer, make_settings, serving
from tests.web.test_auth_matrix import make_webhook

SECRETS = {"api_key", "secret", "access_token"}
"""The names of credentials in responses."""
ALL = " ".join(sorted(Scope))


@dataclass(frozen=True)
class Credential:
    """An API key or token with every scope; ``client`` is the form for its token requests, if possible."""

    text: str
    expires_at: datetime | None = None
    client: dict[str, str] | None = None


@dataclass(frozen=True)
class Slot:
    """A server that trusts an issuer, and an operator in the tenant ``owner``."""

    server: RunningServer
    issuer: FakeIssuer
    operator: httpx2.Client

    def ask(self, credential: Credential, path: str, body: Json, *, method: str = "POST") -> httpx2.Response:
        """Return the response to a request with this credential."""
        return self.operator.request(method, path, json=body, headers=bearer(credential.text))

    def new_key(self, **order: object) -> Credential:
        """Issue a key with every scope and these options."""
        key = make_key(self.operator, *EVERY_SCOPE, **order)
        expires_at = None if key["expires_at"] is None else datetime.fromisoformat(key["expires_at"])
        return Credential(key["api_key"], expires_at, client_form(key))

    def token_of(self, key: Credential) -> Credential:
        """Return a token of a key."""
        assert key.client is not None
        return Credential(get_tokens(self.operator, key.client)["access_token"], key.expires_at)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slot]:
    with FakeIssuer() as issuer:
        trusted = TrustedIssuer(
            issuer=issuer.url, audience=AUDIENCE, tenant_claim="org", allowed_scopes=frozenset(Scope)
        )
        settings = make_settings(tmp_path_factory.mktemp("weak"), trusted_issuers=(trusted,), **UNLIMITED)
        with serving(settings) as server:
            server.hash_cheaply()
            with server.new_tenant("owner", scopes=EVERY_SCOPE).http as operator:
                yield Slot(server, issuer, operator)


def in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


def expiry_of_token(token: str) -> datetime:
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return datetime.fromtimestamp(claims["exp"], UTC)


def key_limited_to_models(place: Slot) -> Credential:
    return place.new_key(allowed_models=["cheap"])


def key_limited_in_number(place: Slot) -> Credential:
    return place.new_key(images_per_minute=5)


def token_of_limited_key(place: Slot) -> Credential:
    return place.token_of(place.new_key(allowed_models=["cheap"]))


def expiring_key(place: Slot) -> Credential:
    return place.new_key(expires_at=in_an_hour())


def token_of_expiring_key(place: Slot) -> Credential:
    return place.token_of(expiring_key(place))


def former_secret(place: Slot) -> Credential:
    key = make_key(place.operator, *EVERY_SCOPE)
    rotated = place.operator.post(f"/key/{key['guid']}/rotate", json={"grace_seconds": 3600}).json()
    return Credential(key["api_key"], datetime.fromisoformat(rotated["former_secret_until"]), client_form(key))


def token_of_former_secret(place: Slot) -> Credential:
    return place.token_of(former_secret(place))


def operators_token(place: Slot) -> Credential:
    token = order_token(place.operator, "owner", scope=ALL, expires_in=3600)
    return Credential(token, expiry_of_token(token))


def foreign_token(place: Slot) -> Credential:
    token = place.issuer.sign(org="owner", scope=ALL)
    return Credential(token, expiry_of_token(token))


def strong_key(place: Slot) -> Credential:
    return place.new_key()


def sign_in_of_a_user(place: Slot) -> Credential:
    user = make_user(place.operator, Role.OPERATOR)
    return Credential(sign_in(place.operator, user)["access_token"])


Weak = Callable[[Slot], Credential]
LIMITED: dict[Weak, tuple[list[str] | None, int | None]] = {
    key_limited_to_models: (["cheap"], None),
    key_limited_in_number: (None, 5),
    token_of_limited_key: (["cheap"], None),
}
"""Credentials with limits on models or on pictures per minute."""
EXPIRING: list[Weak] = [
    *(expiring_key, token_of_expiring_key, former_secret, token_of_former_secret, operators_token, foreign_token)
]
STRONG: list[Weak] = [strong_key, sign_in_of_a_user]


def issue_key(place: Slot, credential: Credential) -> httpx2.Response:
    return place.ask(credential, "/key", {"name": "heir", "scopes": sorted(Scope)})


def rotate_key(place: Slot, credential: Credential) -> httpx2.Response:
    guid = make_key(place.operator, *EVERY_SCOPE)["guid"]
    return place.ask(credential, f"/key/{guid}/rotate", {})


def create_user(place: Slot, credential: Credential) -> httpx2.Response:
    return place.ask(credential, "/user", {"username": str(uuid.uuid4()), "password": PASSWORD, "role": "operator"})


def set_password(place: Slot, credential: Credential) -> httpx2.Response:
    return place.ask(credential, f"/user/{make_user(place.operator).guid}", {"password": PASSWORD}, method="PATCH")


def create_webhook(place: Slot, credential: Credential) -> httpx2.Response:
    # The number of webhooks is limited.
    for webhook in place.operator.get("/webhook").json():
        place.operator.delete(f"/webhook/{webhook['guid']}")
    return place.ask(credential, "/webhook", {"url": "https://93.184.216.34/hook"})


def rotate_webhook(place: Slot, credential: Credential) -> httpx2.Response:
    webhooks = place.operator.get("/webhook").json() or [make_webhook(place.operator)]
    return place.ask(credential, f"/webhook/{webhooks[0]['guid']}/rotate", {})


def order_tenant_token(place: Slot, credential: Credential) -> httpx2.Response:
    return place.ask(credential, "/admin/token", {"tenant": "owner", "scope": ALL, "expires_in": 86_400})


def get_token(place: Slot, credential: Credential) -> httpx2.Response:
    return place.operator.post("/auth/token", data=credential.client)


ATTEMPTS: dict[str, Callable[[Slot, Credential], httpx2.Response]] = {
    "POST /key": issue_key,
    "POST /key/{guid}/rotate": rotate_key,
    "POST /user": create_user,
    "PATCH /user/{guid}": set_password,
    "POST /webhook": create_webhook,
    "POST /webhook/{guid}/rotate": rotate_webhook,
    "POST /admin/token": order_tenant_token,
    "POST /auth/token": get_token,
}
BOUNDED = [
    *product(["POST /key"], EXPIRING),
    *product(["POST /admin/token"], [weak for weak in EXPIRING if weak is not operators_token]),
    *product(["POST /auth/token"], [expiring_key, former_secret]),
]
"""Created credentials expire with their creator. Those of ``POST /admin/token`` tokens would survive revocation."""
UNAFFECTED = [
    *product(["POST /webhook", "POST /webhook/{guid}/rotate"], LIMITED),
    *product(["POST /auth/token"], [weak for weak in LIMITED if weak is not token_of_limited_key]),
]
"""Webhooks generate no pictures, and a key's token has the key's limits."""
INHERITING = [*product(["POST /key"], LIMITED)]
NO_CLIENT = [
    *product(["POST /auth/token"], [token_of_limited_key, token_of_expiring_key, token_of_former_secret]),
    *product(["POST /auth/token"], [operators_token, foreign_token]),
]
"""Tokens cannot request tokens."""
REFUSED = [
    pair
    for pair in product(ATTEMPTS, [*LIMITED, *EXPIRING])
    if pair not in [*BOUNDED, *UNAFFECTED, *INHERITING, *NO_CLIENT]
]


def named(value: str | Weak) -> str:
    return value if isinstance(value, str) else value.__name__


@pytest.mark.parametrize(("route", "weak"), REFUSED, ids=named)
def test_weak_credential_cannot_create_stronger_one(route: str, weak: Weak, place: Slot) -> None:
    assert_problem(ATTEMPTS[route](place, weak(place)), 422, "grant_exceeds_caller")


@pytest.mark.parametrize(("route", "weak"), BOUNDED, ids=named)
def test_created_credential_expires_with_its_creator(route: str, weak: Weak, place: Slot) -> None:
    credential = weak(place)
    made = ATTEMPTS[route](place, credential).json()
    token, expires_at = made.get("access_token"), made.get("expires_at")
    ends = datetime.fromisoformat(expires_at) if token is None else expiry_of_token(token)
    assert credential.expires_at is not None
    assert ends <= credential.expires_at


@pytest.mark.parametrize("weak", LIMITED, ids=named)
def test_created_key_has_limits_of_its_creator(weak: Weak, place: Slot) -> None:
    made = issue_key(place, weak(place)).json()
    assert (made["allowed_models"], made["images_per_minute"]) == LIMITED[weak]


@pytest.mark.parametrize(("route", "weak"), UNAFFECTED, ids=named)
def test_picture_limits_do_not_restrict_other_actions(route: str, weak: Weak, place: Slot) -> None:
    assert ATTEMPTS[route](place, weak(place)).is_success


@pytest.mark.parametrize("route", sorted(ATTEMPTS.keys() - {"POST /auth/token"}))
@pytest.mark.parametrize("strong", STRONG, ids=named)
def test_unlimited_credential_creates_unlimited_ones(route: str, strong: Weak, place: Slot) -> None:
    assert ATTEMPTS[route](place, strong(place)).is_success


@pytest.mark.parametrize("weak", [*LIMITED, *EXPIRING], ids=named)
def test_weak_credential_can_revoke_stronger_ones(weak: Weak, place: Slot) -> None:
    user, credential = make_user(place.operator), weak(place)
    disabled = place.ask(credential, f"/user/{user.guid}", {"status": "disabled"}, method="PATCH")
    assert disabled.json()["status"] == "disabled"


def test_expiring_key_can_revoke_permanent_key(place: Slot) -> None:
    leaked = make_key(place.operator, *EVERY_SCOPE)
    revoked = place.operator.delete(f"/key/{leaked['guid']}", headers=bearer(expiring_key(place).text))
    assert revoked.status_code == 204


def test_tenant_token_has_no_scope_its_operator_lacks(place: Slot) -> None:
    key = make_key(place.operator, Scope.ADMIN, Scope.IMAGE_READ)
    narrow = Credential(key["api_key"])
    for scope, status in (("image:read", 201), ("admin", 201), ("key:manage", 422), (None, 422)):
        body = {"tenant": "owner"} if scope is None else {"tenant": "owner", "scope": scope}
        assert place.ask(narrow, "/admin/token", body).status_code == status


def test_every_credential_creating_route_is_covered(tmp_path: Path) -> None:
    document = create_app(make_settings(tmp_path)).openapi()
    making = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "password" in members(operation.get("requestBody", {}), document)
        or any(members(answer, document) & SECRETS for answer in operation["responses"].values())
    }
    assert making == ATTEMPTS.keys()


def members(body: Json, document: Json) -> set[str]:
    """Return the field names in the JSON of a request or response of the document."""
    schema: Any = body.get("content", {}).get("application/json", {}).get("schema", {})
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return set(document["components"]["schemas"].get(name, {}).get("properties", {}))
