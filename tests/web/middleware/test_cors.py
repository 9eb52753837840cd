"""Cross-origin scripts: what all may read, what configured origins may do, and what none may do."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page

from pixyproxy.web.app import create_app
from tests.support.browser import visiting
from tests.support.server import UNLIMITED, RunningServer, TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import FakeUpstream
from tests.web.builders import ABSENT_GUID, make_image

ALLOW, EXPOSE = "access-control-allow-origin", "access-control-expose-headers"
ELSEWHERE = {"Origin": "https://elsewhere.example.com"}
PUBLIC = ["/image", f"/image/{ABSENT_GUID}", f"/image/{ABSENT_GUID}/content", "/.well-known/jwks.json",
          "/.well-known/oauth-authorization-server"]  # fmt: skip
TOLD = {"X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy", "Link", "Location", "ETag"}


class _EmptyPage(BaseHTTPRequestHandler):
    """Respond to every GET with an empty page."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href=data:,><title>another site</title>")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def another_site() -> Iterator[str]:
    """Yield the origin of another web site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _EmptyPage) as site:
        Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()


@pytest.fixture(scope="module")
def friend() -> Iterator[str]:
    """Yield the origin of a site that the server allows."""
    with another_site() as origin:
        yield origin


@pytest.fixture(scope="module")
def open_server(
    tmp_path_factory: pytest.TempPathFactory, session_upstream: FakeUpstream, friend: str
) -> Iterator[RunningServer]:
    """Yield a server that allows scripts of ``friend`` to use the whole API."""
    settings = make_settings(
        tmp_path_factory.mktemp("cors"),
        cors_origins=f"https://app.example.com, {friend}",
        **UNLIMITED,
        **upstream_settings(session_upstream),
    )
    with serving(settings) as server:
        yield server


@pytest.fixture
def member(open_server: RunningServer) -> Iterator[TenantClient]:
    """Yield a tenant of that server."""
    member = open_server.new_tenant(f"tenant {uuid.uuid4()}")
    with member.http:
        yield member


def preflight(client: httpx2.Client, path: str, origin: str, method: str, *headers: str) -> httpx2.Response:
    """Send the preflight request of a browser for a request that is not simple."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        asked["Access-Control-Request-Headers"] = ",".join(headers)
    return client.options(path, headers=asked)


@pytest.mark.parametrize("path", PUBLIC)
def test_public_resources_are_readable_from_any_origin_and_from_caches(path: str, open_server: RunningServer) -> None:
    with open_server.client() as anonymous:
        for headers in ({}, ELSEWHERE):
            answer = anonymous.get(path, headers=headers)
            assert answer.headers[ALLOW] == "*"
            assert "Origin" not in answer.headers.get("vary", "")
            assert set(answer.headers[EXPOSE].split(", ")) >= TOLD
        asked = preflight(anonymous, path, ELSEWHERE["Origin"], "GET", "if-none-match", "range")
    assert (asked.status_code, asked.headers[ALLOW]) == (200, "*")


@pytest.mark.parametrize(
    ("path", "method", "header"),
    [
        ("/image", "GET", "authorization"),
        ("/image", "POST", "content-type"),
        (f"/image/{ABSENT_GUID}", "DELETE", "x-api-key"),
        ("/v1/images/generations", "POST", "authorization"),
        ("/key", "GET", "authorization"),
    ],
)
def test_other_origins_cannot_use_credentials(
    path: str, method: str, header: str, open_server: RunningServer, friend: str
) -> None:
    with open_server.client() as anonymous:
        refused = preflight(anonymous, path, ELSEWHERE["Origin"], method, header)
        allowed = preflight(anonymous, path, friend, method, header, "x-stainless-retry-count", "idempotency-key")
    assert refused.status_code == 400
    assert (allowed.status_code, allowed.headers[ALLOW]) == (200, friend)
    assert "Origin" in allowed.headers["vary"]
    assert method in allowed.headers["access-control-allow-methods"]
    assert header in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in allowed.headers


@pytest.mark.parametrize(
    ("asked", "body", "status"),
    [
        ("GET /me", None, 200),
        ("GET /nowhere", None, 404),
        ("POST /generation", {"prompt": ""}, 422),
        ("POST /v1/images/generations", {}, 400),
        (f"GET /generation/{ABSENT_GUID}/events", None, 404),
        ("PUT /key", None, 405),
        ("POST /image", {"prompt": "x" * 1_100_000}, 413),
    ],
)
def test_allowed_origin_reads_every_response(
    asked: str, body: object, status: int, member: TenantClient, friend: str
) -> None:
    method, path = asked.split()
    answer = member.http.request(method, path, json=body, headers={"Origin": friend})
    assert (answer.status_code, answer.headers[ALLOW]) == (status, friend)
    assert "Origin" in answer.headers["vary"]
    assert set(answer.headers[EXPOSE].split(", ")) >= TOLD
    assert ALLOW not in member.http.request(method, path, json=body, headers=ELSEWHERE).headers


