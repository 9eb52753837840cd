"""The fake upstream agrees with the official SDK and its types, because tests rely on it."""

import base64
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import openai
import pytest
from openai.types.image_generate_params import ImageGenerateParamsNonStreaming
from openai.types.images_response import ImagesResponse
from PIL import Image

from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.service.private.billing.prices import load_prices
from pixyproxy.service.private.upstream.openai.usage import read_usage
from tests.support import pictures, upstream
from tests.support.upstream import Behaviour, FakeUpstream

_ROOT = Path(__file__).parents[2]
_RETIRED_PARAMETERS = {"response_format", "style"}


@pytest.fixture(scope="module")
def _served() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
def fake(_served: FakeUpstream) -> FakeUpstream:
    _served.reset()
    return _served


@pytest.fixture
def generate(fake: FakeUpstream) -> Iterator[Callable[..., ImagesResponse]]:
    with _client(fake.base_url) as client:
        yield _generation_with(client)


def _client(base_url: str, *, api_key: str = upstream.API_KEY, timeout: float = 30) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=timeout)


def _generation_with(client: openai.OpenAI) -> Callable[..., ImagesResponse]:
    def generate(**parameters: object) -> ImagesResponse:
        wanted: dict[str, Any] = {"model": "gpt-image-2", "prompt": "a red fox"}
        return cast("ImagesResponse", client.images.generate(**{**wanted, **parameters}))

    return generate


def _pictures_of(response: ImagesResponse) -> list[bytes]:
    assert response.data
    return [base64.b64decode(item.b64_json or "") for item in response.data]


@pytest.mark.parametrize("model", upstream.MODELS)
@pytest.mark.parametrize(("quality", "size"), [("low", "256x256"), ("medium", "1536x1024"), ("high", "3840x2160")])
def test_usages_are_within_the_models_maximum_cost(
    fake: FakeUpstream, generate: Callable[..., ImagesResponse], model: str, quality: str, size: str
) -> None:
    fake.picture = pictures.png(16, 16)
    usage = read_usage(generate(model=model, quality=quality, size=size).to_dict()["usage"])
    order = PictureOrder(prompt="a red fox", model=model, options={"quality": quality, "size": size})
    cost = load_prices(None).cost(order, UpstreamAnswer(usage=usage), pictures=1)
    assert 0 < (cost or 0) <= (load_prices(None).upper_bound(order) or 0)


def test_generation_response_matches_the_sdk_types(fake: FakeUpstream, generate: Callable[..., ImagesResponse]) -> None:
    response = generate(n=2, quality="low", size="1536x1024", output_format="webp")

    first, second = _pictures_of(response)
    with Image.open(io.BytesIO(first)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (1536, 1024))
    assert first == second
    assert response.usage
    assert response.usage.input_tokens == 3
    assert response.usage.output_tokens == 2 * 158
    assert response.usage.total_tokens == 3 + 2 * 158
    assert ImagesResponse.model_validate(response.to_dict(), strict=True) == response
    (request,) = fake.requests
    assert request.path == upstream.GENERATIONS_PATH
    assert request.headers["authorization"] == f"Bearer {upstream.API_KEY}"
    assert request.body["prompt"] == "a red fox"
    assert b"a red fox" in request.raw


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "gif"])
def test_picture_has_the_requested_format(generate: Callable[..., ImagesResponse], file_format: str) -> None:
    (picture,) = _pictures_of(generate(output_format=file_format))

    with Image.open(io.BytesIO(picture)) as opened:
        assert opened.format == file_format.upper()
        assert opened.size == (1024, 1024)


def test_picture_set_by_a_test_is_served(fake: FakeUpstream, generate: Callable[..., ImagesResponse]) -> None:
    fake.picture = pictures.png(16, 16, seed=7)

    assert _pictures_of(generate()) == [fake.picture]


