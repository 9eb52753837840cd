"""A shared cache in front, with its default settings, serves no response to a credential to any other client.

Varnish and nginx pass requests with ``Authorization`` through, so all requests here use ``X-API-Key``.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest

from pixyproxy.core.models.principal import Scope
from tests.support.caches import Nginx, SharedCache, Varnish
from tests.support.identity import EVERY_SCOPE, make_key, make_user
from tests.support.server import UNLIMITED, RunningServer, TenantClient, make_settings, serving
from tests.web.builders import make_image
from tests.web.test_auth_matrix import ROUTES, make_webhook

ENDLESS = {"GET /generation/events"}
"""Responses without an end."""
CACHEABLE = sorted(route for route in ROUTES.keys() - ENDLESS if route.startswith(("GET ", "HEAD ")))
PAGES = ["GET /", "GET /docs", "GET /openapi.json", "GET /static/icon.svg", "GET /nothing"]
QUERIES = {"GET /admin/generation": {"status": "stored"}}
PROMPT = "a lighthouse that nobody else has heard of"


@dataclass(frozen=True)
class Place:
    """A server behind a cache, with the owner's resources by the first part of a path, and words that identify them."""

    owner: TenantClient
    stranger: TenantClient
    cache: httpx2.Client
    origin: httpx2.Client
    owned: dict[str, str]
    marks: tuple[str, ...]

    def ask(self, client: httpx2.Client, route: str, tenant: TenantClient | None = None) -> httpx2.Response:
        """Return the response to a route about the owner's resources, through the cache or from the origin."""
        method, path = route.split()
        path = path.replace("{guid}", self.owned.get(path.split("/")[1], "")).replace("{model}", "gpt-image-2")
        headers = {} if tenant is None else {"X-API-Key": tenant.api_key}
        return client.request(method, path, params=QUERIES.get(route), headers=headers)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(make_settings(tmp_path_factory.mktemp("origin"), **UNLIMITED)) as server:
        server.hash_cheaply()
        yield server


@pytest.fixture(scope="module", params=[Varnish, Nginx])
def cache(request: pytest.FixtureRequest, origin: RunningServer) -> Iterator[SharedCache]:
    with request.param(origin.url) as cache:
        yield cache


@pytest.fixture(scope="module")
def place(origin: RunningServer, cache: SharedCache) -> Iterator[Place]:
    owner = origin.new_tenant(f"owner {uuid.uuid4()}", scopes=EVERY_SCOPE)
    stranger = origin.new_tenant(f"stranger {uuid.uuid4()}", scopes=EVERY_SCOPE - {Scope.ADMIN})
    with owner.http, stranger.http, httpx2.Client(base_url=cache.url) as cached, origin.client() as anonymous:
        image = make_image(owner, PROMPT, visibility="private", size="64x64")["guid"]
        owned = {
            "image": image,
            "generation": owner.http.get("/generation").json()[0]["guid"],
            "key": make_key(owner.http, Scope.IMAGE_READ)["guid"],
            "user": make_user(owner.http).guid,
            "webhook": make_webhook(owner.http)["guid"],
            "admin": owner.guid,
        }
        me = owner.http.get("/me").json()
        marks = (PROMPT, me["subject"], *owned.values())
        yield Place(owner, stranger, cached, anonymous, owned, marks)


@pytest.mark.parametrize("route", CACHEABLE + PAGES)
def test_no_client_gets_the_response_to_anothers_credential(route: str, place: Place) -> None:
    owners = [place.ask(place.cache, route, place.owner).status_code for _ in range(2)]
    assert owners == [place.ask(place.origin, route, place.owner).status_code] * 2
    for caller in (None, place.stranger):
        answer = place.ask(place.cache, route, caller)
        assert answer.status_code == place.ask(place.origin, route, caller).status_code
        assert [mark for mark in place.marks if mark in answer.text] == []


def test_the_owner_does_not_get_the_anonymous_response(place: Place) -> None:
    guid = make_image(place.owner, visibility="private", size="64x64")["guid"]
    for path in (f"/image/{guid}", f"/image/{guid}/content"):
        for key, status in ((None, 404), (place.owner.api_key, 200), (None, 404)):
            headers = {} if key is None else {"X-API-Key": key}
            assert place.cache.get(path, headers=headers).status_code == status


def test_private_and_deleted_pictures_are_gone_from_the_cache(place: Place) -> None:
    hidden, deleted = (make_image(place.owner, visibility="public", size="64x64")["guid"] for _ in range(2))
    paths = [f"/image/{guid}{suffix}" for guid in (hidden, deleted) for suffix in ("", "/content")]
    for _ in range(2):
        assert {place.cache.get(path).status_code for path in paths} == {200}
        assert {hidden, deleted} <= {image["guid"] for image in place.cache.get("/image").json()}
    assert place.owner.http.patch(f"/image/{hidden}", json={"visibility": "private"}).status_code == 200
    assert place.owner.http.delete(f"/image/{deleted}").status_code == 204
    assert {place.cache.get(path).status_code for path in paths} == {404}
    assert not {hidden, deleted} & {image["guid"] for image in place.cache.get("/image").json()}


def test_cacheable_responses_are_cached(place: Place) -> None:
    """Check that the cache works, so that uncached responses are due to their headers."""
    seen = {place.cache.get("/.well-known/jwks.json").headers["x-request-id"] for _ in range(3)}
    assert len(seen) == 1