async def _explode() -> None:
    raise ZeroDivisionError


def test_allowed_origin_reads_unexpected_errors(tmp_path: Path) -> None:
    app = create_app(make_settings(tmp_path, cors_origins="*"))
    app.get("/explode")(_explode)
    with TestClient(app) as client:
        answer = client.get("/explode", headers=ELSEWHERE)
    assert (answer.status_code, answer.headers[ALLOW]) == (500, "*")
    assert "X-Request-ID" in answer.headers[EXPOSE]


def test_only_public_resources_are_readable_without_setting(tmp_path: Path) -> None:
    with TestClient(create_app(make_settings(tmp_path))) as client:
        answers = [client.get("/me", headers=ELSEWHERE), preflight(client, "/me", ELSEWHERE["Origin"], "GET")]
        public = client.get("/image", headers=ELSEWHERE)
    assert [answer.status_code for answer in answers] == [401, 405]
    names = {name for answer in answers for name in answer.headers}
    assert [name for name in names if name.startswith("access-control-")] == []
    assert public.headers[ALLOW] == "*"


FETCH = """async ([url, options]) => {
  const answer = await fetch(url, options ?? {}).catch((error) => null);
  if (answer === null) return null;
  const headers = Object.fromEntries(answer.headers);
  return { status: answer.status, headers, text: await answer.text() };
}"""
DRAW = """async (url) => {
  const load = (crossOrigin) => new Promise((resolve, reject) => {
    const image = Object.assign(new Image(), { onload: () => resolve(image), onerror: reject, crossOrigin, src: url });
  });
  await load(null);
  const canvas = document.createElement("canvas");
  canvas.getContext("2d").drawImage(await load("anonymous"), 0, 0);
  return canvas.toDataURL();
}"""


def fetch(page: Page, url: str, **options: object) -> Any:  # noqa: ANN401  (the browser's result)
    """Return the status, headers and text of a page's ``fetch``, or None if the browser refuses."""
    return page.evaluate(FETCH, [url, options])


@pytest.mark.usefixtures("upstream")
def test_script_of_allowed_site_uses_whole_api(
    browser: Browser, open_server: RunningServer, member: TenantClient, friend: str
) -> None:
    authorization = {"Authorization": f"Bearer {member.api_key}", "Content-Type": "application/json"}
    order = '{"prompt": "a fox", "response_format": "url"}'
    with visiting(browser, friend) as visit:
        page = visit.page
        page.goto("/")
        made = fetch(page, f"{open_server.url}/v1/images/generations", method="POST", headers=authorization, body=order)
        assert made["status"] == 200
        guid = page.evaluate("(text) => JSON.parse(text).generation", made["text"])
        events = fetch(page, f"{open_server.url}/generation/{guid}/events", headers=authorization)
        assert (events["status"], "event: stored" in events["text"]) == (200, True)
        wrong = {"Authorization": "Bearer pxy_wrong"}
        refused = fetch(page, f"{open_server.url}/v1/models", headers=wrong)
        assert refused["status"] == 401
        assert refused["headers"]["x-request-id"] in refused["text"]


@pytest.mark.usefixtures("upstream")
def test_script_of_any_site_reads_and_draws_only_public_pictures(
    browser: Browser, open_server: RunningServer, member: TenantClient
) -> None:
    for _ in range(2):
        picture = make_image(member, visibility="public")
    with another_site() as stranger, visiting(browser, stranger) as visit:
        page = visit.page
        page.goto("/")
        listed = fetch(page, f"{open_server.url}/image?limit=1")
        assert listed["status"] == 200
        assert 'rel="next"' in listed["headers"]["link"]
        assert page.evaluate(DRAW, picture["content_url"]).startswith("data:image/png;base64,")
        key = {"X-API-Key": member.api_key}
        assert fetch(page, f"{open_server.url}/me", headers=key) is None
        assert fetch(page, f"{open_server.url}/image", headers=key) is None
        assert fetch(page, f"{open_server.url}/v1/models") is None