def test_known_parameters_match_the_sdk() -> None:
    params = set(ImageGenerateParamsNonStreaming.__annotations__)

    assert params - _RETIRED_PARAMETERS == upstream.KNOWN_PARAMETERS


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"prompt": ""}, 400, "invalid_value"),
        ({"n": 0}, 400, "invalid_value"),
        ({"n": 11}, 400, "invalid_value"),
        ({"extra_body": {"seed": 1}}, 400, "unknown_parameter"),
        ({"response_format": "url"}, 400, "unknown_parameter"),
        ({"quality": "hd"}, 400, "invalid_value"),
        ({"size": "1000x1000"}, 400, "invalid_value"),
        ({"frame_count": 4}, 400, "invalid_value"),
        ({"extra_body": {"quality": ["low"]}}, 400, "invalid_value"),
        ({"extra_body": {"size": {}}}, 400, "invalid_value"),
        ({"model": "no-such-model"}, 404, "model_not_found"),
    ],
)
def test_requests_that_the_real_api_rejects_are_rejected(
    generate: Callable[..., ImagesResponse],
    parameters: dict[str, Any],
    status: int,
    code: str,
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        generate(**parameters)

    assert (caught.value.status_code, caught.value.code) == (status, code)


def test_other_keys_and_unknown_paths_are_rejected(fake: FakeUpstream) -> None:
    with _client(fake.base_url, api_key="sk-other") as client:
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
            client.images.generate(prompt="a red fox")
        with pytest.raises(openai.NotFoundError, match="Invalid URL"):
            client.files.list()


def test_models_are_listed_and_found(fake: FakeUpstream) -> None:
    with _client(fake.base_url) as client:
        listed = list(client.models.list())
        assert [model.id for model in listed] == list(upstream.MODELS)
        assert [client.models.retrieve(model.id) for model in listed] == listed
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("gpt-image-0")
    assert caught.value.code == "model_not_found"
    with _client(fake.base_url, api_key="sk-other") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_every_behaviour_has_a_name() -> None:
    exported = {name: getattr(upstream, name) for name in upstream.__all__ if name.isupper()}
    behaviours = {name: value for name, value in exported.items() if hasattr(value, "answer")}

    assert behaviours == upstream.BEHAVIOURS


@pytest.mark.parametrize(
    ("behaviour", "error", "code"),
    [
        (upstream.MODERATED, openai.BadRequestError, "moderation_blocked"),
        (upstream.POLICY_VIOLATION, openai.BadRequestError, "content_policy_violation"),
        (upstream.UNAUTHORIZED, openai.AuthenticationError, "invalid_api_key"),
        (upstream.FORBIDDEN, openai.PermissionDeniedError, "organization_not_verified"),
        (upstream.NOT_FOUND, openai.NotFoundError, "model_not_found"),
        (upstream.CONFLICT, openai.ConflictError, None),
        (upstream.UNPROCESSABLE, openai.UnprocessableEntityError, None),
        (upstream.RATE_LIMITED, openai.RateLimitError, "rate_limit_exceeded"),
        (upstream.QUOTA_EXHAUSTED, openai.RateLimitError, "insufficient_quota"),
        (upstream.SERVER_ERROR, openai.InternalServerError, None),
        (upstream.UNAVAILABLE, openai.InternalServerError, None),
    ],
)
def test_refusal_raises_the_sdk_error(
    fake: FakeUpstream,
    generate: Callable[..., ImagesResponse],
    behaviour: upstream.Refusal,
    error: type[openai.APIStatusError],
    code: str | None,
) -> None:
    fake.behave_once(behaviour)

    with pytest.raises(error) as caught:
        generate()

    assert caught.value.status_code == behaviour.status
    assert caught.value.code == code
    retry_after = caught.value.response.headers.get("retry-after")
    assert retry_after == ("7" if behaviour is upstream.RATE_LIMITED else None)
    assert len(fake.requests) == 1
    assert generate().data


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (upstream.CUT, openai.APIConnectionError),
        (upstream.TRUNCATED, openai.APIConnectionError),
        (upstream.EMPTY_BODY, ValueError),
        (upstream.BROKEN_JSON, ValueError),
    ],
)
def test_unusable_answer_raises(
    fake: FakeUpstream,
    generate: Callable[..., ImagesResponse],
    behaviour: Behaviour,
    error: type[Exception],
) -> None:
    fake.behave(behaviour)

    with pytest.raises(error):
        generate()

    assert len(fake.requests) == 1


@pytest.mark.parametrize("behaviour", [upstream.HANG, upstream.HANG_AFTER_HEADERS])
def test_endless_answer_is_a_timeout(fake: FakeUpstream, behaviour: Behaviour) -> None:
    fake.behave(behaviour)

    with _client(fake.base_url, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        client.images.generate(prompt="a red fox")

    fake.wait_for_requests(1)
    assert len(fake.requests) == 1


def _data(response: ImagesResponse) -> object:
    return response.data


def _first_value(response: ImagesResponse) -> object:
    return response.data[0].b64_json if response.data else response


def _first_bytes(response: ImagesResponse) -> bytes:
    return _pictures_of(response)[0]


@pytest.mark.parametrize(
    ("behaviour", "look_at", "expected"),
    [
        (upstream.HTML, str, "<html>A proxy's page</html>"),
        (upstream.JSON_STRING, str, "a string"),
        (upstream.JSON_LIST, list, [1, 2, 3]),
        (upstream.DATA_NULL, _data, None),
        (upstream.DATA_EMPTY, _data, []),
        (upstream.NO_PICTURE, _first_value, None),
        (upstream.NUMBER_FOR_PICTURE, _first_value, 12345),
        (upstream.BAD_BASE64, _first_value, "@@@ no base64 @@@"),
        (upstream.SVG_AS_PNG, _first_bytes, pictures.svg()),
        (upstream.HTML_AS_PNG, _first_bytes, upstream.HTML_AS_PNG.picture),
        (upstream.HUGE_PIXELS, _first_bytes, pictures.png_claiming(50_000, 50_000)),
    ],
)
def test_odd_answer_is_accepted_by_the_sdk(
    fake: FakeUpstream,
    generate: Callable[..., ImagesResponse],
    behaviour: Behaviour,
    look_at: Callable[[ImagesResponse], object],
    expected: object,
) -> None:
    fake.behave_once(behaviour)

    assert look_at(generate()) == expected


def test_slow_drip_outlasts_the_read_timeout(fake: FakeUpstream) -> None:
    timeout = 1.5
    fake.picture = pictures.png(16, 16)
    fake.behave_once(upstream.Drip(piece=60, pause=0.1))

    started = time.monotonic()
    with _client(fake.base_url, timeout=timeout) as client:
        assert client.images.generate(prompt="a red fox").data

    assert time.monotonic() - started > timeout


@pytest.mark.parametrize("announced", [True, False])
def test_flood_has_its_announced_length(fake: FakeUpstream, *, announced: bool) -> None:
    fake.behave_once(upstream.Flood(megabytes=20, announced=announced))

    with (
        _client(fake.base_url) as client,
        client.images.with_streaming_response.generate(prompt="a red fox") as answer,
    ):
        assert ("content-length" in answer.headers) is announced
        assert sum(map(len, answer.iter_bytes())) > 20_000_000
