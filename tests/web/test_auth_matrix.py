"""The authorization matrix: every route of the OpenAPI document with every kind of credential.

A route missing from ``ROUTES`` fails here, and so does a row without a route.
"""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import httpx2
import pytest

from pixyproxy.core.models.principal import ROLE_SCOPES, Role, Scope
from pixyproxy.web.app import create_app
from tests.support.identity import (
    EVERY_SCOPE,
    Json,
    audit_entries,
    bearer,
    expired_key,
    expired_token,
    make_key,
    make_user,
    sign_in,
)
from tests.support.problems import without_request_id
from tests.support.server import RunningServer, make_settings
from tests.support.upstream import FakeUpstream
from tests.web.builders import ABSENT_GUID, make_image


class Access(Enum):
    """The access rule of a route without a required scope."""

    OPEN = auto()
    """Everyone; credentials are not read."""
    VIEWER = auto()
    """Everyone; a credential widens what is visible, so an invalid one is rejected."""
    ANY_CREDENTIAL = auto()
    CLIENT = auto()
    """OAuth clients, which authenticate in their own way; bearer credentials are ignored."""
    ASKER = auto()
    """OAuth clients, and any other credential."""


ROUTES: dict[str, Access | Scope] = {
    "GET /image": Access.VIEWER,
    "GET /image/{guid}": Access.VIEWER,
    "GET /image/{guid}/content": Access.VIEWER,
    "POST /image": Scope.IMAGE_GENERATE,
    "PATCH /image/{guid}": Scope.IMAGE_MANAGE,
    "DELETE /image/{guid}": Scope.IMAGE_MANAGE,
    "POST /generation": Scope.IMAGE_GENERATE,
    "GET /generation": Scope.IMAGE_READ,
    "GET /generation/events": Scope.IMAGE_READ,
    "GET /generation/{guid}": Scope.IMAGE_READ,
    "DELETE /generation/{guid}": Scope.IMAGE_MANAGE,
    "GET /generation/{guid}/events": Scope.IMAGE_READ,
    "POST /v1/images/generations": Scope.IMAGE_GENERATE,
    "POST /v1/images/edits": Scope.IMAGE_GENERATE,
    "GET /v1/models": Access.ANY_CREDENTIAL,
    "GET /v1/models/{model}": Access.ANY_CREDENTIAL,
    "POST /auth/token": Access.CLIENT,
    "POST /auth/revoke": Access.OPEN,
    "POST /auth/introspect": Access.ASKER,
    "GET /.well-known/oauth-authorization-server": Access.OPEN,
    "GET /.well-known/jwks.json": Access.OPEN,
    "GET /key": Scope.KEY_MANAGE,
    "POST /key": Scope.KEY_MANAGE,
    "POST /key/{guid}/rotate": Scope.KEY_MANAGE,
    "DELETE /key/{guid}": Scope.KEY_MANAGE,
    "GET /user": Scope.USER_MANAGE,
    "POST /user": Scope.USER_MANAGE,
    "PATCH /user/{guid}": Scope.USER_MANAGE,
    "DELETE /user/{guid}": Scope.USER_MANAGE,
    "GET /webhook": Scope.KEY_MANAGE,
    "POST /webhook": Scope.KEY_MANAGE,
    "GET /webhook/{guid}/delivery": Scope.KEY_MANAGE,
    "POST /webhook/{guid}/rotate": Scope.KEY_MANAGE,
    "DELETE /webhook/{guid}": Scope.KEY_MANAGE,
    "GET /me": Access.ANY_CREDENTIAL,
    "GET /usage": Scope.USAGE_READ,
    "GET /admin/tenant": Scope.ADMIN,
    "POST /admin/tenant": Scope.ADMIN,
    "GET /admin/tenant/{guid}": Scope.ADMIN,
    "PATCH /admin/tenant/{guid}": Scope.ADMIN,
    "DELETE /admin/tenant/{guid}": Scope.ADMIN,
    "POST /admin/token": Scope.ADMIN,
    "GET /admin/audit": Scope.ADMIN,
    "GET /admin/generation": Scope.ADMIN,
    "POST /admin/generation/{guid}/resolve": Scope.ADMIN,
    "GET /healthz": Access.OPEN,
    "GET /readyz": Access.OPEN,
}
OAUTH_FORMS = {
    "POST /auth/token": {"grant_type": "client_credentials"},
    "POST /auth/revoke": {"token": "nothing"},
    "POST /auth/introspect": {"token": "nothing"},
}
ENDLESS = "GET /generation/events"
OWNED = sorted(route for route in ROUTES if "{guid}" in route and "/admin/" not in route)
"""Routes whose GUID names a tenant's resource."""
ADMINISTRATION = sorted(route for route, access in ROUTES.items() if access is Scope.ADMIN)
READS = [
    *(route for route in ROUTES if route.startswith("GET")),
    *("GET /", "GET /docs", "GET /openapi.json", "GET /static/gallery.js", "GET /static/absent", "GET /absent"),
]
PASSES = (0, "passes authorization")
INVALID = (401, "credential_invalid")
SUSPENDED = (403, "tenant_suspended")
Outcome = tuple[int, str]


