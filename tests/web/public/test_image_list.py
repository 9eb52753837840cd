"""GET /image: order, filters, limits and visibility."""

import uuid

import httpx2
import pytest

from pixyproxy.core.models.principal import Scope
from tests.conftest import on_both_databases
from tests.support.problems import assert_problem
from tests.support.server import RunningServer, TenantClient
from tests.web.builders import ABSENT_GUID, make_image, tenant_with

pytestmark = [pytest.mark.usefixtures("upstream"), on_both_databases]


def unique() -> str:
    """Return a word that no other prompt contains."""
    return uuid.uuid4().hex


def listed(client: httpx2.Client, **query: object) -> list[str]:
    """Return the prompts in a list."""
    answer = client.get("/image", params={name: str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    return [detail["prompt"] for detail in answer.json()]


def test_images_are_listed_newest_first_with_every_field(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    word = unique()
    made = [make_image(tenant, f"{word} {number}") for number in range(3)]
    assert anonymous.get("/image", params={"prompt": word}).json() == made[::-1]


def test_prompt_filter_matches_all_words_in_any_order_and_case(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    word = unique()
    make_image(tenant, f"{word} Ein FUCHS im Schnee, Äpfel")
    make_image(tenant, f"{word} Ein Hund im Schnee")
    assert listed(anonymous, prompt=f"{word} schnee fuchs") == [f"{word} Ein FUCHS im Schnee, Äpfel"]
    assert listed(anonymous, prompt=f"{word.upper()} ÄPFEL") == [f"{word} Ein FUCHS im Schnee, Äpfel"]
    assert len(listed(anonymous, prompt=f"{word} schnee")) == 2
    assert listed(anonymous, prompt=f"{word} fuchs hund") == []


def test_search_is_limited_to_eight_words(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    word = unique()
    make_image(tenant, f"{word} a b c d e f g")
    assert len(listed(anonymous, prompt=f"g f e d c b a {word}")) == 1
    problem = assert_problem(anonymous.get("/image", params={"prompt": "a b c d e f g h i"}), 422, "invalid_request")
    assert [(error["loc"], error["msg"]) for error in problem["errors"]] == [
        (["query", "prompt"], "must have at most 8 words")
    ]


def test_list_truncates_long_prompts_and_marks_them(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    word = unique()
    long = f"{word} " + "🦊é" * 234
    made = [make_image(tenant, long[:length]) for length in (500, 501)]
    first, second = anonymous.get("/image", params={"prompt": word}).json()
    assert (first["prompt"], first["prompt_truncated"]) == (long[:500], True)
    assert (second["prompt"], second["prompt_truncated"]) == (long[:500], False)
    assert [(detail["prompt"], detail["prompt_truncated"]) for detail in made] == [(long[:500], False), (long, False)]
    assert anonymous.get(f"/image/{first['guid']}").json() == made[1]


def test_filename_filter_matches_part_of_filename(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    word = unique()
    make_image(tenant, "one", filename=f"Fox {word}.png")
    make_image(tenant, "two", filename=f"dog {word}.png")
    assert listed(anonymous, filename=f"fOX {word}") == ["one"]
    assert listed(anonymous, filename=f"x {word}.p") == ["one"]
    assert listed(anonymous, filename=f"{word} fox") == []


def test_guid_filter_finds_one_image(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    made = make_image(tenant)
    make_image(tenant)
    assert anonymous.get("/image", params={"guid": made["guid"].upper()}).json() == [made]
    assert anonymous.get("/image", params={"guid": ABSENT_GUID}).json() == []


def test_all_filters_must_match(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    word = unique()
    made = make_image(tenant, f"{word} fox", filename=f"{word}.png")
    query = {"prompt": word, "filename": word, "guid": made["guid"]}
    assert anonymous.get("/image", params=query).json() == [made]
    assert anonymous.get("/image", params=query | {"filename": unique()}).json() == []


@pytest.mark.parametrize("sign", ["%", "_", "\\", "'", '"', "!", "[a-z]", "--", ";", "\\%", "!%", "*", "?"])
def test_prompt_filter_matches_special_characters_literally(
    sign: str, tenant: TenantClient, anonymous: httpx2.Client
) -> None:
    word = unique()
    prompt = f"{word}{sign}{word}"
    make_image(tenant, prompt)
    make_image(tenant, f"{word}xyz{word}")
    make_image(tenant, f"{word}{word}")
    assert listed(anonymous, prompt=prompt) == [prompt]
    assert listed(anonymous, prompt=f"{word}{sign}") == [prompt]


def test_filter_continues_after_nul(tenant: TenantClient, anonymous: httpx2.Client) -> None:
    word = unique()
    make_image(tenant, f"a {word}")
    answer = anonymous.get("/image", params={"prompt": f"{word}\0y"})
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize("sign", ["%", "_", "'", "!", "*"])
def test_filename_filter_matches_special_characters_literally(
    sign: str, tenant: TenantClient, anonymous: httpx2.Client
) -> None:
    word = unique()
    make_image(tenant, "literal", filename=f"{word}{sign}{word}.png")
    make_image(tenant, "other", filename=f"{word}x{word}.png")
    assert listed(anonymous, filename=f"{word}{sign}") == ["literal"]


@pytest.mark.parametrize("injection", ["' OR '1'='1", "'; DROP TABLE images; -- ", "\\' OR 1=1 -- ", "%' OR 1=1 #"])
@pytest.mark.parametrize("name", ["prompt", "filename"])
def test_sql_injection_finds_nothing(name: str, injection: str, tenant: TenantClient, anonymous: httpx2.Client) -> None:
    make_image(tenant)
    assert listed(anonymous, **{name: unique() + injection}) == []


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1000000000", "1e9", "ten", "", "9" * 5_000, "1.5"])
def test_limit_out_of_bounds_is_rejected(limit: str, anonymous: httpx2.Client) -> None:
    problem = assert_problem(anonymous.get("/image", params={"limit": limit}), 422, "invalid_request")
    assert problem["errors"][0]["loc"] == ["query", "limit"]


@pytest.mark.parametrize("limit", [1, 3])
def test_limit_is_applied(limit: int, tenant: TenantClient, anonymous: httpx2.Client) -> None:
    word = unique()
    for _ in range(4):
        make_image(tenant, word)
    assert len(listed(anonymous, prompt=word, limit=limit)) == limit


@pytest.mark.parametrize("query", ["tenant_id=1", "offset=5", "visibility=private", "id=1", "Limit=5", "a[]=1"])
def test_unknown_query_parameter_is_rejected(query: str, anonymous: httpx2.Client) -> None:
    problem = assert_problem(anonymous.get(f"/image?{query}"), 422, "invalid_request")
    assert problem["errors"][0]["type"] == "extra_forbidden"


@pytest.mark.parametrize("query", ["prompt=" + "a" * 1001, "filename=" + "a" * 256, "guid=1", "mine=perhaps"])
def test_impossible_filter_is_rejected(query: str, anonymous: httpx2.Client) -> None:
    assert_problem(anonymous.get(f"/image?{query}"), 422, "invalid_request")


def test_mine_requires_credential(anonymous: httpx2.Client) -> None:
    answer = anonymous.get("/image", params={"mine": "true"})
    assert_problem(answer, 401, "credential_missing")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_mine_requires_read_scope(server: RunningServer) -> None:
    generator = tenant_with(server, unique(), Scope.IMAGE_GENERATE)
    with generator.http:
        answer = generator.http.get("/image", params={"mine": "true"})
    problem = assert_problem(answer, 403, "scope_missing")
    assert problem["scope"] == "image:read"
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


def test_mine_includes_tenants_private_images(tenant: TenantClient, server: RunningServer) -> None:
    other = server.new_tenant(unique())
    with other.http:
        make_image(other, "another tenant's")
        for visibility in ("public", "private"):
            make_image(tenant, visibility, visibility=visibility)
        assert listed(tenant.http, mine="true") == ["private", "public"]
        assert listed(other.http, mine="true") == ["another tenant's"]


def test_private_images_are_listed_only_for_their_tenant(
    tenant: TenantClient, server: RunningServer, anonymous: httpx2.Client
) -> None:
    word = unique()
    make_image(tenant, f"{word} hidden", visibility="private")
    make_image(tenant, f"{word} shown", visibility="public")
    other = server.new_tenant(unique())
    with other.http:
        assert listed(tenant.http, prompt=word) == [f"{word} shown", f"{word} hidden"]
        assert listed(other.http, prompt=word) == [f"{word} shown"]
        assert listed(anonymous, prompt=word) == [f"{word} shown"]
