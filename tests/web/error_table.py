"""The table of errors: what is sent, and the status and code that it gets.

``python -m tests.web.error_table`` prints it.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.support.api_keys import forged_key, key_id_of
from tests.support.raw_http import exchange, request_bytes
from tests.support.server import RunningServer, TenantClient
from tests.web.builders import ABSENT_GUID
from tests.web.upstream_faults import FAULTS

KEY = "Idempotency-Key"
CHUNK = b" " * 65_536
TWENTY_MEGABYTES = 20_000_000
JSON = {"Content-Type": "application/json"}
CONTENT_METHODS = "GET, HEAD"
IMAGE_METHODS = "DELETE, GET, PATCH"


@dataclass(frozen=True)
class Situation:
    """A server, a tenant of one's own, and two more keys of it that are of no use any more."""

    server: RunningServer
    tenant: TenantClient
    revoked_key: str
    expired_key: str

    def post(self, **request: Any) -> httpx2.Response:  # noqa: ANN401  (whatever the client takes)
        """POST /image with the tenant's key unless the headers have another."""
        return self.tenant.http.post("/image", **request)

    def post_as(self, headers: dict[str, str]) -> httpx2.Response:
        """POST /image with these credentials and no others."""
        with self.server.client() as client:
            return client.post("/image", json={"prompt": "a fox"}, headers=headers)

    def post_text(self, text: str | bytes, **headers: str) -> httpx2.Response:
        """POST /image with this very body, said to be JSON."""
        content = text if isinstance(text, bytes) else text.encode()
        return self.post(content=content, headers=JSON | headers)

    def raw(self, method: str, target: str) -> httpx2.Response:
        """A request whose target no client tidies up, with the tenant's key."""
        headers = {"Authorization": f"Bearer {self.tenant.api_key}"}
        return exchange(self.server.url, request_bytes(method, target, headers=headers))


@dataclass(frozen=True)
class Case:
    """One row of the table, and the headers that the answer must have."""

    name: str
    send: Callable[[Situation], httpx2.Response]
    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """The name of the test that is made of it."""
        return self.name.replace(" ", "-")


def chunked(size: int) -> Iterator[bytes]:
    """A body of JSON white space that does not say how long it is."""
    for _ in range(-(-size // len(CHUNK))):
        yield CHUNK


def mistyped(api_key: str) -> str:
    """A key with one wrong character in its secret."""
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
        "good key in Basic auth", lambda s: s.post_as({"Authorization": f"Basic {s.tenant.api_key}"}), 401,
        "credential_invalid", INVALID_TOKEN,
    ),
    Case("a key of 60 KB", lambda s: s.post_as(_bearer("pxy_" + "A" * 60_000)), 401, "credential_invalid"),
    Case("revoked key", lambda s: s.post_as(_bearer(s.revoked_key)), 401, "credential_invalid", INVALID_TOKEN),
    Case("expired key", lambda s: s.post_as(_bearer(s.expired_key)), 401, "credential_invalid", INVALID_TOKEN),
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
    Case("SVG asked for", lambda s: s.post(json={"prompt": "a", "output_format": "svg"}), *INVALID),
    Case("compression 101", lambda s: s.post(json={"prompt": "a", "output_compression": 101}), *INVALID),
    Case("malformed JSON", lambda s: s.post_text('{"prompt": "a"'), *MALFORMED),
    Case("JSON with a comma too many", lambda s: s.post_text('{"prompt": "a",}'), *MALFORMED),
    Case("a list", lambda s: s.post_text('["a"]'), *INVALID),
    Case("null", lambda s: s.post_text("null"), *INVALID),
    Case("no UTF-8", lambda s: s.post_text(b'{"prompt": "\xff\xfe"}'), *UNREADABLE),
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
    Case("no UTF-8 for a GUID", lambda s: s.raw("GET", "/image/%FF%FE"), *NO_IMAGE),
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
    Case("PUT /image", lambda s: s.raw("PUT", "/image"), *NOT_ALLOWED, (("allow", "GET, POST"),)),
    Case("DELETE /image", lambda s: s.raw("DELETE", "/image"), *NOT_ALLOWED, (("allow", "GET, POST"),)),
    Case("POST /image/{guid}", lambda s: s.raw("POST", f"/image/{ABSENT_GUID}"), *NOT_ALLOWED,
         (("allow", IMAGE_METHODS),)),
    Case("PUT /image/{guid}/content", lambda s: s.raw("PUT", f"/image/{ABSENT_GUID}/content"), *NOT_ALLOWED,
         (("allow", CONTENT_METHODS),)),
    Case("POST /healthz", lambda s: s.raw("POST", "/healthz"), *NOT_ALLOWED, (("allow", "GET"),)),
    Case("TRACE /image", lambda s: s.raw("TRACE", "/image"), *NOT_ALLOWED, (("allow", "GET, POST"),)),
    Case("an invented method", lambda s: s.raw("BREW", "/image"), *NOT_ALLOWED, (("allow", "GET, POST"),)),
]  # fmt: skip

CASES = [*CREDENTIALS, *BODIES, *PATHS]


def markdown() -> str:
    """The table, as the tests prove it."""
    rows: list[tuple[str, int, str]] = [(case.name, case.status, case.code) for case in CASES]
    rows += [(f"upstream: {fault.name}", fault.status, fault.code) for fault in FAULTS]
    lines = [f"| {name.replace('|', chr(92) + '|')} | {status} | {code} |" for name, status, code in rows]
    return "\n".join(["| input | status | code |", "|---|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
