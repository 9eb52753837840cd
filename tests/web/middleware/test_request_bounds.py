"""Oversized requests cost bounded work and get a short response."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pixyproxy.core.models.principal import Scope
from tests.support.identity import bearer, make_key
from tests.support.problems import assert_problem
from tests.support.raw_http import connected, exchange, read_response, request_bytes
from tests.support.server import UNLIMITED, RunningServer, TenantClient, make_settings, serving
from tests.web.builders import ABSENT_GUID
from tests.web.envelope import assert_error
from tests.web.test_auth_matrix import ROUTES, Access

SHORT = 4_000
"""Maximum bytes of a response, whatever was sent."""
MEGABYTE = 1_000_000
JSON_TYPE, FORM_TYPE = "application/json", "application/x-www-form-urlencoded"
MEMBERS = json.dumps(dict.fromkeys(map(str, range(80_000)), 0)).encode()
MISFITS = json.dumps(["?"] * 140_000)
"""A list whose items are all invalid for every field."""

Json = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server on SQLite, which rejected requests never reach; pictures are drawn offline."""
    with serving(make_settings(tmp_path_factory.mktemp("bounds"), **UNLIMITED)) as running:
        yield running


@functools.cache
def documented() -> Json:
    """Return the stored OpenAPI document."""
    kept: Json = json.loads((Path(__file__).parents[3] / "docs" / "openapi.json").read_text())
    return kept


def routes_with(media_type: str) -> list[str]:
    """Return every route that accepts a body of this type."""
    return [
        f"{method.upper()} {path}"
        for path, operations in documented()["paths"].items()
        for method, operation in operations.items()
        if media_type in operation.get("requestBody", {}).get("content", {})
    ]


def lists() -> Iterator[tuple[str, str]]:
    """Yield every route and the name of each list in its body."""
    kept = documented()
    for route in routes_with(JSON_TYPE):
        method, path = route.split()
        schema = kept["paths"][path][method.lower()]["requestBody"]["content"][JSON_TYPE]["schema"]
        reference = schema.get("$ref") or schema["anyOf"][0]["$ref"]
        properties = kept["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
        yield from ((route, name) for name, each in properties.items() if '"array"' in json.dumps(each))


def send(client: httpx2.Client, route: str, content: bytes, media_type: str = JSON_TYPE) -> httpx2.Response:
    """Send a body and return the response."""
    method, path = route.replace("{guid}", ABSENT_GUID).split()
    return client.request(method, path, content=content, headers={"Content-Type": media_type})


def assert_refused_shortly(answer: httpx2.Response) -> None:
    """Assert that the response describes the error in the format of its path, with at most 20 errors."""
    assert len(answer.content) < SHORT
    path = answer.request.url.path
    error = assert_error(answer, 400 if path.startswith("/v1/") else 422, "invalid_request", path=path)
    assert len(error.get("errors", [])) <= 20


def test_route_and_list_walks_are_complete() -> None:
    assert len(routes_with(JSON_TYPE)) >= 13
    assert {name for _, name in lists()} == {"scopes", "events", "allowed_models"}


@pytest.mark.parametrize("route", routes_with(JSON_TYPE))
def test_body_with_too_many_members_is_rejected(route: str, owner: TenantClient) -> None:
    assert_refused_shortly(send(owner.http, route, MEMBERS))


@pytest.mark.parametrize(("route", "name"), list(lists()))
def test_list_with_too_many_or_invalid_items_gets_short_error(route: str, name: str, owner: TenantClient) -> None:
    assert_refused_shortly(send(owner.http, route, b'{"%b": %b}' % (name.encode(), MISFITS.encode())))
    some = json.dumps({name: [f"? {number}" for number in range(1_000)]}).encode()
    assert_refused_shortly(send(owner.http, route, some))


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"prompt": [[0] * 1_000] * 20}),
        json.dumps({"prompt": {"deep": [dict.fromkeys(map(str, range(101)))]}}),
        json.dumps([{"prompt": "a"}] * 1_001),
        MISFITS,
    ],
    ids=["values", "members of a member", "bodies", "items"],
)
@pytest.mark.parametrize("route", ["POST /image", "POST /v1/images/generations"])
def test_nested_values_are_counted(route: str, body: str, owner: TenantClient) -> None:
    assert_refused_shortly(send(owner.http, route, body.encode()))


def test_body_of_only_brackets_is_not_parsed(owner: TenantClient) -> None:
    answer = send(owner.http, "POST /image", b"[" + b"[]," * 300_000 + b"[]]")
    assert_problem(answer, 400, "malformed_body")


def test_at_most_20_errors_are_listed(owner: TenantClient) -> None:
    body = json.dumps({"prompt": "a", **dict.fromkeys(map(str, range(90)), 0)}).encode()
    assert len(send(owner.http, "POST /image", body).json()["errors"]) == 20