@dataclass(frozen=True)
class Caller:
    """A kind of caller; ``refusal`` is the error for its invalid credential, None for a valid one."""

    headers: dict[str, str]
    scopes: frozenset[Scope] = frozenset()
    refusal: Outcome | None = None


@dataclass(frozen=True)
class World:
    """Two tenants on one server, and all callers; ``operator`` is in the tenant that owns the requested resources."""

    http: httpx2.Client
    operator: httpx2.Client
    callers: dict[str, Caller]
    strangers: dict[str, Caller]
    owned: dict[str, str]

    def ask(self, route: str, caller: Caller, guid: str = ABSENT_GUID) -> httpx2.Response:
        """Send the smallest request of a route and return the response; nothing is changed."""
        method, path = route.replace("{guid}", guid).replace("{model}", "gpt-image-2").split()
        if route == ENDLESS:
            with self.http.stream(method, path, headers=caller.headers) as answer:
                if answer.is_error:
                    answer.read()
                return answer
        body: Json = {"data": OAUTH_FORMS[route]} if route in OAUTH_FORMS else {"json": {}}
        return self.http.request(
            method, path, headers=caller.headers, **(body if method not in {"GET", "HEAD", "DELETE"} else {})
        )


@pytest.fixture(scope="session")
def world(server: RunningServer, session_upstream: FakeUpstream) -> Iterator[World]:
    """Yield the tenants and credentials of one server; the tests change none of them."""
    session_upstream.reset()
    with ExitStack() as stack:
        ours, theirs = (
            server.new_tenant(f"matrix {name} {uuid.uuid4()}", scopes=EVERY_SCOPE) for name in ("ours", "theirs")
        )
        for tenant in (ours, theirs):
            stack.enter_context(tenant.http)
        picture = make_image(ours, "a fox that nobody else sees", visibility="private")
        owned = {
            "image": picture["guid"],
            "generation": ours.http.get("/generation").json()[0]["guid"],
            "webhook": make_webhook(ours.http)["guid"],
            "key": make_key(ours.http, Scope.IMAGE_READ)["guid"],
            "user": make_user(ours.http).guid,
        }
        yield World(
            http=stack.enter_context(server.client()),
            operator=ours.http,
            callers=good_callers(ours.http) | bad_callers(server, ours.http, ours.guid),
            strangers=good_callers(theirs.http),
            owned=owned,
        )


def make_webhook(owner: httpx2.Client) -> Json:
    """Create a webhook of the owner's tenant for events that never occur; an IP address avoids name lookups."""
    order = {"url": "https://93.184.216.34/hook", "events": ["generation.failed"]}
    made = owner.post("/webhook", json=order)
    assert made.status_code == 201, made.text
    webhook: Json = made.json()
    return webhook


