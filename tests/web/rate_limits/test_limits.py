"""Rate limits as seen by clients, and protection against guessing."""

import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from starlette.requests import Request

from pixyproxy.core.exceptions import TooManyFailuresException
from pixyproxy.core.models.principal import Principal, Scope, Subject, SubjectType
from pixyproxy.core.models.tenant import TenantChange, TenantGuid, TenantId, Visibility
from pixyproxy.core.settings import Settings
from pixyproxy.web.app import create_app
from pixyproxy.web.rate_limits.addresses import client_address
from pixyproxy.web.rate_limits.limits import RateLimits, create_rate_limits
from tests.support.pictures import png
from tests.support.problems import assert_problem
from tests.support.process import new_api_key, running_server, wait_until
from tests.support.redis import RedisServer
from tests.support.scale import scaled
from tests.support.server import (
    ACTOR,
    EVERY_IMAGE_SCOPE,
    UNLIMITED,
    RunningServer,
    TenantClient,
    make_settings,
    serving,
)
from tests.support.upstream import FakeUpstream
from tests.web.builders import ABSENT_GUID, make_image, second_key
from tests.web.envelope import assert_openai_error

POLICY = re.compile(r'"[a-z-]+";q=\d+;w=\d+(, "[a-z-]+";q=\d+;w=\d+)*')
LEFT = re.compile(r'"[a-z-]+";r=\d+;t=\d+(, "[a-z-]+";r=\d+;t=\d+)*')
SMALL = dict.fromkeys(("images_per_minute", "reads_per_second", "changes_per_minute", "sign_ins_per_minute"), 1)


def limited_settings(folder: Path, **limits: object) -> Settings:
    """Return settings with these limits and effectively no others; pictures are drawn offline."""
    return make_settings(folder, **(UNLIMITED | limits))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[RunningServer]:
    """Yield a server that allows one request of each class."""
    with serving(limited_settings(tmp_path, **SMALL)) as running:
        yield running


def routes(settings: Settings) -> list[tuple[str, str]]:
    """Return method and path of every route, including those outside the OpenAPI document."""
    allowed: dict[str, str] = create_app(settings).state.allowed_methods
    return [(method, path) for path, methods in allowed.items() for method in methods.split(", ")]


def until_limited(client: httpx2.Client, method: str, path: str) -> httpx2.Response:
    """Return the first 429 of a route; only malformed requests are sent, which count too."""
    target = re.sub(r"\{[\w:]+\}", "no-guid", path)
    for _ in range(50):
        form = {"x": "y"} if path.startswith("/auth/") else None
        answer = client.request(method, target, params={"limit": "x"}, data=form, json=None if form else {})
        if answer.status_code == httpx2.codes.TOO_MANY_REQUESTS:
            return answer
    pytest.fail(f"{method} {path} has no limit")


def test_every_route_is_limited(small: RunningServer) -> None:
    walked = routes(small.settings)
    documented = create_app(small.settings).openapi()["paths"]
    assert {path.replace(":path}", "}") for _, path in walked} >= set(documented)
    assert {"/", "/docs", "/openapi.json", "/static/{name}"} <= {path for _, path in walked}
    tenant = small.new_tenant("t", scopes=frozenset(Scope))
    with tenant.http:
        answers = {(method, path): until_limited(tenant.http, method, path) for method, path in walked}
    assert len(answers) == len(walked)
    for route, answer in answers.items():
        assert int(answer.headers["retry-after"]) >= 1, route
        assert POLICY.fullmatch(answer.headers["ratelimit-policy"]), route
        assert re.search(r";r=0;t=[1-9]", answer.headers["ratelimit"]), route
    heads = {answer for (method, _), answer in answers.items() if method == "HEAD"}
    assert {answer.content for answer in heads} == {b""}
    of_openai = {answer for (_, path), answer in answers.items() if path.startswith("/v1/")} - heads
    assert len(of_openai) >= 4
    for answer in of_openai:
        assert_openai_error(answer, 429, "rate_limited")
    assert {answer.json()["code"] for answer in set(answers.values()) - heads - of_openai} == {"rate_limited"}


