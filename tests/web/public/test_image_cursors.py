"""Paging through GET /image by ``Link``: every image once, and forged cursors are rejected."""

import re
import uuid
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.conftest import on_both_databases
from tests.support.problems import assert_problem
from tests.support.server import RunningServer, TenantClient
from tests.web.builders import make_image

pytestmark = [pytest.mark.usefixtures("upstream"), on_both_databases]

LINK = re.compile(r'\A<([^>]+)>; rel="next"\Z')
MOST_PAGES = 50


def next_of(answer: httpx2.Response) -> str | None:
    """Return the target of the link to the next page."""
    link = answer.headers.get("link")
    if link is None:
        return None
    (target,) = LINK.findall(link)
    return str(target)


def walk(client: httpx2.Client, target: str) -> list[list[str]]:
    """Return the prompts of every page from ``target`` on."""
    pages: list[list[str]] = []
    following: str | None = target
    while following is not None and len(pages) < MOST_PAGES:
        answer = client.get(following).raise_for_status()
        pages.append([detail["prompt"] for detail in answer.json()])
        following = next_of(answer)
    assert following is None
    return pages


def cursor_of(client: httpx2.Client, target: str) -> str:
    """Return the cursor in the link of a page."""
    following = next_of(client.get(target))
    assert following is not None
    return parse_qs(urlsplit(following).query)["cursor"][0]


@pytest.fixture
def word(tenant: TenantClient) -> str:
    """Return a word that only the prompts of seven images of the tenant contain."""
    word = uuid.uuid4().hex
    for number in range(7):
        make_image(tenant, f"{word} {number}", visibility="private" if number % 2 else "public")
    return word


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 100])
def test_paging_returns_every_image_exactly_once(limit: int, word: str, tenant: TenantClient) -> None:
    prompts = [f"{word} {number}" for number in range(6, -1, -1)]
    pages = [prompts[start : start + limit] for start in range(0, 7, limit)]
    assert walk(tenant.http, f"/image?prompt={word}&limit={limit}") == pages


def test_paging_returns_only_visible_images(word: str, anonymous: httpx2.Client, tenant: TenantClient) -> None:
    pages = walk(anonymous, f"/image?prompt={word}&limit=2")
    assert pages == [[f"{word} 6", f"{word} 4"], [f"{word} 2", f"{word} 0"]]
    # A cursor is a position, not a permission: each viewer sees what it may.
    cursor = cursor_of(tenant.http, f"/image?prompt={word}&limit=2")
    assert walk(anonymous, f"/image?prompt={word}&limit=10&cursor={cursor}") == [
        [f"{word} 4", f"{word} 2", f"{word} 0"]
    ]


def test_images_created_during_paging_neither_repeat_nor_hide_others(word: str, tenant: TenantClient) -> None:
    first = tenant.http.get(f"/image?prompt={word}&limit=3")
    make_image(tenant, f"{word} late")
    rest = walk(tenant.http, next_of(first) or "")
    assert [prompt for page in rest for prompt in page] == [f"{word} {number}" for number in range(3, -1, -1)]


def test_link_keeps_filter_with_special_characters(tenant: TenantClient) -> None:
    prompt = f'{uuid.uuid4().hex}"> <a&b=c%20+ü'
    for _ in range(2):
        make_image(tenant, prompt)
    first = tenant.http.get("/image", params={"prompt": prompt, "limit": "1", "mine": "true"})
    following = next_of(first)
    assert following is not None
    assert following.startswith("/image?")
    assert len(tenant.http.get(following).json()) == 1
    assert parse_qs(urlsplit(following).query)["prompt"] == [prompt]


@pytest.mark.parametrize("forged", ["1", "AAAA", "0:abc", "' OR 1=1", "gAAAAA" + "A" * 100, "ü", "%00", "a" * 500])
def test_forged_cursor_is_rejected(forged: str, anonymous: httpx2.Client) -> None:
    assert_problem(anonymous.get("/image", params={"cursor": forged}), 400, "invalid_cursor")


def test_altered_cursor_is_rejected(word: str, tenant: TenantClient) -> None:
    cursor = cursor_of(tenant.http, f"/image?prompt={word}&limit=2")
    for position in (0, 20, len(cursor) // 2):
        altered = cursor[:position] + ("A" if cursor[position] != "A" else "B") + cursor[position + 1 :]
        answer = tenant.http.get("/image", params={"prompt": word, "cursor": altered})
        assert_problem(answer, 400, "invalid_cursor")


def test_cursor_of_another_filter_is_rejected(word: str, tenant: TenantClient) -> None:
    cursor = cursor_of(tenant.http, f"/image?prompt={word}&limit=2")
    for query in ({}, {"prompt": word.upper()}, {"prompt": word, "mine": "true"}, {"filename": word}):
        answer = tenant.http.get("/image", params={**query, "cursor": cursor})
        assert_problem(answer, 400, "invalid_cursor")


def test_overlong_cursor_is_rejected(anonymous: httpx2.Client) -> None:
    assert_problem(anonymous.get("/image", params={"cursor": "A" * 501}), 422, "invalid_request")


def test_cursor_hides_internal_id(word: str, tenant: TenantClient, server: RunningServer) -> None:
    # Two cursors for the same position differ, so their content cannot be read or counted.
    target = f"{server.url}/image?prompt={word}&limit=2"
    assert cursor_of(tenant.http, target) != cursor_of(tenant.http, target)
