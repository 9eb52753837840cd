"""The error table: requests, and their expected status and code.

``python -m tests.web.errors.error_table`` prints it.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
from pydantic import SecretStr
from sqlalchemy import text

from pixyproxy.core.models.api_key import IssuedApiKey, NewApiKey
from pixyproxy.core.models.generation import GenerationStatus
from pixyproxy.core.models.principal import Role, Scope
from pixyproxy.core.models.tenant import TenantChange
from pixyproxy.core.models.user import NewUser
from pixyproxy.service.composition import Services
from pixyproxy.service.private.identity.tenants import command_grantor
from tests.support.api_keys import forged_key, key_id_of
from tests.support.builders import new_generation
from tests.support.raw_http import exchange, request_bytes
from tests.support.server import ACTOR, RunningServer, TenantClient
from tests.web.builders import ABSENT_GUID
from tests.web.upstream_faults import FAULTS

KEY = "Idempotency-Key"
CHUNK = b" " * 65_536
TWENTY_MEGABYTES = 20_000_000
JSON = {"Content-Type": "application/json"}
CONTENT_METHODS = "GET, HEAD"
IMAGE_METHODS = "DELETE, GET, HEAD, PATCH"


@dataclass(frozen=True)
class Situation:
    """A server and a tenant; everything else is created through the services on demand."""

    server: RunningServer
    tenant: TenantClient

    def issue(self, *scopes: Scope, **order: object) -> IssuedApiKey:
        """Issue another key of the tenant with these scopes, or with all."""
        new = NewApiKey.model_validate({"name": "one more", "scopes": scopes or frozenset(Scope)} | order)

        async def issue(services: Services) -> IssuedApiKey:
            owner = await services.tenants.require_tenant(self.tenant.guid)
            return await services.api_keys.issue_key(new, grantor=command_grantor(owner, ACTOR))

        return self.server.call(issue)

    def revoked(self) -> IssuedApiKey:
        """Return a revoked key of the tenant."""
        issued = self.issue()

        async def revoke(services: Services) -> None:
            owner = await services.tenants.require_tenant(self.tenant.guid)
            await services.api_keys.revoke_key(issued.detail.guid, grantor=command_grantor(owner, ACTOR))

        self.server.call(revoke)
        return issued

    def expired(self) -> IssuedApiKey:
        """Return an expired key of the tenant; its expiry is set in the database, because the API rejects it."""
        issued = self.issue()

        async def expire(services: Services) -> None:
            statement = "UPDATE api_keys SET expires_at = '2026-01-01 00:00:00' WHERE key_id = :key_id"
            parameters = {"key_id": issued.detail.key_id}
            await services.database.write(lambda data: data.connection.execute(text(statement), parameters))

        self.server.call(expire)
        return issued

    def change_tenant(self, **change: object) -> None:
        """Change the tenant as an operator."""
        wanted = TenantChange.model_validate(change)
        self.server.call(lambda services: services.tenants.change_tenant(self.tenant.guid, wanted, actor=ACTOR))

    def with_user(self) -> "Situation":
        """Return this situation with a user of the tenant whose name is its GUID."""
        order = NewUser(username=self.tenant.guid, password=SecretStr("correct horse battery"), role=Role.OPERATOR)

        async def create(services: Services) -> None:
            owner = await services.tenants.require_tenant(self.tenant.guid)
            await services.users.create_user(order, grantor=command_grantor(owner, ACTOR))

        self.server.call(create)
        return self

    def user_guid(self) -> str:
        """Return the GUID of the tenant's only user."""

        async def find(services: Services) -> str:
            owner = await services.tenants.require_tenant(self.tenant.guid)
            (user,) = (await services.users.list_users(tenant_id=owner.id)).items
            return user.guid

        return self.server.call(find)

    def failed_generation(self) -> str:
        """Return the GUID of a generation of the tenant with a known outcome."""

        async def claim(services: Services) -> str:
            owner = await services.tenants.require_tenant(self.tenant.guid)
            new = new_generation(owner.id, status=GenerationStatus.FAILED)
            await services.database.write(lambda data: data.generations.claim(new))
            return new.guid

        return self.server.call(claim)

    def send(self, method: str, path: str, *scopes: Scope, **request: Any) -> httpx2.Response:  # noqa: ANN401  (the client's arguments)
        """Send a request with another key of the tenant, with these scopes or all."""
        return self.send_with(self.issue(*scopes), method, path, **request)

    def send_with(self, issued: IssuedApiKey, method: str, path: str, **request: Any) -> httpx2.Response:  # noqa: ANN401  (the client's arguments)
        """Send a request with this key."""
        with self.server.client(issued.api_key.get_secret_value()) as client:
            return client.request(method, path, **request)

    def post_with(self, issued: IssuedApiKey) -> httpx2.Response:
        """POST to /image with this key."""
        return self.post_as(_bearer(issued.api_key.get_secret_value()))

    def post_after(self, *, order: dict[str, str] | None = None, **change: object) -> httpx2.Response:
        """POST to /image while the tenant has this change."""
        self.change_tenant(**change)
        try:
            return self.post(json={"prompt": "a fox", **(order or {})})
        finally:
            self.change_tenant(status="active", monthly_budget_usd=None, allowed_models=None)

    def post(self, **request: Any) -> httpx2.Response:  # noqa: ANN401  (the client's arguments)
        """POST to /image with the tenant's key unless the headers have another."""
        return self.tenant.http.post("/image", **request)

    def post_as(self, headers: dict[str, str]) -> httpx2.Response:
        """POST to /image with only these credentials."""
        with self.server.client() as client:
            return client.post("/image", json={"prompt": "a fox"}, headers=headers)

    def get_anonymously(self, path: str) -> httpx2.Response:
        """Send a GET without credentials."""
        with self.server.client() as client:
            return client.get(path)

    def post_text(self, body: str | bytes, **headers: str) -> httpx2.Response:
        """POST exactly this body to /image as JSON."""
        content = body if isinstance(body, bytes) else body.encode()
        return self.post(content=content, headers=JSON | headers)

    def raw(self, method: str, target: str) -> httpx2.Response:
        """Send a request with exactly this target and the tenant's key."""
        headers = {"Authorization": f"Bearer {self.tenant.api_key}"}
        return exchange(self.server.url, request_bytes(method, target, headers=headers))