def test_every_route_documents_its_limit(tmp_path: Path) -> None:
    paths = create_app(make_settings(tmp_path)).openapi()["paths"]
    responses = {f"{method} {path}": each["responses"] for path, of in paths.items() for method, each in of.items()}
    assert "post /image" in responses
    assert [operation for operation, statuses in responses.items() if "429" not in statuses] == []


def test_limit_of_sixty_allows_sixty(tmp_path: Path) -> None:
    with serving(limited_settings(tmp_path, changes_per_minute=60)) as server:
        tenant = server.new_tenant("t")
        with tenant.http, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: tenant.http.delete(f"/image/{ABSENT_GUID}"), range(100)))
    assert [each.status_code for each in answers].count(404) == 60
    limited = [each for each in answers if each.status_code == 429]
    assert len(limited) == 40
    for answer in limited:
        assert_problem(answer, 429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert answer.headers["ratelimit-policy"] == '"change";q=60;w=60'


def test_request_passes_after_retry_after(tmp_path: Path) -> None:
    with serving(limited_settings(tmp_path, reads_per_second=2)) as server, server.client() as anonymous:
        answers = [anonymous.get("/image") for _ in range(10)]
        refused = [each for each in answers if each.status_code == 429]
        assert refused
        time.sleep(int(refused[-1].headers["retry-after"]))
        assert anonymous.get("/image").status_code == 200


def test_one_request_is_counted_once(tmp_path: Path) -> None:
    with serving(limited_settings(tmp_path, images_per_minute=100)) as server:
        tenant = server.new_tenant("t")
        with tenant.http:
            made = [tenant.http.post("/image", json={"prompt": "x"}) for _ in range(3)]
            assert [left(answer) for answer in made] == [99, 98, 97]
            guid = made[0].json()["guid"]
            read = [left(tenant.http.request(method, f"/image/{guid}/content")) for method in ("GET", "HEAD")]
            # The first may expire before the second; a request counted twice would leave 999,998.
            assert read[0] == 999_999
            assert 999_998 <= read[1] <= 999_999


def left(answer: httpx2.Response) -> int:
    """Return what the first limit of a response has left."""
    found = re.match(r'"[a-z-]+";r=(\d+)', answer.headers["ratelimit"])
    assert found is not None
    return int(found[1])


def test_every_response_of_limited_route_has_remaining_limit(tmp_path: Path) -> None:
    with serving(limited_settings(tmp_path)) as server:
        tenant = server.new_tenant("t")
        with tenant.http:
            image = make_image(tenant)
            path = f"/image/{image['guid']}"
            etag = {"If-None-Match": f'"{image["sha256"]}"'}
            answers = {
                200: tenant.http.get(path),
                206: tenant.http.get(f"{path}/content", headers={"Range": "bytes=0-9"}),
                304: tenant.http.get(f"{path}/content", headers=etag),
                404: tenant.http.get(f"/image/{ABSENT_GUID}"),
                416: tenant.http.get(f"{path}/content", headers={"Range": "bytes=99999999-"}),
                422: tenant.http.get("/image?limit=0"),
            }
            bare = tenant.http.get("/nothing/here")
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers["ratelimit-policy"] == '"read";q=1000000;w=1'
        assert LEFT.fullmatch(answer.headers["ratelimit"])
        assert "retry-after" not in answer.headers
    assert "ratelimit" not in bare.headers


def test_key_limit_applies_within_tenant_limit(tmp_path: Path) -> None:
    with serving(limited_settings(tmp_path, images_per_minute=5)) as server:
        tenant = server.new_tenant("t")
        with tenant.http, second_key(server, tenant, images_per_minute=2).http as bounded:
            made = [bounded.post("/image", json={"prompt": "x"}) for _ in range(6)]
            assert [each.status_code for each in made] == [201, 201, 429, 429, 429, 429]
            assert made[0].headers["ratelimit-policy"] == '"generation-key";q=2;w=60, "generation";q=5;w=60'
            assert re.fullmatch(r'"generation-key";r=0;t=\d+, "generation";r=3;t=\d+', made[-1].headers["ratelimit"]), (
                "a request that the key's limit refuses must not count for the tenant"
            )
            others = [tenant.http.post("/image", json={"prompt": "x"}).status_code for _ in range(4)]
            assert others == [201, 201, 201, 429]
            assert [each["remaining"] for each in bounded.get("/me").json()["limits"]] == [0, 0]


def test_tenant_limit_replaces_server_limit(tmp_path: Path) -> None:
    with serving(limited_settings(tmp_path, images_per_minute=100)) as server:
        tenant = server.new_tenant("t")
        server.call(
            lambda services: services.tenants.change_tenant(tenant.guid, TenantChange(images_per_minute=2), actor=ACTOR)
        )
        with tenant.http, second_key(server, tenant).http as second:
            clients = [tenant.http, second] * 3
            made = [client.post("/image", json={"prompt": "x"}).status_code for client in clients]
            assert made == [201, 201, 429, 429, 429, 429]
            # A different body, header or address does not change the bucket.
            for headers in ({"X-Forwarded-For": "192.0.2.1"}, {"User-Agent": "other"}, {"Idempotency-Key": "k"}):
                assert_problem(second.post("/image", json={"prompt": "y"}, headers=headers), 429, "rate_limited")
            assert tenant.http.get("/me").json()["limits"] == [
                {"policy": "generation", "limit": 2, "remaining": 0, "reset_seconds": pytest.approx(59, abs=10)}
            ]


def test_reading_remaining_limit_is_not_counted(tmp_path: Path) -> None:
    with serving(limited_settings(tmp_path, images_per_minute=7)) as server:
        tenant = server.new_tenant("t")
        with tenant.http:
            told = [tenant.http.get("/me").json()["limits"] for _ in range(3)]
    assert told == [[{"policy": "generation", "limit": 7, "remaining": 7, "reset_seconds": 0}]] * 3


@pytest.mark.parametrize("path", ["/generation", "/v1/images/generations", "/v1/images/edits"])
def test_every_picture_of_an_order_is_counted(
    path: str, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    change = TenantChange(images_per_minute=6)
    server.call(lambda services: services.tenants.change_tenant(tenant.guid, change, actor=ACTOR))

    def order(n: int) -> httpx2.Response:
        fields = {"prompt": "a fox", "n": n}
        if path.endswith("edits"):
            return tenant.http.post(path, data=fields, files={"image": png(8, 8)})
        return tenant.http.post(path, json=fields)

    answers = [order(n) for n in (3, 4, 2, 1)]
    # A refused request counts as one.
    assert [(each.is_success, left(each)) for each in answers] == [(True, 3), (False, 2), (True, 0), (False, 0)]
    for refused in (answers[1], answers[3]):
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
    wait_until(lambda: sorted(line.n for line in upstream.ledger) == [2, 3])


def test_classes_and_callers_have_separate_buckets(tmp_path: Path) -> None:
    with serving(limited_settings(tmp_path, reads_per_second=1, changes_per_minute=1)) as server:
        one, two = server.new_tenant("one"), server.new_tenant("two")
        with one.http, two.http, server.client() as anonymous:
            assert one.http.delete(f"/image/{ABSENT_GUID}").status_code == 404
            assert one.http.delete(f"/image/{ABSENT_GUID}").status_code == 429
            assert two.http.delete(f"/image/{ABSENT_GUID}").status_code == 404
            assert left(one.http.get("/image")) == left(two.http.get("/image")) == left(anonymous.get("/image")) == 0
            assert one.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("redis_too", scaled([True], [False, True]))
def test_two_processes_with_one_redis_share_the_limit(
    redis_too: bool,  # noqa: FBT001  (a pytest parameter)
    redis: RedisServer,
    tmp_path: Path,
) -> None:
    url = SecretStr(redis.url) if redis_too else None
    settings = limited_settings(tmp_path, sign_ins_per_minute=20, redis_url=url)
    new_api_key(settings)
    with running_server(settings, tmp_path) as one, running_server(settings, tmp_path) as two:
        with one.client() as first, two.client() as second, ThreadPoolExecutor(8) as pool:
            # A request without database access: the database may be too busy under load.
            statuses = Counter(pool.map(lambda client: signs_in(client, None), [first, second] * 30))
            assert first.get("/readyz").json()["limits"] == ("shared" if redis_too else None)
        assert "sesame" not in one.log.read_text() + two.log.read_text()
    assert statuses == ({400: 20, 429: 40} if redis_too else {400: 40, 429: 20})


def signs_in(client: httpx2.Client, forwarded: str | list[str] | None) -> int:
    """Return the status of a token request with this X-Forwarded-For."""
    values = [forwarded] if isinstance(forwarded, str) else forwarded or []
    headers = [("X-Forwarded-For", value) for value in values]
    return client.post("/auth/token", data={"grant_type": "x"}, headers=headers).status_code


FORGED: list[str | list[str] | None] = [
    None,
    "192.0.2.1",
    "192.0.2.2, 127.0.0.1",
    ["192.0.2.3", "192.0.2.4"],
    "x",
    "::1",
]


def test_untrusted_forwarded_address_is_ignored(tmp_path: Path) -> None:
    with serving(limited_settings(tmp_path, sign_ins_per_minute=1)) as server, server.client() as client:
        assert [signs_in(client, forged) for forged in FORGED] == [400, *[429] * (len(FORGED) - 1)]


def test_last_untrusted_forwarded_address_counts(tmp_path: Path) -> None:
    settings = limited_settings(
        tmp_path, sign_ins_per_minute=1, trusted_proxies="127.0.0.1,10.0.0.0/8,2001:db8:ff::/48"
    )
    expected: list[tuple[str | list[str], int]] = [
        ("192.0.2.1", 400),
        ("192.0.2.1", 429),
        ("192.0.2.1:4711", 429),
        ("198.51.100.7, 192.0.2.1", 429),
        ("198.51.100.7, 192.0.2.1, 10.1.2.3", 429),
        (["198.51.100.8", "192.0.2.1, 10.1.2.3"], 429),
        ("::ffff:192.0.2.1", 429),
        ("192.0.2.1, 2001:db8:ff::1", 429),
        ("192.0.2.2", 400),
        ("2001:db8::1", 400),
        ("[2001:db8::2]:4711", 429),
        ("2001:db8:0:1::1", 400),
        # All invalid addresses are one client.
        ("unknown", 400),
        ("_hidden", 429),
        ("192.0.2.99, <script>", 429),
        # Without an address, the proxy itself is the client.
        ("", 400),
        ("192.0.2.50,", 429),
    ]
    with serving(settings) as server, server.client() as client:
        assert [(value, signs_in(client, value)) for value, _ in expected] == expected


@pytest.mark.parametrize("trusted", scaled(["127.0.0.0/8"], ["", "192.0.2.0/24", "127.0.0.0/8"]))
def test_worker_processes_trust_the_same_proxies(trusted: str, tmp_path: Path, redis: RedisServer) -> None:
    settings = limited_settings(tmp_path, sign_ins_per_minute=1, redis_url=SecretStr(redis.url))
    new_api_key(settings)
    # uvicorn's own variable must have no effect.
    environment = {"PIXYPROXY_TRUSTED_PROXIES": trusted, "FORWARDED_ALLOW_IPS": "*"}
    with running_server(settings, tmp_path, workers=2, environment=environment) as server:
        answers = []
        for number in range(20):
            # Each connection may reach another worker.
            with server.client() as client:
                answers.append(signs_in(client, f"203.0.113.{number}, 198.51.100.{number % 2}"))
    assert answers.count(400) == (2 if trusted == "127.0.0.0/8" else 1)
    assert answers.count(429) == 20 - answers.count(400)


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
        ("", "unknown"),
        ("192.0.2.1\r\nforged", "unknown"),
    ],
)
def test_address_maps_to_its_client_network(host: str, bucket: str) -> None:
    assert client_address(Request({"type": "http", "client": (host, 4711)})) == bucket


