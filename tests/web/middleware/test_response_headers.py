"""Caching and browser headers of every response."""

import httpx2
import pytest

from tests.web.builders import ABSENT_GUID
from tests.web.test_auth_matrix import OAUTH_FORMS, ROUTES

OTHERS = [
    "GET /",
    "GET /docs",
    "GET /openapi.json",
    "GET /static/icon.svg",
    "GET /nothing",
    "PUT /image",
    "GET /v1/nothing",
]
KEPT = {
    "GET /.well-known/jwks.json": "public, max-age=300",
    "GET /.well-known/oauth-authorization-server": "private, max-age=300",
    "GET /": "no-cache",
    "GET /static/icon.svg": "no-cache",
}


@pytest.mark.parametrize("route", [*ROUTES, *OTHERS])
def test_responses_are_not_cached_unless_allowed(route: str, anonymous: httpx2.Client) -> None:
    method, path = route.replace("{guid}", ABSENT_GUID).replace("{model}", "gpt-image-2").split()
    answer = anonymous.request(method, path, data=OAUTH_FORMS.get(route))
    assert answer.headers["cache-control"] == KEPT.get(route, "no-store")
    assert {"Authorization", "X-API-Key"} <= {name.strip() for name in answer.headers["vary"].split(",")}
    assert answer.headers["x-content-type-options"] == "nosniff"