@dataclass(frozen=True)
class Case:
    """One row of the table, and the required response headers."""

    name: str
    send: Callable[[Situation], httpx2.Response]
    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Return the name of the parametrized test."""
        return self.name.replace(" ", "-")


def chunked(size: int) -> Iterator[bytes]:
    """Yield a body of JSON white space without Content-Length."""
    for _ in range(-(-size // len(CHUNK))):
        yield CHUNK


def mistyped(api_key: str) -> str:
    """Return a key with one wrong character in its secret."""
    return api_key[:30] + ("A" if api_key[30] != "A" else "B") + api_key[31:]


CHALLENGE = (("www-authenticate", 'Bearer realm="pixyproxy"'),)
INVALID_TOKEN = (("www-authenticate", 'Bearer realm="pixyproxy", error="invalid_token"'),)


def _bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


CREDENTIALS = [
    Case("no key", lambda s: s.post_as({}), 401, "credential_missing", CHALLENGE),
    Case("a key that was never issued", lambda s: s.post_as(_bearer(forged_key(key_id="A" * 12, secret="B" * 43))), 401,
         "credential_invalid", INVALID_TOKEN),
    Case("a known key id, another secret", lambda s: s.post_as(_bearer(
        forged_key(key_id=key_id_of(s.tenant.api_key), secret="B" * 43))), 401, "credential_invalid", INVALID_TOKEN),
    Case(
        "mistyped key", lambda s: s.post_as(_bearer(mistyped(s.tenant.api_key))), 401, "credential_invalid",
        INVALID_TOKEN,
    ),
    Case("malformed key", lambda s: s.post_as(_bearer("pxy_nonsense")), 401, "credential_invalid", INVALID_TOKEN),
    Case("Bearer without a key", lambda s: s.post_as({"Authorization": "Bearer"}), 401, "credential_invalid"),
    Case("empty Authorization", lambda s: s.post_as({"Authorization": ""}), 401, "credential_invalid"),
    Case("empty X-API-Key", lambda s: s.post_as({"X-API-Key": ""}), 401, "credential_invalid"),
    Case("wrong X-API-Key", lambda s: s.post_as({"X-API-Key": "pxy_x"}), 401, "credential_invalid"),
    Case(
        "valid key in Basic auth", lambda s: s.post_as({"Authorization": f"Basic {s.tenant.api_key}"}), 401,
        "credential_missing", CHALLENGE,
    ),
    Case(
        "valid key in an unknown scheme", lambda s: s.post_as({"Authorization": f"Token {s.tenant.api_key}"}),
        401, "credential_invalid", INVALID_TOKEN,
    ),
    Case("a key of 9 KB", lambda s: s.post_as(_bearer("pxy_" + "A" * 9_000)), 401, "credential_invalid"),
    Case("a key of 60 KB", lambda s: s.post_as(_bearer("pxy_" + "A" * 60_000)), 431, "headers_too_large"),
    Case("revoked key", lambda s: s.post_with(s.revoked()), 401, "credential_invalid", INVALID_TOKEN),
    Case("expired key", lambda s: s.post_with(s.expired()), 401, "credential_invalid", INVALID_TOKEN),
]  # fmt: skip

INVALID = (422, "invalid_request")
MALFORMED = (400, "malformed_json")
UNREADABLE = (400, "malformed_body")

BODIES = [
    Case("empty prompt", lambda s: s.post(json={"prompt": ""}), *INVALID),
    Case("blank prompt", lambda s: s.post(json={"prompt": " \t\n\u3000"}), *INVALID),
    Case("no prompt", lambda s: s.post(json={}), *INVALID),
    Case("prompt null", lambda s: s.post(json={"prompt": None}), *INVALID),
    Case("prompt a number", lambda s: s.post(json={"prompt": 5}), *INVALID),
    Case("prompt of 32,001 characters", lambda s: s.post(json={"prompt": "a" * 32_001}), *INVALID),
    Case("unknown field", lambda s: s.post(json={"prompt": "a", "steps": 5}), *INVALID),
    Case("NaN", lambda s: s.post_text('{"prompt": "a", "output_compression": NaN}'), *INVALID),
    Case("Infinity", lambda s: s.post_text('{"prompt": "a", "output_compression": Infinity}'), *INVALID),
    Case("lone surrogate", lambda s: s.post_text(r'{"prompt": "a \ud800 b"}'), *INVALID),
    Case("lone surrogate in a field's name", lambda s: s.post_text(r'{"prompt": "a", "\udfff": 1}'), *INVALID),
    Case("size 0x0", lambda s: s.post(json={"prompt": "a", "size": "0x0"}), *INVALID),
    Case("SVG requested", lambda s: s.post(json={"prompt": "a", "output_format": "svg"}), *INVALID),
    Case("compression 101", lambda s: s.post(json={"prompt": "a", "output_compression": 101}), *INVALID),
    Case("malformed JSON", lambda s: s.post_text('{"prompt": "a"'), *MALFORMED),
    Case("JSON with a trailing comma", lambda s: s.post_text('{"prompt": "a",}'), *MALFORMED),
    Case("a list", lambda s: s.post_text('["a"]'), *INVALID),
    Case("null", lambda s: s.post_text("null"), *INVALID),
    Case("not UTF-8", lambda s: s.post_text(b'{"prompt": "\xff\xfe"}'), *UNREADABLE),
    Case("UTF-16", lambda s: s.post_text('{"prompt": "a"'.encode("utf-16")), *MALFORMED),
    Case("100,000 opening brackets", lambda s: s.post_text("[" * 100_000), *UNREADABLE),
    Case("a 5,000-digit number", lambda s: s.post_text('{"prompt": "a", "n": ' + "9" * 5_000 + "}"), *UNREADABLE),
    Case("a number of 400,000 digits", lambda s: s.post_text("9" * 400_000), *UNREADABLE),
    Case("wrong content type", lambda s: s.post(content=b'{"prompt": "a"}', headers={"Content-Type": "text/plain"}),
         *INVALID),
    Case("a form", lambda s: s.post(data={"prompt": "a"}), *INVALID),
    Case("no content type", lambda s: s.post(content=b'{"prompt": "a"}'), *INVALID),
    Case("no body", lambda s: s.post(), *INVALID),
    Case("an empty body", lambda s: s.post_text(""), *INVALID),
    Case("20 MB with Content-Length", lambda s: s.post_text(b" " * TWENTY_MEGABYTES), 413, "body_too_large"),
    Case("20 MB chunked", lambda s: s.post(content=chunked(TWENTY_MEGABYTES), headers=JSON), 413, "body_too_large"),
    Case("Idempotency-Key of 256 characters", lambda s: s.post_text('{"prompt": "a"}', **{KEY: "a" * 256}),
         *INVALID),
    Case("Idempotency-Key with a space", lambda s: s.post_text('{"prompt": "a"}', **{KEY: "a b"}),
         *INVALID),
    Case("empty Idempotency-Key", lambda s: s.post_text('{"prompt": "a"}', **{KEY: ""}), *INVALID),
]  # fmt: skip

NO_IMAGE = (404, "image_not_found")
NO_ROUTE = (404, "route_not_found")
NOT_ALLOWED = (405, "method_not_allowed")

PATHS = [
    Case("unknown GUID", lambda s: s.raw("GET", f"/image/{ABSENT_GUID}"), *NO_IMAGE),
    Case("content of an unknown GUID", lambda s: s.raw("GET", f"/image/{ABSENT_GUID}/content"), *NO_IMAGE),
    Case("PATCH of an unknown GUID", lambda s: s.tenant.http.patch(f"/image/{ABSENT_GUID}", json={}), *NO_IMAGE),
    Case("DELETE of an unknown GUID", lambda s: s.raw("DELETE", f"/image/{ABSENT_GUID}"), *NO_IMAGE),
    Case("a number for a GUID", lambda s: s.raw("GET", "/image/1"), *NO_IMAGE),
    Case("GUID in braces", lambda s: s.raw("GET", f"/image/%7B{ABSENT_GUID}%7D"), *NO_IMAGE),
    Case("GUID and a line end", lambda s: s.raw("GET", f"/image/{ABSENT_GUID}%0A"), *NO_IMAGE),
    Case("GUID with NUL", lambda s: s.raw("GET", f"/image/{ABSENT_GUID}%00"), *NO_IMAGE),
    Case("GUID of full-width digits", lambda s: s.raw("GET", "/image/" + "%EF%BC%90" * 36), *NO_IMAGE),
    Case("a GUID of 20,000 characters", lambda s: s.raw("GET", "/image/" + "a" * 20_000), *NO_IMAGE),
    Case("GUID that is not UTF-8", lambda s: s.raw("GET", "/image/%FF%FE"), *NO_IMAGE),
    Case("/image/..", lambda s: s.raw("GET", "/image/.."), *NO_IMAGE),
    Case("/image/../../etc/passwd", lambda s: s.raw("GET", "/image/../../etc/passwd"), *NO_ROUTE),
    Case("/image/%2e%2e%2fsecret_key", lambda s: s.raw("GET", "/image/%2e%2e%2fsecret_key"), *NO_ROUTE),
    Case("/image/%2e%2e%2f…/content", lambda s: s.raw("GET", "/image/%2e%2e%2fvar%2fx/content"), *NO_ROUTE),
    Case("/image/..%5c/content", lambda s: s.raw("GET", "/image/..%5c..%5cvar/content"), *NO_IMAGE),
    Case("/static/../../router.py", lambda s: s.raw("GET", "/static/../../router.py"), *NO_ROUTE),
    Case("/static/..%2frouter.py", lambda s: s.raw("GET", "/static/..%2frouter.py"), *NO_ROUTE),
    Case("/static/router.py", lambda s: s.raw("GET", "/static/router.py"), *NO_ROUTE),
    Case("unknown path", lambda s: s.raw("GET", "/nowhere"), *NO_ROUTE),
    Case("a slash at the end", lambda s: s.raw("GET", "/image/"), *NO_ROUTE),
    Case("two slashes", lambda s: s.raw("GET", "//image"), *NO_ROUTE),
    Case("PUT /image", lambda s: s.raw("PUT", "/image"), *NOT_ALLOWED, (("allow", "GET, HEAD, POST"),)),
    Case("DELETE /image", lambda s: s.raw("DELETE", "/image"), *NOT_ALLOWED, (("allow", "GET, HEAD, POST"),)),
    Case("POST /image/{guid}", lambda s: s.raw("POST", f"/image/{ABSENT_GUID}"), *NOT_ALLOWED,
         (("allow", IMAGE_METHODS),)),
    Case("PUT /image/{guid}/content", lambda s: s.raw("PUT", f"/image/{ABSENT_GUID}/content"), *NOT_ALLOWED,
         (("allow", CONTENT_METHODS),)),
    Case("POST /healthz", lambda s: s.raw("POST", "/healthz"), *NOT_ALLOWED, (("allow", "GET, HEAD"),)),
    Case("TRACE /image", lambda s: s.raw("TRACE", "/image"), *NOT_ALLOWED, (("allow", "GET, HEAD, POST"),)),
    Case("an invented method", lambda s: s.raw("BREW", "/image"), *NOT_ALLOWED, (("allow", "GET, HEAD, POST"),)),
]  # fmt: skip

FORBIDDEN = (403, "scope_missing")
TOO_MUCH = (422, "grant_exceeds_caller")
NO_KEY = (404, "api_key_not_found")
NO_USER = (404, "user_not_found")
NO_TENANT = (404, "tenant_not_found")
NO_GENERATION = (404, "generation_not_found")
LACKS_SCOPE = 'Bearer realm="pixyproxy", error="insufficient_scope", scope="{}"'
KEY_MANAGE, USER_MANAGE = Scope.KEY_MANAGE, Scope.USER_MANAGE
NEW_USER = {"username": "carl", "password": "correct horse battery"}

TENANCY = [
    Case("suspended tenant", lambda s: s.post_after(status="suspended"), 403, "tenant_suspended"),
    Case("model not allowed for the key", lambda s: s.post_with(s.issue(allowed_models=["another"])), 403,
         "model_not_allowed"),
    Case("model not allowed for the tenant", lambda s: s.post_after(allowed_models=["another"]), 403,
         "model_not_allowed"),
    Case("a budget and no price", lambda s: s.post_after(order={"model": "unpriced"}, monthly_budget_usd=10), 402,
         "budget_unpriced"),
    Case("a budget that is too small", lambda s: s.post_after(monthly_budget_usd=0.000001), 402, "budget_exceeded"),
    Case("a budget of zero", lambda s: s.post_after(monthly_budget_usd=0), 402, "budget_exceeded"),
    Case("usage without the scope", lambda s: s.send("GET", "/usage", Scope.IMAGE_READ), *FORBIDDEN,
         (("www-authenticate", LACKS_SCOPE.format("usage:read")),)),
    Case("usage since an invalid date", lambda s: s.send("GET", "/usage?since=yesterday"), *INVALID),
    Case("/me without a key", lambda s: s.get_anonymously("/me"), 401, "credential_missing", CHALLENGE),
]  # fmt: skip

KEYS = [
    Case("keys without the scope", lambda s: s.send("GET", "/key", USER_MANAGE), *FORBIDDEN,
         (("www-authenticate", LACKS_SCOPE.format("key:manage")),)),
    Case("a key with more scopes than its creator", lambda s: s.send(
        "POST", "/key", KEY_MANAGE, json={"name": "k", "scopes": ["key:manage", "admin"]}), *TOO_MUCH),
    Case("default scopes that the creator lacks", lambda s: s.send("POST", "/key", KEY_MANAGE, json={"name": "k"}),
         *TOO_MUCH),
    Case("a key without a name", lambda s: s.send("POST", "/key", json={}), *INVALID),
    Case("a key without scopes", lambda s: s.send("POST", "/key", json={"name": "k", "scopes": []}), *INVALID),
    Case("a key of an unknown scope", lambda s: s.send("POST", "/key", json={"name": "k", "scopes": ["all"]}),
         *INVALID),
    Case("a key with a line end in its name", lambda s: s.send("POST", "/key", json={"name": "a\nb"}), *INVALID),
    Case("a key that expires in the past", lambda s: s.send(
        "POST", "/key", json={"name": "k", "expires_at": "2026-01-01T00:00:00Z"}), *INVALID),
    Case("a key that expires without a zone", lambda s: s.send(
        "POST", "/key", json={"name": "k", "expires_at": "2099-01-01T00:00:00"}), *INVALID),
    Case("a key that expires beyond the calendar", lambda s: s.send(
        "POST", "/key", json={"name": "k", "expires_at": "9999-12-31T23:59:59-14:00"}), *INVALID),
    Case("DELETE of an unknown key", lambda s: s.send("DELETE", f"/key/{ABSENT_GUID}"), *NO_KEY),
    Case("DELETE of a key by its key id", lambda s: s.send("DELETE", f"/key/{key_id_of(s.tenant.api_key)}"), *NO_KEY),
    Case("rotation of an unknown key", lambda s: s.send("POST", f"/key/{ABSENT_GUID}/rotate"), *NO_KEY),
    Case("rotation of a revoked key", lambda s: s.send("POST", f"/key/{s.revoked().detail.guid}/rotate"), 409,
         "api_key_revoked"),
    Case("rotation of an expired key", lambda s: s.send("POST", f"/key/{s.expired().detail.guid}/rotate"), 409,
         "api_key_revoked"),
    Case("rotation of a key with more scopes", lambda s: s.send(
        "POST", f"/key/{s.issue().detail.guid}/rotate", KEY_MANAGE), *FORBIDDEN),
    Case("DELETE of a key with more scopes", lambda s: s.send("DELETE", f"/key/{s.issue().detail.guid}", KEY_MANAGE),
         *FORBIDDEN),
    Case("a grace of a year", lambda s: s.send(
        "POST", f"/key/{s.issue().detail.guid}/rotate", json={"grace_seconds": 31_536_000}), *INVALID),
]  # fmt: skip

USERS = [
    Case("users without the scope", lambda s: s.send("GET", "/user", KEY_MANAGE), *FORBIDDEN,
         (("www-authenticate", LACKS_SCOPE.format("user:manage")),)),
    Case("a role above the creator's", lambda s: s.send("POST", "/user", USER_MANAGE, json=NEW_USER), *TOO_MUCH),
    Case("an unknown role", lambda s: s.send("POST", "/user", json=NEW_USER | {"role": "root"}), *INVALID),
    Case("a password of 11 characters", lambda s: s.send("POST", "/user", json=NEW_USER | {"password": "x" * 11}),
         *INVALID),
    Case("a password of lone surrogates", lambda s: s.send(
        "POST", "/user", content=b'{"username": "carl", "password": "%s"}' % (rb"\ud800" * 12), headers=JSON),
         *INVALID),
    Case("a user name with a space", lambda s: s.send("POST", "/user", json=NEW_USER | {"username": "a b"}), *INVALID),
    Case("a user name that is taken", lambda s: s.with_user().send(
        "POST", "/user", json=NEW_USER | {"username": s.tenant.guid.upper()}), 409, "user_exists"),
    Case("PATCH of an unknown user", lambda s: s.send("PATCH", f"/user/{ABSENT_GUID}", json={}), *NO_USER),
    Case("PATCH of a user with more permissions", lambda s: s.with_user().send(
        "PATCH", f"/user/{s.user_guid()}", USER_MANAGE, json={"password": "another long password"}), *FORBIDDEN),
    Case("DELETE of an unknown user", lambda s: s.send("DELETE", f"/user/{ABSENT_GUID}"), *NO_USER),
    Case("DELETE of a user by name", lambda s: s.send("DELETE", "/user/carl"), *NO_USER),
    Case("DELETE of a user with more permissions", lambda s: s.with_user().send(
        "DELETE", f"/user/{s.user_guid()}", USER_MANAGE), *FORBIDDEN),
]  # fmt: skip

ADMINISTRATION = [
    Case("tenants without the operator scope", lambda s: s.send("GET", "/admin/tenant", *(set(Scope) - {Scope.ADMIN})),
         *FORBIDDEN, (("www-authenticate", LACKS_SCOPE.format("admin")),)),
    Case("the audit log without the operator scope", lambda s: s.send("GET", "/admin/audit", KEY_MANAGE), *FORBIDDEN),
    Case("GET of an unknown tenant", lambda s: s.send("GET", f"/admin/tenant/{ABSENT_GUID}"), *NO_TENANT),
    Case("PATCH of an unknown tenant", lambda s: s.send("PATCH", f"/admin/tenant/{ABSENT_GUID}", json={}), *NO_TENANT),
    Case("DELETE of an unknown tenant", lambda s: s.send("DELETE", f"/admin/tenant/{ABSENT_GUID}"), *NO_TENANT),
    Case("a tenant without a name", lambda s: s.send("POST", "/admin/tenant", json={}), *INVALID),
    Case("a tenant that is being deleted", lambda s: s.send(
        "POST", "/admin/tenant", json={"name": "a", "status": "deleting"}), *INVALID),
    Case("a negative budget", lambda s: s.send(
        "POST", "/admin/tenant", json={"name": "a", "monthly_budget_usd": -1}), *INVALID),
    Case("a budget with too many decimals", lambda s: s.send(
        "POST", "/admin/tenant", json={"name": "a", "monthly_budget_usd": "0.0000001"}), *INVALID),
    Case("a tenant's name that is taken", lambda s: s.send(
        "POST", "/admin/tenant", json={"name": s.send("GET", f"/admin/tenant/{s.tenant.guid}").json()["name"]}), 409,
         "tenant_exists"),
    Case("suspending one's own tenant", lambda s: s.send(
        "PATCH", f"/admin/tenant/{s.tenant.guid}", json={"status": "suspended"}), 409, "tenant_own"),
    Case("deleting one's own tenant", lambda s: s.send("DELETE", f"/admin/tenant/{s.tenant.guid}"), 409, "tenant_own"),
    Case("a token for an unknown tenant", lambda s: s.send("POST", "/admin/token", json={"tenant": ABSENT_GUID}),
         *NO_TENANT),
    Case("a token of an unknown scope", lambda s: s.send(
        "POST", "/admin/token", json={"tenant": s.tenant.guid, "scope": "all"}), *INVALID),
    Case("a token that lives too long", lambda s: s.send(
        "POST", "/admin/token", json={"tenant": s.tenant.guid, "expires_in": 86_401}), *INVALID),
    Case("an invalid cursor of the audit log", lambda s: s.send("GET", "/admin/audit?cursor=x"), 400,
         "invalid_cursor"),
    Case("the audit log since an invalid time", lambda s: s.send("GET", "/admin/audit?since=yesterday"), *INVALID),
    Case("generations without a status", lambda s: s.send("GET", "/admin/generation"), *INVALID),
    Case("resolving an unknown generation", lambda s: s.send(
        "POST", f"/admin/generation/{ABSENT_GUID}/resolve", json={"bought": True}), *NO_GENERATION),
    Case("resolving an invalid GUID", lambda s: s.send("POST", "/admin/generation/1/resolve", json={"bought": True}),
         *NO_GENERATION),
    Case("resolving a known outcome", lambda s: s.send(
        "POST", f"/admin/generation/{s.failed_generation()}/resolve", json={"bought": True}), 409,
         "generation_resolved"),
    Case("an empty resolution", lambda s: s.send(
        "POST", f"/admin/generation/{ABSENT_GUID}/resolve", json={}), *INVALID),
]  # fmt: skip

HOOK = {"url": "https://93.184.216.34/"}
"""An IP address, which avoids name lookups."""
NO_WEBHOOK = (404, "webhook_not_found")

GENERATIONS = [
    Case("generations without the scope", lambda s: s.send("GET", "/generation", KEY_MANAGE), *FORBIDDEN,
         (("www-authenticate", LACKS_SCOPE.format("image:read")),)),
    Case("an order without a prompt", lambda s: s.send("POST", "/generation", json={"n": 2}), *INVALID),
    Case("no pictures", lambda s: s.send("POST", "/generation", json={"prompt": "a", "n": 0}), *INVALID),
    Case("11 pictures", lambda s: s.send("POST", "/generation", json={"prompt": "a", "n": 11}), *INVALID),
    Case("a text for n", lambda s: s.send("POST", "/generation", json={"prompt": "a", "n": "2"}), *INVALID),
    Case("4 previews", lambda s: s.send("POST", "/generation", json={"prompt": "a", "partial_images": 4}), *INVALID),
    Case("n in POST /image", lambda s: s.post(json={"prompt": "a", "n": 2}), *INVALID),
    Case("an unknown status", lambda s: s.send("GET", "/generation?status=lost"), *INVALID),
    Case("a page of 101 generations", lambda s: s.send("GET", "/generation?limit=101"), *INVALID),
    Case("an invalid cursor of generations", lambda s: s.send("GET", "/generation?cursor=x"), 400,
         "invalid_cursor"),
    Case("an unknown generation", lambda s: s.send("GET", f"/generation/{ABSENT_GUID}"), *NO_GENERATION),
    Case("a number for a generation", lambda s: s.send("GET", "/generation/1"), *NO_GENERATION),
    Case("events of an unknown generation", lambda s: s.send("GET", f"/generation/{ABSENT_GUID}/events"),
         *NO_GENERATION),
    Case("waiting for an unknown generation", lambda s: s.send(
        "GET", f"/generation/{ABSENT_GUID}", headers={"Prefer": "wait=5"}), *NO_GENERATION),
    Case("PUT /generation/{guid}", lambda s: s.raw("PUT", f"/generation/{ABSENT_GUID}"), *NOT_ALLOWED,
         (("allow", "DELETE, GET, HEAD"),)),
    Case("DELETE of an unknown generation", lambda s: s.send("DELETE", f"/generation/{ABSENT_GUID}"), *NO_GENERATION),
    Case("DELETE of a number for a generation", lambda s: s.send("DELETE", "/generation/1"), *NO_GENERATION),
]  # fmt: skip

WEBHOOKS = [
    Case("webhooks without the scope", lambda s: s.send("GET", "/webhook", USER_MANAGE), *FORBIDDEN,
         (("www-authenticate", LACKS_SCOPE.format("key:manage")),)),
    Case("a webhook without a URL", lambda s: s.send("POST", "/webhook", json={}), *INVALID),
    Case("a webhook of an unknown event", lambda s: s.send("POST", "/webhook", json=HOOK | {"events": ["all"]}),
         *INVALID),
    Case("a webhook to this machine", lambda s: s.send("POST", "/webhook", json={"url": "https://127.0.0.1/"}), 422,
         "webhook_target_refused"),
    Case("a webhook by http", lambda s: s.send("POST", "/webhook", json={"url": "http://93.184.216.34/"}), 422,
         "webhook_target_refused"),
    Case("rotation of an unknown webhook", lambda s: s.send("POST", f"/webhook/{ABSENT_GUID}/rotate"), *NO_WEBHOOK),
    Case("deliveries to an unknown webhook", lambda s: s.send("GET", f"/webhook/{ABSENT_GUID}/delivery"), *NO_WEBHOOK),
    Case("DELETE of an unknown webhook", lambda s: s.send("DELETE", f"/webhook/{ABSENT_GUID}"), *NO_WEBHOOK),
    Case("DELETE of an invalid webhook GUID", lambda s: s.send("DELETE", "/webhook/1"), *NO_WEBHOOK),
]  # fmt: skip

CASES = [*CREDENTIALS, *BODIES, *PATHS, *TENANCY, *KEYS, *USERS, *ADMINISTRATION, *GENERATIONS, *WEBHOOKS]

GENERATIONS_PATH, EDITS_PATH = "/v1/images/generations", "/v1/images/edits"
NO_PICTURE_FILE = {"image": ("a.png", b"no picture", "image/png")}

OPENAI_CASES = [
    Case("/v1 without a key", lambda s: s.get_anonymously("/v1/models"), 401, "credential_missing"),
    Case("/v1 without the scope", lambda s: s.send("POST", GENERATIONS_PATH, KEY_MANAGE, json={"prompt": "a"}),
         *FORBIDDEN),
    Case("/v1 without a prompt", lambda s: s.send("POST", GENERATIONS_PATH, json={}), 400, "invalid_request"),
    Case("/v1 with malformed JSON", lambda s: s.send("POST", GENERATIONS_PATH, content=b"{", headers=JSON), *MALFORMED),
    Case("/v1 with n=11", lambda s: s.send("POST", GENERATIONS_PATH, json={"prompt": "a", "n": 11}), 400,
         "invalid_request"),
    Case("/v1 with 20 MB", lambda s: s.send("POST", GENERATIONS_PATH, content=b" " * TWENTY_MEGABYTES, headers=JSON),
         413, "body_too_large"),
    Case("/v1 with a model not allowed for the key", lambda s: s.send_with(
        s.issue(allowed_models=["another"]), "POST", GENERATIONS_PATH, json={"prompt": "a"}), 403,
         "model_not_allowed"),
    Case("an edit without a picture", lambda s: s.send("POST", EDITS_PATH, data={"prompt": "a"}), 400,
         "invalid_request"),
    Case("an edit of an invalid picture", lambda s: s.send(
        "POST", EDITS_PATH, data={"prompt": "a"}, files=NO_PICTURE_FILE), 400, "invalid_input_picture"),
    Case("an edit of an unknown image", lambda s: s.send(
        "POST", EDITS_PATH, data={"prompt": "a", "image_guid": ABSENT_GUID}), 400, "invalid_input_picture"),
    Case("an unknown path under /v1", lambda s: s.raw("GET", "/v1/nothing"), *NO_ROUTE),
    Case("GET of /v1/images/generations", lambda s: s.raw("GET", GENERATIONS_PATH), *NOT_ALLOWED,
         (("allow", "POST"),)),
]  # fmt: skip


def markdown() -> str:
    """Return the table as the tests verify it."""
    rows: list[tuple[str, int, str]] = [(case.name, case.status, case.code) for case in CASES + OPENAI_CASES]
    rows += [(f"upstream: {fault.name}", fault.status, fault.code) for fault in FAULTS]
    lines = [f"| {name.replace('|', chr(92) + '|')} | {status} | {code} |" for name, status, code in rows]
    return "\n".join(["| input | status | code |", "|---|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