def good_callers(owner: httpx2.Client) -> dict[str, Caller]:
    """Return an anonymous caller, a user of each role, and a key of each single scope, of the owner's tenant."""
    callers = {"anonymous": Caller({})}
    for role in Role:
        token = sign_in(owner, make_user(owner, role))["access_token"]
        callers[f"role {role}"] = Caller(bearer(token), ROLE_SCOPES[role])
    for scope in Scope:
        callers[f"scope {scope}"] = Caller(bearer(make_key(owner, scope)["api_key"]), frozenset({scope}))
    return callers


def bad_callers(server: RunningServer, operator: httpx2.Client, tenant: str) -> dict[str, Caller]:
    """Return callers whose credentials had every permission before they became invalid."""
    revoked = make_key(operator, *EVERY_SCOPE)
    assert operator.delete(f"/key/{revoked['guid']}").status_code == 204
    suspended = server.new_tenant(f"matrix suspended {uuid.uuid4()}", scopes=EVERY_SCOPE)
    with suspended.http:
        user_token = sign_in(suspended.http, make_user(suspended.http, Role.OPERATOR))["access_token"]
    assert operator.patch(f"/admin/tenant/{suspended.guid}", json={"status": "suspended"}).status_code == 200
    return {
        "revoked key": Caller(bearer(revoked["api_key"]), EVERY_SCOPE, INVALID),
        "expired key": Caller(bearer(expired_key(operator, *EVERY_SCOPE)["api_key"]), EVERY_SCOPE, INVALID),
        "expired token": Caller(bearer(expired_token(operator, tenant, " ".join(Scope))), EVERY_SCOPE, INVALID),
        "nonsense": Caller(bearer("nonsense"), EVERY_SCOPE, INVALID),
        "suspended tenant's key": Caller(bearer(suspended.api_key), EVERY_SCOPE, SUSPENDED),
        "suspended tenant's user": Caller(bearer(user_token), EVERY_SCOPE, SUSPENDED),
    }


def expected(access: Access | Scope, caller: Caller) -> Outcome:
    """Return the outcome that the table requires for a caller."""
    if access is Access.CLIENT:
        return 401, "invalid_client"
    if access is Access.OPEN or (access is Access.VIEWER and caller.refusal is None):
        return PASSES
    if not caller.headers:
        return 401, "invalid_client" if access is Access.ASKER else "credential_missing"
    if caller.refusal is None and isinstance(access, Scope) and access not in caller.scopes:
        return 403, "scope_missing"
    return caller.refusal or PASSES


def members(answer: httpx2.Response) -> Json:
    """Return the content of an error: problem JSON, or the content of OpenAI's envelope."""
    body: Json = answer.json()
    return body.get("error", body) if answer.request.url.path.startswith("/v1/") else body


def outcome(answer: httpx2.Response) -> Outcome:
    """Return the outcome of a request."""
    assert answer.status_code < 500, answer.text
    if answer.status_code in {401, 403}:
        return answer.status_code, members(answer)["code"]
    return PASSES


def says_what_helps(answer: httpx2.Response, access: Access | Scope) -> bool:
    """Return whether a refusal names the remedy (RFC 6750 §3). For a suspension there is none."""
    challenge = answer.headers.get("www-authenticate", "")
    if answer.status_code == 401:
        return challenge.startswith(("Bearer ", "Basic "))
    if outcome(answer) != (403, "scope_missing"):
        return True
    scope = access if answer.request.url.path.startswith("/v1/") else answer.json()["scope"]
    return challenge == f'Bearer realm="pixyproxy", error="insufficient_scope", scope="{scope}"' and scope == access


def as_shown(answer: httpx2.Response) -> tuple[int, Json, dict[str, str]]:
    """Return a response without what identifies or counts the request; for HEAD only its status."""
    if answer.request.method == "HEAD":
        return answer.status_code, {}, {}
    status, body, headers = without_request_id(answer)
    headers.pop("ratelimit", None)
    return status, body, headers