def test_connection_without_address_has_a_bucket() -> None:
    assert client_address(Request({"type": "http", "client": None})) == "unknown"


def test_applications_count_separately(tmp_path: Path) -> None:
    settings = limited_settings(tmp_path, sign_ins_per_minute=2)
    with serving(settings) as one, serving(settings) as two, one.client() as first, two.client() as second:
        assert [signs_in(client, None) for client in (first, second) * 3] == [400] * 4 + [429] * 2


@pytest.fixture(params=["memory", "redis"])
async def limits(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RateLimits]:
    """Yield limits, in memory or Redis, that allow few failures."""
    settings = limited_settings(tmp_path, failures_per_address=20, failures_per_name=5)
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        settings = settings.model_copy(update={"redis_url": SecretStr(server.url)})
    made = create_rate_limits(settings)
    yield made
    await made.counters.close()


@pytest.mark.anyio
async def test_failures_per_address_are_limited(limits: RateLimits) -> None:
    for number in range(20):
        await limits.refuse_guessing("192.0.2.1", f"key:{number}")
        await limits.note_failure("192.0.2.1", f"key:{number}")
    for name in ("key:other", None):
        with pytest.raises(TooManyFailuresException) as refused:
            await limits.refuse_guessing("192.0.2.1", name)
        assert refused.value.retry_after_seconds is not None
        assert 1 <= refused.value.retry_after_seconds <= 60
    await limits.refuse_guessing("192.0.2.2", "key:0")