def test_reasonable_number_of_unknown_parameters_is_passed_on(owner: TenantClient) -> None:
    body = json.dumps({"prompt": "a", "points": [1] * 1_000, **dict.fromkeys(map(str, range(90)), 0)}).encode()
    assert send(owner.http, "POST /v1/images/generations", body).status_code == 200


PART = b'--x\r\nContent-Disposition: form-data; name="a"%b\r\n\r\nb\r\n'
PARTS_TYPE = "multipart/form-data; boundary=x"
FORMS = {
    "fields": (FORM_TYPE, b"a&" * (MEGABYTE // 2)),
    "a long field": (FORM_TYPE, b"grant_type=" + b"a" * (MEGABYTE - 11)),
    "a file": (PARTS_TYPE, PART % b'; filename="c"' + b"--x--\r\n"),
    "parts": (PARTS_TYPE, PART % b"" * 10_000 + b"--x--\r\n"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("route", routes_with(FORM_TYPE))
def test_form_with_too_many_fields_or_files_is_rejected(
    route: str, form: tuple[str, bytes], server: RunningServer
) -> None:
    media_type, content = form
    with server.client() as anonymous:
        answer = send(anonymous, route, content, media_type)
    assert answer.status_code == 400
    assert len(answer.content) < SHORT
    assert answer.json()["error"] == "invalid_request"


@pytest.mark.parametrize(
    "query",
    ["&".join(f"a{number}=1" for number in range(13_000)), "&" * 100, "prompt=" + "a" * 8_192],
    ids=["13,000 parameters", "101 empty ones", "a long one"],
)
@pytest.mark.parametrize("path", ["/image", "/generation", "/v1/models", "/admin/audit", "/healthz", "/nowhere"])
def test_oversized_query_string_is_rejected(path: str, query: str, server: RunningServer) -> None:
    answer = exchange(server.url, request_bytes("GET", f"{path}?{query}"))
    assert len(answer.content) < SHORT
    assert_error(answer, 414, "query_too_long", path=path)


@pytest.mark.parametrize(
    "headers",
    [
        {f"X-{number}": "a" for number in range(100)},
        {"Accept": "," * 10_001},
        {"Authorization": "Bearer " + "a" * 10_000},
    ],
    ids=["101 headers", "a long Accept", "a long credential"],
)
def test_oversized_headers_are_rejected(headers: dict[str, str], server: RunningServer) -> None:
    assert_problem(exchange(server.url, request_bytes("GET", "/image", headers=headers)), 431, "headers_too_large")


PRIVATE = [
    route
    for route in [*routes_with(JSON_TYPE), *routes_with("multipart/form-data")]
    if ROUTES[route] is not Access.CLIENT
]


def announce(server: RunningServer, route: str, headers: dict[str, str]) -> httpx2.Response:
    """Announce a body of a megabyte, send none of it, and return the response."""
    method, path = route.replace("{guid}", ABSENT_GUID).split()
    lines = {"Content-Type": JSON_TYPE, "Content-Length": str(MEGABYTE), **headers}
    with connected(server.url) as connection:
        connection.sendall(request_bytes(method, path, headers=lines))
        return read_response(connection)


@pytest.mark.parametrize("route", PRIVATE)
def test_body_of_anonymous_request_is_not_read(route: str, server: RunningServer) -> None:
    answer = announce(server, route, {})
    assert answer.status_code == 401
    assert "credential_missing" in answer.text
    assert '"read";' in answer.headers["ratelimit"]


@pytest.mark.parametrize("route", PRIVATE)
def test_body_of_request_without_scope_is_not_read(route: str, server: RunningServer, owner: TenantClient) -> None:
    (other, *_) = set(Scope) - {ROUTES[route]}
    key = make_key(owner.http, other)["api_key"]
    assert announce(server, route, bearer(key)).status_code == 403


def test_body_of_rate_limited_request_is_not_read_and_malformed_requests_count(
    tmp_path: Path,
) -> None:
    limits = UNLIMITED | {"images_per_minute": 2, "sign_ins_per_minute": 1}
    with serving(make_settings(tmp_path, **limits)) as small:
        tenant = small.new_tenant("t")
        with tenant.http, small.client() as anonymous:
            malformed = [send(tenant.http, "POST /image", b"{") for _ in range(2)]
            assert [answer.status_code for answer in malformed] == [400, 400]
            for route in ("POST /image", "POST /v1/images/generations", "POST /generation"):
                assert announce(small, route, bearer(tenant.api_key)).status_code == 429
            assert send(anonymous, "POST /auth/token", b"", FORM_TYPE).status_code == 400
            assert announce(small, "POST /auth/token", {"Content-Type": FORM_TYPE}).status_code == 429


def test_anonymous_requests_for_private_resources_are_limited(tmp_path: Path) -> None:
    with serving(make_settings(tmp_path, **(UNLIMITED | {"reads_per_second": 1}))) as small, small.client() as client:
        answers = [client.post("/image", json={}) for _ in range(50)]
    assert {answer.status_code for answer in answers} == {401, 429}
