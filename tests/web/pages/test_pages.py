"""The pages and their files: nothing from other hosts or from outside their folder."""

import re
from urllib.parse import urljoin

import httpx2
import pytest

from tests.support.problems import assert_problem

# Independent of the database, so one is enough.

RESOURCE = re.compile(r"""(?:src|href|action)\s*=\s*["']?\s*((?:[a-z]+:)?//[^"'\s>]+)""", re.IGNORECASE)
URL_IN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)
LOCAL = re.compile(r"""(?:src|href|action)="([^"#]+)"|url: ?'([^']+)'""")


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_needs_no_other_host(path: str, anonymous: httpx2.Client) -> None:
    page = anonymous.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert RESOURCE.findall(page.text) == []
    assert URL_IN_STYLE.findall(page.text) == []
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "*" not in policy


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_every_link_of_a_page_exists(path: str, anonymous: httpx2.Client) -> None:
    targets = {first or second for first, second in LOCAL.findall(anonymous.get(path).text)}
    assert len(targets) >= 3
    for target in targets:
        assert anonymous.get(urljoin(path, target)).status_code == 200, target


@pytest.mark.parametrize("name", ["gallery.css", "gallery.js", "icon.svg", "swagger-ui.css"])
def test_static_file_refers_to_no_other_host_and_forbids_sniffing(name: str, anonymous: httpx2.Client) -> None:
    answer = anonymous.get(f"/static/{name}")
    assert answer.status_code == 200
    assert URL_IN_STYLE.findall(answer.text) == []
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_gallery_has_no_inline_script(anonymous: httpx2.Client) -> None:
    page = anonymous.get("/")
    assert "'unsafe-inline'" not in page.headers["content-security-policy"]
    assert re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", page.text) == []


@pytest.mark.parametrize("name", ["index.html", "router.py", "", "gallery.css/", "GALLERY.CSS", "%00", "nothing.js"])
def test_unknown_file_is_not_found(name: str, anonymous: httpx2.Client) -> None:
    assert_problem(anonymous.get(f"/static/{name}"), 404, "route_not_found")


def test_openapi_document_has_routes_and_no_other_hosts(anonymous: httpx2.Client) -> None:
    answer = anonymous.get("/openapi.json")
    assert set(answer.json()["paths"]) >= {"/image", "/image/{guid}", "/image/{guid}/content", "/healthz", "/readyz"}
    assert "http://" not in answer.text
    # Examples may use reserved host names (RFC 2606).
    assert "https://" not in answer.text.replace("https://example.com/", "")


@pytest.mark.parametrize("path", ["/", "/static/gallery.js", "/static/swagger-ui-bundle.js"])
def test_current_file_of_client_is_not_sent_again(path: str, anonymous: httpx2.Client) -> None:
    first = anonymous.get(path)
    assert first.headers["cache-control"] == "no-cache"
    for condition in (
        {"If-None-Match": f'"other", W/{first.headers["etag"]}'},
        {"If-Modified-Since": first.headers["last-modified"]},
    ):
        again = anonymous.get(path, headers=condition)
        assert (again.status_code, again.content) == (304, b"")
        assert {name: again.headers[name] for name in ("etag", "cache-control")} == {
            name: first.headers[name] for name in ("etag", "cache-control")
        }
    changed = anonymous.get(path, headers={"If-None-Match": '"other"'})
    assert (changed.status_code, changed.content) == (200, first.content)