def lasting(answer: httpx2.Response) -> dict[str, str]:
    """Return the headers of a response that do not change over time."""
    changing = {"date", "x-request-id", "ratelimit", "content-length", "link"}
    return {name: value for name, value in answer.headers.items() if name not in changing}


def test_every_route_is_classified(tmp_path: Path) -> None:
    document = create_app(make_settings(tmp_path)).openapi()
    documented = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert documented == ROUTES.keys()


@pytest.mark.parametrize("route", ROUTES)
def test_route_admits_only_allowed_callers(route: str, world: World) -> None:
    access = ROUTES[route]
    answers = {name: world.ask(route, caller) for name, caller in world.callers.items()}
    wanted = {name: expected(access, caller) for name, caller in world.callers.items()}
    assert {name: outcome(answer) for name, answer in answers.items()} == wanted
    assert [name for name, answer in answers.items() if not says_what_helps(answer, access)] == []


@pytest.mark.parametrize("route", READS)
def test_head_matches_get_without_content(route: str, world: World) -> None:
    guid = world.owned.get(route.split("/")[1], ABSENT_GUID)
    for name in ("anonymous", "role operator", "nonsense"):
        got, head = (world.ask(route.replace("GET", method), world.callers[name], guid) for method in ("GET", "HEAD"))
        assert head.content == b"", name
        assert (head.status_code, lasting(head)) == (got.status_code, lasting(got)), name
        assert head.headers.get("content-length", "").isdecimal() == ("content-length" in got.headers), name


@pytest.mark.parametrize("route", OWNED)
def test_resource_of_another_tenant_looks_absent(route: str, world: World) -> None:
    guid = world.owned[route.split("/")[1]]
    theirs = {name: world.ask(route, caller, guid) for name, caller in world.strangers.items()}
    absent = {name: world.ask(route, caller) for name, caller in world.strangers.items()}
    wanted = {name: expected(ROUTES[route], caller) for name, caller in world.strangers.items()}
    assert {name: as_shown(answer) for name, answer in theirs.items()} == {
        name: as_shown(answer) for name, answer in absent.items()
    }
    assert {name: outcome(answer) for name, answer in theirs.items()} == wanted
    found = {answer.status_code for name, answer in theirs.items() if wanted[name] == PASSES}
    assert found == {404}


def test_resources_of_another_tenant_still_exist(world: World) -> None:
    assert world.operator.get(f"/image/{world.owned['image']}").status_code == 200
    keys = {key["guid"]: key for key in world.operator.get("/key").json()}
    assert keys[world.owned["key"]]["revoked_at"] is None
    assert keys[world.owned["key"]]["former_secret_until"] is None
    assert world.owned["user"] in {user["guid"] for user in world.operator.get("/user").json()}
    assert world.operator.get(f"/generation/{world.owned['generation']}").json()["status"] == "stored"
    webhooks = {webhook["guid"]: webhook for webhook in world.operator.get("/webhook").json()}
    assert webhooks[world.owned["webhook"]]["former_secret_until"] is None


@pytest.mark.parametrize("route", ADMINISTRATION)
def test_refused_administrator_action_is_audited_once(route: str, world: World) -> None:
    refused = {name: caller for name, caller in world.callers.items() if expected(Scope.ADMIN, caller)[0] == 403}
    refused = {name: caller for name, caller in refused.items() if caller.refusal is None}
    assert len(refused) == len(Role) + len(Scope) - 2
    for name, caller in refused.items():
        answer = world.ask(route, caller)
        subject = world.http.get("/me", headers=caller.headers).json()["subject"]
        written = audit_entries(world.operator, actor=subject, action="scope.refused")
        ours = [entry for entry in written if entry["request_id"] == answer.headers["x-request-id"]]
        assert [(entry["target"], entry["details"]["scope"]) for entry in ours] == [(route, "admin")], name
