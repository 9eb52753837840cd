"""Upstreams with their own dialects: the picture is stored, or the right party gets the error."""

import base64
import io
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import openai
import pytest
from openai.types.image_edit_params import ImageEditParamsBase
from openai.types.image_generate_params import ImageGenerateParamsBase
from PIL import Image

from pixyproxy.core.models.image import MediaType, PictureFormat
from tests.support import pictures
from tests.support.server import UNLIMITED, RunningServer, TenantClient, make_settings, serving
from tests.support.upstream import (
    FORBIDDEN_CONTENT,
    LINKED,
    NO_SUCH_URL,
    OUT_OF_CREDIT,
    QUOTA_EXHAUSTED,
    RATE_LIMITED,
    RESPELLED,
    SVG_AS_PNG,
    Behaviour,
    FakeUpstream,
)
from tests.web.openai.sdk import Sdk, connected, picture_of

ON_SQLITE = pytest.mark.parametrize("server", ["sqlite"], indirect=True)
PASSED_ON = {"credit": OUT_OF_CREDIT, "quota": QUOTA_EXHAUSTED, "address": NO_SUCH_URL}
"""Refusals after which another upstream is called, by the model of the order."""
MODELS = [*PASSED_ON, "content", "busy"]
NOT_STORABLE = {"svg"}
"""Formats of the SDK's types that are rejected, because no picture in them can be stored."""


@dataclass(frozen=True)
class _Pair:
    """A server with two upstreams, both serving all models; a pause applies to one model only."""

    server: RunningServer
    first: FakeUpstream
    second: FakeUpstream

    def orders(self, model: str) -> int:
        """Return how many orders for a model were sent to both."""
        asked = [*self.first.requests, *self.second.requests]
        return sum(request.body.get("model") == model for request in asked)


@pytest.fixture
def client(server: RunningServer, tenant: TenantClient) -> Iterator[Sdk]:
    """Yield the SDK without its own retries; its requests reach ``upstream``."""
    with connected(server.url, tenant.api_key, max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Pair]:
    with FakeUpstream() as first, FakeUpstream() as second:
        listed = [
            {"name": f"{number}-{model}", "base_url": fake.base_url, "api_key": fake.api_key, "models": [model]}
            for number, fake in enumerate((first, second))
            for model in MODELS
        ]
        settings = make_settings(tmp_path_factory.mktemp("pair"), upstreams=listed, **UNLIMITED)
        with serving(settings) as server:
            yield _Pair(server, first, second)


@pytest.fixture
def paired(pair: _Pair) -> Iterator[Sdk]:
    """Yield the SDK without its own retries, for the server with two upstreams."""
    tenant = pair.server.new_tenant(f"tenant {uuid.uuid4()}")
    with tenant.http, connected(pair.server.url, tenant.api_key, max_retries=0) as sdk:
        yield sdk


@ON_SQLITE
@pytest.mark.parametrize("behaviour", [LINKED, RESPELLED], ids=["URLs", "another spelling"])
@pytest.mark.parametrize("count", [1, 3])
def test_picture_is_stored_from_any_response_form(
    behaviour: Behaviour, count: int, tenant: TenantClient, client: Sdk, upstream: FakeUpstream
) -> None:
    upstream.behave(behaviour)
    answer = client.generate(n=count, size="512x512", response_format="b64_json")
    expected = pictures.png(512, 512)
    assert [picture_of(item) for item in answer.data] == [expected] * count
    assert [item.url for item in answer.data] == [None] * count
    assert tenant.http.get(f"/image/{answer.data[0].guid}/content").content == expected
    assert [line.bought for line in upstream.ledger] == [True]


@pytest.mark.parametrize("model", PASSED_ON)
def test_configuration_error_moves_order_to_next_upstream(model: str, pair: _Pair, paired: Sdk) -> None:
    pair.first.behave_for(model, PASSED_ON[model])
    for _ in range(2):
        assert paired.generate(f"a fox for {model}", model=model).data
    (refused,) = [line for line in pair.first.ledger if line.model == model]
    assert not refused.bought
    assert pair.orders(model) == 3


