"""Every invalid input gets its error, stores nothing, and buys nothing unintended."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support.problems import assert_problem
from tests.support.server import RunningServer, TenantClient, make_settings, serving, upstream_settings
from tests.support.upstream import FakeUpstream, Flood, refusing_base_url
from tests.web.builders import make_image
from tests.web.envelope import assert_openai_error
from tests.web.errors.error_table import CASES, OPENAI_CASES, Case, Situation
from tests.web.upstream_faults import ANSWERED, FAULTS, MAYBE_PAID, Fault

SECRETS = ("sk-fake", "Traceback", "sqlalchemy", str(Path(__file__).parent), "pxy_")
"""Texts that no response may contain: the upstream's key, code, paths, credentials."""


def files_of(server: RunningServer) -> set[Path]:
    """Return every file of the store."""
    return set(server.settings.images.glob("[!.]*/*"))


@contextmanager
def storing_nothing(server: RunningServer, tenant: TenantClient) -> Iterator[None]:
    """Assert that the block adds no image to the tenant and no file to the store."""
    before = files_of(server)
    yield
    assert tenant.http.get("/image", params={"mine": "true"}).json() == []
    assert files_of(server) == before


@pytest.fixture
def situation(server: RunningServer, tenant: TenantClient) -> Situation:
    """Return the server with the tenant."""
    return Situation(server=server, tenant=tenant)


@pytest.mark.parametrize("server", ["mysql"], indirect=True)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_request_gets_its_problem(case: Case, situation: Situation, upstream: FakeUpstream) -> None:
    with storing_nothing(situation.server, situation.tenant):
        answer = case.send(situation)
    problem = assert_problem(answer, case.status, case.code)
    assert {name: answer.headers.get(name) for name, _ in case.headers} == dict(case.headers)
    assert not any(secret in str(problem).replace("pxy_…", "") for secret in SECRETS)
    assert upstream.requests == []


@pytest.mark.parametrize("server", ["mysql"], indirect=True)
@pytest.mark.parametrize("case", OPENAI_CASES, ids=str)
def test_bad_openai_request_gets_its_error(case: Case, situation: Situation, upstream: FakeUpstream) -> None:
    with storing_nothing(situation.server, situation.tenant):
        answer = case.send(situation)
    error = assert_openai_error(answer, case.status, case.code)
    assert answer.headers["x-should-retry"] == "false"
    assert not any(secret in str(error).replace("pxy_…", "") for secret in SECRETS)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("server", "fault"),
    [("impatient" if fault.slow else "sqlite", fault) for fault in FAULTS],
    indirect=["server"],
    ids=str,
    # Otherwise pytest would request both fixtures and start a server for each fault.
    scope="session",
)
def test_faulty_upstream_is_called_once_and_nothing_is_stored(
    fault: Fault, server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    upstream.behave(fault.behaviour)
    with storing_nothing(server, tenant):
        answer = tenant.http.post("/image", json={"prompt": "a red fox"})
        problem = assert_problem(answer, fault.status, fault.code)
    assert answer.headers.get("retry-after") == fault.retry_after
    assert problem.get("upstream_code") == fault.upstream_code
    assert not any(secret in answer.text for secret in SECRETS)
    assert len(upstream.requests) == 1


QUICK = [fault for fault in FAULTS if not fault.slow]


def order_again(fault: Fault, tenant: TenantClient, upstream: FakeUpstream) -> httpx2.Response:
    """Repeat an order with its key after the upstream's fault, and return the response."""
    upstream.behave_once(fault.behaviour)
    headers = {"Idempotency-Key": "order-4711"}
    tenant.http.post("/image", json={"prompt": "a red fox"}, headers=headers)
    return tenant.http.post("/image", json={"prompt": "a red fox"}, headers=headers)


@pytest.mark.parametrize("fault", [fault for fault in QUICK if fault.code in MAYBE_PAID], ids=str)
def test_same_key_buys_nothing_after_silent_upstream(
    fault: Fault, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    assert_problem(order_again(fault, tenant, upstream), 409, "generation_unknown")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("fault", [fault for fault in QUICK if fault.code in ANSWERED], ids=str)
def test_same_key_repeats_problem_after_response_without_picture(
    fault: Fault, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    assert_problem(order_again(fault, tenant, upstream), fault.status, fault.code)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("fault", [fault for fault in QUICK if fault.code not in MAYBE_PAID | ANSWERED], ids=str)
def test_same_key_buys_after_upstream_refusal(fault: Fault, tenant: TenantClient, upstream: FakeUpstream) -> None:
    again = order_again(fault, tenant, upstream)
    assert again.status_code == 201
    assert "idempotency-replayed" not in again.headers
    assert len(upstream.requests) == 2


def test_unreachable_upstream_has_its_own_error(tmp_path: Path) -> None:
    with refusing_base_url() as url:
        settings = make_settings(tmp_path, openai_api_key="sk-x", openai_base_url=url)
        with serving(settings) as server, server.new_tenant("t").http as client:
            answer = client.post("/image", json={"prompt": "a fox"})
            assert_problem(answer, 503, "upstream_unreachable")
            assert answer.headers["retry-after"] == "10"
            assert files_of(server) == set()


@pytest.mark.parametrize("announced", [True, False])
def test_excessive_upstream_response_is_aborted(announced: bool, tmp_path: Path) -> None:  # noqa: FBT001  (pytest's way)
    with FakeUpstream() as upstream:
        settings = make_settings(tmp_path, max_picture_bytes=1_000_000, **upstream_settings(upstream))
        with serving(settings) as server:
            tenant = server.new_tenant("t")
            upstream.behave(Flood(megabytes=500, announced=announced))
            with tenant.http:
                with storing_nothing(server, tenant):
                    answer = tenant.http.post("/image", json={"prompt": "a fox"})
                    assert_problem(answer, 502, "upstream_picture_unusable")
                upstream.reset()
                assert make_image(tenant)["width"] == 1024


def test_rate_limit_applies_to_one_tenant(tmp_path: Path) -> None:
    with FakeUpstream() as upstream:
        settings = make_settings(tmp_path, images_per_minute=2, **upstream_settings(upstream))
        with serving(settings) as server:
            tenant, other = server.new_tenant("one"), server.new_tenant("two")
            with tenant.http, other.http:
                answers = [tenant.http.post("/image", json={"prompt": "a fox"}) for _ in range(4)]
                assert [answer.status_code for answer in answers] == [201, 201, 429, 429]
                assert_problem(answers[-1], 429, "rate_limited")
                assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
                assert len(upstream.requests) == 2
                make_image(other)
                # Reads have a separate limit.
                assert tenant.http.get("/image", params={"mine": "true"}).status_code == httpx2.codes.OK
