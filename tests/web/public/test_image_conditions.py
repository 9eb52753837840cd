"""Conditional requests for a picture (RFC 9110 §13): only a matching validator gets 304."""

from email.utils import parsedate_to_datetime

import httpx2
import pytest

from tests.support.server import TenantClient
from tests.web.builders import make_image

# Independent of the database, so one is enough.
pytestmark = pytest.mark.usefixtures("upstream")


@pytest.mark.parametrize("form", ["{etag}", "W/{etag}", '"other", {etag}', '"x",W/{etag} , "y"', "*"])
def test_matching_etag_gets_304(form: str, tenant: TenantClient, anonymous: httpx2.Client) -> None:
    path = f"/image/{make_image(tenant)['guid']}/content"
    first = anonymous.get(path)
    answer = anonymous.get(path, headers={"If-None-Match": form.format(etag=first.headers["etag"])})
    assert (answer.status_code, answer.content) == (304, b"")
    for name in ("etag", "last-modified", "cache-control", "vary"):
        assert answer.headers[name] == first.headers[name]


@pytest.mark.parametrize("tag", ['"0000"', "0000", '""', 'W/"0000"', ",,,"])
def test_different_etag_gets_picture(tag: str, tenant: TenantClient, anonymous: httpx2.Client) -> None:
    path = f"/image/{make_image(tenant)['guid']}/content"
    # The tag takes precedence over a matching date (RFC 9110 §13.1.3).
    date = anonymous.get(path).headers["last-modified"]
    answer = anonymous.get(path, headers={"If-None-Match": tag, "If-Modified-Since": date})
    assert answer.status_code == 200
    assert answer.content


def test_last_modified_is_creation_time(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    made = make_image(tenant)
    modified = anonymous.get(f"/image/{made['guid']}/content").headers["last-modified"]
    assert modified.endswith(" GMT")
    assert parsedate_to_datetime(modified).strftime("%Y-%m-%dT%H:%M:%SZ") == made["created_at"]


def test_unmodified_picture_gets_304_by_date(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    path = f"/image/{make_image(tenant)['guid']}/content"
    date = anonymous.get(path).headers["last-modified"]
    assert anonymous.get(path, headers={"If-Modified-Since": date}).status_code == 304


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999999 00:00:00 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "yesterday",
        "",
        "99999",
        "Thu, 01 Jan 99999 00:00:00 GMT",
        "\x80\xff",
    ],
)
def test_old_or_invalid_date_gets_picture(date: str, tenant: TenantClient, anonymous: httpx2.Client) -> None:
    path = f"/image/{make_image(tenant)['guid']}/content"
    answer = anonymous.get(path, headers={b"If-Modified-Since": date.encode("latin-1")})
    assert answer.status_code == 200


@pytest.mark.parametrize("visibility", ["public", "private"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Accept": "application/json"}, 200),
        ({"Range": "bytes=0-0"}, 206),
        ({"If-None-Match": "*"}, 304),
    ],
    ids=str,
)
def test_caches_keep_responses_separate_by_credential(
    headers: dict[str, str], status: int, visibility: str, tenant: TenantClient
) -> None:
    answer = tenant.http.get(f"/image/{make_image(tenant, visibility=visibility)['guid']}/content", headers=headers)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == f"{visibility}, no-cache"
    assert set(answer.headers["vary"].lower().split(", ")) == {"accept", "authorization", "x-api-key"}
