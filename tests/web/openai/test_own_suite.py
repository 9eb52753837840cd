"""The SDK's own tests (openai-python, tests/api_resources: test_images.py and test_models.py), against PixyProxy.

They call every method in four ways: with required parameters, with all, with the raw response, and with a streamed raw
response. These tests do the same with real pictures, because the SDK's "Example data" is not a picture. Unsupported
calls must return an error that the SDK knows.
"""

from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai.types import ImagesResponse

from tests.support import pictures
from tests.support.upstream import FakeUpstream, Normal
from tests.web.openai.sdk import Sdk

FOX, MASK = pictures.png(64, 48, seed=1), pictures.transparent_png(64, 48)
EVERY_COMMON: dict[str, Any] = {
    "background": "transparent",
    "model": "gpt-image-2",
    "n": 1,
    "output_compression": 100,
    "output_format": "webp",
    "partial_images": 1,
    "response_format": "url",
    "user": "user-1234",
}
GENERATE: dict[str, Any] = {"prompt": "A cute baby sea otter"}
EVERY_GENERATE = {**GENERATE, **EVERY_COMMON, "moderation": "low", "quality": "medium", "size": "auto"}
EDIT: dict[str, Any] = {"image": FOX, "prompt": "A cute baby sea otter wearing a beret"}
EVERY_EDIT = {**EDIT, **EVERY_COMMON, "mask": MASK, "quality": "high", "size": "1024x1024"}
CALLS = [("generate", GENERATE), ("generate", EVERY_GENERATE), ("edit", EDIT), ("edit", EVERY_EDIT)]
NAMES = ["generate", "generate with all", "edit", "edit with all"]

pytestmark = pytest.mark.usefixtures("upstream")


def raw(resource: Any, method: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401  (a resource of either client)
    return getattr(resource.with_raw_response, method)(**arguments)


@pytest.mark.parametrize(("method", "arguments"), CALLS, ids=NAMES)
@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
def test_response_has_its_type(method: str, arguments: dict[str, Any], strict: bool, sdk: Sdk) -> None:  # noqa: FBT001
    client = sdk.client.with_options()
    client._strict_response_validation = strict  # noqa: SLF001  (the SDK's own fixture sets it at creation)
    given = sdk.ask(lambda _: getattr(client.images, method)(**arguments))
    assert ImagesResponse.model_validate(given.model_dump(), strict=True).data


@pytest.mark.parametrize(("method", "arguments"), CALLS, ids=NAMES)
def test_raw_response_is_closed_and_can_be_parsed(method: str, arguments: dict[str, Any], sdk: Sdk) -> None:
    response = sdk.ask(lambda client: raw(client.images, method, arguments))
    assert response.is_closed
    assert response.http_request.headers["x-stainless-lang"] == "python"
    assert isinstance(response.parse(), ImagesResponse)


@pytest.mark.parametrize(("method", "arguments"), CALLS, ids=NAMES)
def test_stream_can_be_closed_at_once(method: str, arguments: dict[str, Any], sdk: Sdk) -> None:
    stream = sdk.ask(lambda client: getattr(client.images, method)(**arguments, stream=True))
    sdk.ask(lambda _: stream.response.close() if sdk.runner is None else stream.response.aclose())
    assert stream.response.is_closed


@pytest.mark.parametrize(("method", "arguments"), CALLS, ids=NAMES)
def test_streamed_raw_response_can_be_parsed(method: str, arguments: dict[str, Any], sdk: Sdk) -> None:
    assert isinstance(read_by_oneself(sdk, lambda client: client.images, method, arguments), ImagesResponse)


def test_style_is_passed_on(sdk: Sdk, upstream: FakeUpstream) -> None:
    # Like the real API, the fake rejects parameters that the GPT image models do not support.
    upstream.behave(_Anything())
    assert sdk.generate(style="vivid", quality="hd").data
    assert upstream.requests[0].body["style"] == "vivid"


@pytest.mark.parametrize(
    ("method", "arguments", "kind"),
    [("list", {}, "list"), ("retrieve", {"model": "gpt-image-2"}, "model")],
    ids=["list", "retrieve"],
)
def test_models_are_listed_and_found(method: str, arguments: dict[str, Any], kind: str, sdk: Sdk) -> None:
    assert sdk.ask(lambda client: getattr(client.models, method)(**arguments)).object == kind
    assert sdk.ask(lambda client: raw(client.models, method, arguments)).is_closed
    assert read_by_oneself(sdk, lambda client: client.models, method, arguments)


def test_variations_are_not_supported(sdk: Sdk, upstream: FakeUpstream) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"), pytest.raises(openai.NotFoundError) as raised:
        sdk.ask(lambda client: client.images.create_variation(image=FOX))
    assert raised.value.code == "route_not_found"
    assert upstream.requests == []


def read_by_oneself(sdk: Sdk, resource: Callable[[Any], Any], method: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401  (the method's result)
    opened = getattr(resource(sdk.client).with_streaming_response, method)(**arguments)
    if sdk.runner is not None:
        return sdk.runner.run(_read(opened))
    with opened as response:
        assert not response.is_closed
        parsed = response.parse()
    assert response.is_closed
    return parsed


async def _read(opened: Any) -> Any:  # noqa: ANN401  (likewise)
    async with opened as response:
        assert not response.is_closed
        parsed = await response.parse()
    assert response.is_closed
    return parsed


class _Anything(Normal):
    """An upstream that accepts any parameter."""

    async def answer(self, exchange: Any) -> None:  # noqa: ANN401  (the fake's own type is not exported)
        await exchange.deliver(exchange.buy(FOX))