@pytest.mark.anyio
async def test_failures_per_name_are_limited_over_all_addresses(limits: RateLimits) -> None:
    for number in range(5):
        await limits.refuse_guessing(f"192.0.2.{number}", "user:ann")
        # The cost applies only to the address.
        await limits.note_failure(f"192.0.2.{number}", "user:ann", cost=10)
    with pytest.raises(TooManyFailuresException):
        await limits.refuse_guessing("192.0.2.99", "user:ann")
    await limits.refuse_guessing("192.0.2.99", "user:bob")
    await limits.refuse_guessing("192.0.2.99", None)


@pytest.mark.anyio
async def test_failure_costing_more_than_remaining_uses_limit_up(limits: RateLimits) -> None:
    for _ in range(15):
        await limits.note_failure("192.0.2.1", None)
    await limits.note_failure("192.0.2.1", None, cost=10)
    with pytest.raises(TooManyFailuresException):
        await limits.refuse_guessing("192.0.2.1", None)
    await limits.note_failure("192.0.2.2", None, cost=1_000)
    with pytest.raises(TooManyFailuresException):
        await limits.refuse_guessing("192.0.2.2", None)


@pytest.mark.anyio
async def test_checking_limits_is_not_counted(limits: RateLimits) -> None:
    for _ in range(4):
        await limits.note_failure("192.0.2.1", "user:ann")
    for _ in range(100):
        await limits.refuse_guessing("192.0.2.1", "user:ann")
    # The fifth failure is still the first to exceed the limit.
    await limits.note_failure("192.0.2.1", "user:ann")
    with pytest.raises(TooManyFailuresException):
        await limits.refuse_guessing("192.0.2.1", "user:ann")


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["user:" + "x" * 100_000, "user:\r\n\x00\ud800", "user:é/../*"])
async def test_any_name_has_a_bucket(name: str, limits: RateLimits) -> None:
    for _ in range(5):
        await limits.note_failure("192.0.2.1", name)
    with pytest.raises(TooManyFailuresException):
        await limits.refuse_guessing("192.0.2.2", name)
    await limits.refuse_guessing("192.0.2.2", f"{name}x")


@pytest.mark.anyio
async def test_refusals_per_subject_are_limited(limits: RateLimits) -> None:
    for _ in range(120):
        await limits.note_refusal("one")
    with pytest.raises(TooManyFailuresException) as refused:
        await limits.note_refusal("one")
    assert refused.value.retry_after_seconds is not None
    assert 1 <= refused.value.retry_after_seconds <= 60
    await limits.note_refusal("two")


def test_me_has_remaining_amounts_of_both_limits(tmp_path: Path) -> None:
    principal = Principal(
        tenant_id=TenantId(1),
        tenant_guid=TenantGuid(ABSENT_GUID),
        tenant_name="t",
        default_visibility=Visibility.PUBLIC,
        subject_type=SubjectType.KEY,
        subject=Subject("k"),
        scopes=EVERY_IMAGE_SCOPE,
        tenant_images_per_minute=9,
        key_images_per_minute=4,
    )
    told = create_rate_limits(limited_settings(tmp_path)).images.remaining(principal)
    assert [(each.policy, each.limit, each.remaining) for each in told] == [
        ("generation-key", 4, 4),
        ("generation", 9, 9),
    ]
