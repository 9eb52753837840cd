"""A path prefix of a reverse proxy: all URLs start with it, whether or not the proxy removes it."""

from collections.abc import Iterator
from urllib.parse import urljoin

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import visiting
from tests.support.problems import assert_problem
from tests.support.server import UNLIMITED, RunningServer, TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import FakeUpstream
from tests.web.builders import make_image
from tests.web.envelope import assert_openai_error

PUBLIC_URL = "https://example.com/tools/pictures"
PREFIX = "/tools/pictures"
PASSED_ON, REMOVED = PREFIX, ""


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory, session_upstream: FakeUpstream) -> Iterator[RunningServer]:
    """Yield a server whose public URL has a path."""
    settings = make_settings(
        tmp_path_factory.mktemp("below"),
        public_url=f"{PUBLIC_URL}/",
        max_body_bytes=2000,
        **UNLIMITED,
        **upstream_settings(session_upstream),
    )
    with serving(settings) as server:
        yield server


@pytest.fixture(scope="module", params=[PASSED_ON, REMOVED], ids=["passed on", "removed"])
def tenant(request: pytest.FixtureRequest, below: RunningServer) -> Iterator[TenantClient]:
    """Yield a tenant whose client sends what the proxy would send."""
    made = below.new_tenant(f"tenant {request.param}")
    made.http.base_url = httpx2.URL(f"{below.url}{request.param}")
    with made.http:
        yield made


@pytest.mark.usefixtures("upstream")
def test_every_url_starts_with_the_prefix(tenant: TenantClient) -> None:
    made = tenant.http.post("/image", json={"prompt": "a fox"})
    detail = made.json()
    assert made.headers["location"] == f"{PREFIX}/image/{detail['guid']}"
    assert detail["content_url"] == f"{PUBLIC_URL}/image/{detail['guid']}/content"
    ordered = tenant.http.post("/generation", json={"prompt": "a fox"})
    assert ordered.headers["location"] == f"{PREFIX}/generation/{ordered.json()['guid']}"
    order = {"prompt": "a fox", "response_format": "url"}
    (picture,) = tenant.http.post("/v1/images/generations", json=order).json()["data"]
    assert picture["url"] == f"{PUBLIC_URL}/image/{picture['guid']}/content"
    listed = tenant.http.get("/image", params={"limit": 1, "mine": "true"})
    assert listed.headers["link"].startswith(f"<{PREFIX}/image?")
    assert tenant.http.get(f"/image/{detail['guid']}/content").status_code == 200


def test_metadata_and_issuer_have_the_prefix(tenant: TenantClient, below: RunningServer) -> None:
    found = tenant.http.get("/.well-known/oauth-authorization-server").json()
    assert found["issuer"] == PUBLIC_URL
    assert found["token_endpoint"] == f"{PUBLIC_URL}/auth/token"
    with below.client() as anonymous:
        # RFC 8414 §3.1: the metadata URL of an issuer with a path.
        assert anonymous.get(f"/.well-known/oauth-authorization-server{PREFIX}").json() == found


def test_openapi_document_has_the_prefix(tenant: TenantClient) -> None:
    document = tenant.http.get("/openapi.json").json()
    assert [server["url"] for server in document["servers"]] == [PREFIX, PUBLIC_URL]
    schemes = document["components"]["securitySchemes"].values()
    flows = [flow for scheme in schemes for flow in scheme.get("flows", {}).values()]
    assert {flow["tokenUrl"] for flow in flows} == {f"{PREFIX}/auth/token"}
    assert "/image" in document["paths"]


def test_path_specific_rules_ignore_the_prefix(tenant: TenantClient) -> None:
    assert_openai_error(tenant.http.get("/v1/nothing"), 404, "route_not_found")
    assert tenant.http.post("/auth/token", data={}).json()["error"] == "invalid_request"
    assert_problem(tenant.http.post("/image", content=b" " * 3000), 413, "body_too_large")
    uploaded = tenant.http.post("/v1/images/edits", data={"prompt": "x"}, files={"image": b" " * 3000})
    assert_openai_error(uploaded, 400, "invalid_input_picture")
    assert tenant.http.get("/image").headers["access-control-allow-origin"] == "*"


def test_prefix_without_slash_redirects_to_the_page(below: RunningServer) -> None:
    with below.client() as anonymous:
        answer = anonymous.get(f"{PREFIX}?prompt=a+fox")
        assert (answer.status_code, answer.headers["location"]) == (307, f"{PREFIX}/?prompt=a+fox")
        assert anonymous.get(answer.headers["location"]).headers["content-type"].startswith("text/html")
        assert_problem(anonymous.get(f"{PREFIX}x/image"), 404, "route_not_found")


@pytest.mark.usefixtures("upstream")
@pytest.mark.parametrize("tenant", [PASSED_ON], indirect=True)
def test_pages_work_under_the_prefix(tenant: TenantClient, below: RunningServer, browser: Browser) -> None:
    make_image(tenant, "a fox below a path")
    with visiting(browser, below.url) as visit:
        visit.page.goto(f"{PREFIX}/")
        shown = visit.page.get_by_role("img", name="a fox below a path")
        expect(shown).to_be_visible()
        expect(shown).not_to_have_js_property("naturalWidth", 0)
        visit.page.get_by_label("Search the prompts").fill("nothing like it")
        expect(visit.page.get_by_text("Nothing found")).to_be_visible()
        visit.page.get_by_role("link", name="API docs").click()
        expect(visit.page.get_by_text("list_images").or_(visit.page.get_by_text("List Images")).first).to_be_visible()
        visit.settle()
        assert {request for request in visit.requests if not request.startswith(urljoin(below.url, PREFIX))} <= {
            request for request in visit.requests if request.startswith("data:")
        }
        assert visit.complaints == []
        assert +visit.refusals == {}