def test_refused_prompt_is_sent_to_one_upstream_without_pausing_it(pair: _Pair, paired: Sdk) -> None:
    for fake in (pair.first, pair.second):
        fake.behave_for("forbidden", FORBIDDEN_CONTENT)
    for _ in range(6):
        with pytest.raises(openai.BadRequestError) as caught:
            paired.generate("something forbidden", model="content")
        assert caught.value.code == "prompt_refused"
    assert pair.orders("content") == 6
    assert [line.model for line in pair.second.ledger].count("content") == 3


def test_rate_limit_of_all_upstreams_returns_their_retry_after(pair: _Pair, paired: Sdk) -> None:
    for fake in (pair.first, pair.second):
        fake.behave_for("busy", RATE_LIMITED)
    with pytest.raises(openai.RateLimitError) as caught:
        paired.generate("a busy fox", model="busy")
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["x-should-retry"] == "true"
    assert pair.orders("busy") == 2


@ON_SQLITE
@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (OUT_OF_CREDIT, 429, "upstream_out_of_funds"),
        (QUOTA_EXHAUSTED, 429, "upstream_out_of_funds"),
        (NO_SUCH_URL, 502, "upstream_address_wrong"),
    ],
    ids=["credit", "quota", "address"],
)
def test_configuration_error_is_not_blamed_on_client(
    behaviour: Behaviour, status: int, code: str, client: Sdk, upstream: FakeUpstream
) -> None:
    upstream.behave(behaviour)
    with pytest.raises(openai.APIStatusError) as caught:
        client.generate()
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert "operator must" in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


@ON_SQLITE
def test_unstorable_picture_is_charged_and_not_bought_again(
    tenant: TenantClient, client: Sdk, server: RunningServer, upstream: FakeUpstream
) -> None:
    upstream.behave(SVG_AS_PNG)
    for expected in ("upstream_picture_unusable", "generation_unknown"):
        with pytest.raises(openai.APIStatusError) as caught:
            client.generate(extra_headers={"Idempotency-Key": "order-1"})
        assert caught.value.code == expected
    (generation,) = tenant.http.get("/generation").json()
    assert (generation["status"], generation["error"]["code"]) == ("unknown", "upstream_picture_unusable")
    (kept,) = [each for each in server.services.recovery.engine.answers.list_all() if each.guid == generation["guid"]]
    assert base64.b64encode(pictures.svg()) in kept.paths[0].read_bytes()
    assert len(upstream.requests) == 1


def _formats_of_the_sdk() -> set[str]:
    """Return every value that the SDK types for ``output_format``."""
    hints = [get_type_hints(kind)["output_format"] for kind in (ImageGenerateParamsBase, ImageEditParamsBase)]
    return {value for hint in hints for literal in get_args(hint) for value in get_args(literal)}


def test_every_sdk_format_is_stored_or_rejected() -> None:
    """A new format must fail here, not after a customer has paid for it."""
    assert _formats_of_the_sdk() == {*get_args(PictureFormat), *NOT_STORABLE}
    assert {f"image/{name}" for name in get_args(PictureFormat)} == set(get_args(MediaType))


@ON_SQLITE
@pytest.mark.parametrize("output_format", get_args(PictureFormat))
def test_supported_format_is_returned(output_format: str, client: Sdk, upstream: FakeUpstream) -> None:
    answer = client.generate(output_format=output_format)
    assert answer.output_format == output_format
    assert Image.open(io.BytesIO(picture_of(answer.data[0]))).format == output_format.upper()
    assert len(upstream.requests) == 1


@ON_SQLITE
@pytest.mark.parametrize(
    "parameters",
    [*({"output_format": name} for name in (*NOT_STORABLE, "avif", "PNG")), {"size": "20000x20000"}],
    ids=str,
)
@pytest.mark.parametrize("operation", ["generate", "edit"])
def test_unstorable_format_is_rejected_before_upstream_call(
    operation: str, parameters: dict[str, Any], client: Sdk, upstream: FakeUpstream
) -> None:
    inputs = {"image": pictures.png(8, 8)} if operation == "edit" else {}
    with pytest.raises(openai.BadRequestError) as caught:
        client.ask(lambda sdk: getattr(sdk.images, operation)(prompt="a fox", extra_body=parameters, **inputs))
    assert caught.value.param == next(iter(parameters))
    assert caught.value.type == "invalid_request_error"
    assert upstream.requests == []
