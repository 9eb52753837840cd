"""Every error class of the SDK, and its message."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from pixyproxy.core.models.principal import Scope
from tests.conftest import with_short_upstream_timeout
from tests.support.identity import make_key, make_tenant, order_token
from tests.support.server import RunningServer, TenantClient
from tests.support.upstream import (
    CUT,
    HANG,
    HTML,
    MODERATED,
    NOT_FOUND,
    POLICY_VIOLATION,
    SERVER_ERROR,
    UNAUTHORIZED,
    FakeUpstream,
    Refusal,
)
from tests.web.builders import tenant_with
from tests.web.openai.sdk import Sdk, connected

pytestmark = pytest.mark.usefixtures("upstream")
ORDER = {"Idempotency-Key": "order-1"}


def refusal(sdk: Sdk, **parameters: object) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as raised:
        sdk.generate(**parameters)  # type: ignore[arg-type]  # parameters of the SDK
    error = raised.value
    assert isinstance(error.body, dict)
    assert error.body["message"]
    assert error.body["request_id"] == error.request_id == error.response.headers["x-request-id"]
    return error


def test_wrong_key_is_authentication_error(form: str, server: RunningServer) -> None:
    with connected(server.url, "pxy_wrong", form=form) as sdk:
        error = refusal(sdk)
    assert isinstance(error, openai.AuthenticationError)
    assert (error.code, error.type) == ("credential_invalid", "authentication_error")


def test_key_without_scope_is_permission_error(form: str, server: RunningServer, tenant: TenantClient) -> None:
    reader = tenant_with(server, f"reader of {tenant.guid}", Scope.IMAGE_READ)
    with reader.http, connected(server.url, reader.api_key, form=form) as sdk:
        error = refusal(sdk)
    assert isinstance(error, openai.PermissionDeniedError)
    assert (error.code, error.type) == ("scope_missing", "permission_error")


def test_unknown_route_is_not_found(sdk: Sdk) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        sdk.ask(lambda client: client.chat.completions.create(model="gpt-9", messages=[]))
    assert raised.value.code == "route_not_found"


def test_base_url_without_v1_gets_helpful_error(form: str, server: RunningServer, tenant: TenantClient) -> None:
    with connected(server.url, tenant.api_key, form=form, base_url=server.url) as sdk:
        for ask in (lambda client: client.images.generate(prompt="a fox"), lambda client: client.models.list()):
            with pytest.raises(openai.NotFoundError, match="under /v1"):
                sdk.ask(ask)


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 32_001}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": "1"}, "n"),
        ({"partial_images": 4, "stream": True}, "partial_images"),
        ({"response_format": "bmp"}, "response_format"),
        ({"model": "no model"}, "model"),
        ({"extra_body": {"visibility": "secret"}}, "visibility"),
        ({"extra_body": {"filename": "a/b"}}, "filename"),
    ],
    ids=repr,
)
def test_invalid_parameter_is_named_in_bad_request(
    parameters: dict[str, object], param: str, sdk: Sdk, upstream: FakeUpstream
) -> None:
    error = refusal(sdk, **parameters)
    assert isinstance(error, openai.BadRequestError)
    assert (error.param, error.type) == (param, "invalid_request_error")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "extra",
    [
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": "' + b"x" * 70_000 + b'"}',
    ],
    ids=["NaN", "infinity", "a lone surrogate", "one in a name", "deep", "very deep", "long"],
)
@pytest.mark.parametrize("header", [{}, {"x-stainless-retry-count": "0"}], ids=["by hand", "as the SDK"])
def test_unserializable_parameters_are_rejected(
    extra: bytes, header: dict[str, str], tenant: TenantClient, upstream: FakeUpstream
) -> None:
    body = b'{"prompt": "a red fox", ' + extra[1:]
    headers = {"Content-Type": "application/json", **header}
    answer = tenant.http.post("/v1/images/generations", content=body, headers=headers)
    assert answer.status_code == 400, answer.text[:500]
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.headers["x-should-retry"] == "false"
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [(MODERATED, "moderation_blocked"), (POLICY_VIOLATION, "content_policy_violation"), (NOT_FOUND, "model_not_found")],
    ids=["moderated", "policy", "no such model"],
)
def test_upstream_refusal_keeps_its_code(behaviour: object, code: str, sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.behave(behaviour)  # type: ignore[arg-type]  # every refusal is a behaviour
    error = refusal(sdk)
    assert isinstance(error, openai.BadRequestError)
    assert error.code == code
    assert len(upstream.ledger) == 1


def test_order_with_unknown_outcome_conflicts(sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.behave_once(CUT)
    assert refusal(sdk, extra_headers=ORDER).status_code == 502
    error = refusal(sdk, extra_headers=ORDER)
    assert isinstance(error, openai.ConflictError)
    assert (error.code, error.type) == ("generation_unknown", "conflict_error")
    assert len(upstream.ledger) == 1


def test_idempotency_key_of_another_order_is_unprocessable(sdk: Sdk, upstream: FakeUpstream) -> None:
    sdk.generate(extra_headers=ORDER)
    error = refusal(sdk, prompt="a dog", extra_headers=ORDER)
    assert isinstance(error, openai.UnprocessableEntityError)
    assert error.code == "idempotency_mismatch"
    assert len(upstream.ledger) == 1


def test_rate_limit_error_lets_sdk_retry(
    form: str, owner: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    key = make_key(owner.http, Scope.IMAGE_GENERATE, images_per_minute=1)
    with connected(server.url, key["api_key"], form=form, max_retries=0) as sdk:
        assert sdk.generate().data
        error = refusal(sdk)
    assert isinstance(error, openai.RateLimitError)
    assert (error.code, error.type) == ("rate_limited", "rate_limit_error")
    assert error.response.headers["x-should-retry"] == "true"
    assert 0 < int(error.response.headers["retry-after"]) <= 60
    assert len(upstream.ledger) == 1


def test_exhausted_budget_is_insufficient_quota(
    form: str, owner: TenantClient, server: RunningServer, upstream: FakeUpstream
) -> None:
    poor = make_tenant(owner.http, monthly_budget_usd=0.000001)
    token = order_token(owner.http, poor["guid"], scope="image:generate")
    with connected(server.url, token, form=form) as sdk:
        error = refusal(sdk)
    assert isinstance(error, openai.RateLimitError)
    assert (error.code, error.type) == ("budget_exceeded", "insufficient_quota")
    assert error.response.headers["x-should-retry"] == "false"
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (SERVER_ERROR, 502, "upstream_failed"),
        (UNAUTHORIZED, 502, "upstream_credential_refused"),
        (HTML, 502, "upstream_answer_invalid"),
        (CUT, 502, "upstream_silent"),
    ],
    ids=["500", "our key is wrong", "HTML", "cut"],
)
def test_sdk_does_not_retry_uncertain_outcomes(
    behaviour: object, status: int, code: str, sdk: Sdk, upstream: FakeUpstream
) -> None:
    upstream.behave(behaviour)  # type: ignore[arg-type]  # every fault is a behaviour
    assert_bought_no_more(sdk, upstream, status=status, code=code)


@with_short_upstream_timeout
def test_sdk_does_not_retry_after_silent_upstream(sdk: Sdk, upstream: FakeUpstream) -> None:
    upstream.behave(HANG)
    assert_bought_no_more(sdk, upstream, status=504, code="upstream_timeout")


def assert_bought_no_more(sdk: Sdk, upstream: FakeUpstream, *, status: int, code: str) -> None:
    """Assert that an order gets this error after one upstream call."""
    error = refusal(sdk)
    assert isinstance(error, openai.InternalServerError)
    assert (error.status_code, error.code, error.type) == (status, code, "server_error")
    assert error.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


def test_sdk_retries_busy_upstream(sdk: Sdk, upstream: FakeUpstream) -> None:
    busy = Refusal(status=429, message="Busy.", code="rate_limit_exceeded", retry_after=1)
    upstream.behave_once(busy)
    assert sdk.generate().data
    assert [line.bought for line in upstream.ledger] == [False, True]


def test_error_does_not_repeat_input(sdk: Sdk) -> None:
    error = refusal(sdk, prompt="my secret " * 4000)
    assert "secret" not in json.dumps(error.body)


def test_concurrent_equal_orders_are_separate(
    server: RunningServer, tenant: TenantClient, upstream: FakeUpstream
) -> None:
    with connected(server.url, tenant.api_key) as sdk, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: sdk.generate(), range(4)))
    assert len({answer.generation for answer in answers}) == 4
    assert len(upstream.ledger) == 4
