"""The OpenAI adapter against a fake API server: exactly one POST per call, whatever happens."""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.service.private.upstream.openai.images import OpenAIUpstream
from pixyproxy.service.private.upstream.upstream import DEFAULT_NAME
from tests.service.private.upstream.openai.adapters import MIDDLING, SHORT, adapter_of, open_adapter, saying, whole
from tests.service.private.upstream.openai.sinks import FakeSink, answer_with, usage
from tests.support import pictures
from tests.support import upstream as fakes
from tests.support.upstream import Behaviour, FakeUpstream, refusing_base_url

pytestmark = pytest.mark.anyio
FOX = PictureOrder(prompt="a red fox", model="gpt-image-2.5-flare")
MAX_BYTES = 2_000_000

OUTCOMES: dict[str, tuple[Behaviour, type[core.ImageGenerationException]]] = {
    "moderated": (fakes.MODERATED, core.PromptRefusedException),
    "policy violation": (fakes.POLICY_VIOLATION, core.PromptRefusedException),
    "unauthorized": (fakes.UNAUTHORIZED, core.UpstreamCredentialException),
    "forbidden": (fakes.FORBIDDEN, core.UpstreamCredentialException),
    "not found": (fakes.NOT_FOUND, core.PromptRefusedException),
    "conflict": (fakes.CONFLICT, core.UpstreamErrorException),
    "unprocessable": (fakes.UNPROCESSABLE, core.PromptRefusedException),
    "rate limited": (fakes.RATE_LIMITED, core.UpstreamBusyException),
    "content forbidden": (fakes.FORBIDDEN_CONTENT, core.PromptRefusedException),
    "out of credit": (fakes.OUT_OF_CREDIT, core.UpstreamFundsException),
    "no such url": (fakes.NO_SUCH_URL, core.UpstreamAddressException),
    "quota exhausted": (fakes.QUOTA_EXHAUSTED, core.UpstreamFundsException),
    "server error": (fakes.SERVER_ERROR, core.UpstreamErrorException),
    "unavailable": (fakes.UNAVAILABLE, core.UpstreamErrorException),
    "gateway page": (
        fakes.Verbatim(body=b"<html>", status=502, content_type="text/html"),
        core.UpstreamSilentException,
    ),
    "gateway timeout": (fakes.Verbatim(body=b"", status=504), core.UpstreamSilentException),
    "redirect": (fakes.Verbatim(body=b"", status=307), core.UpstreamAddressException),
    "cut": (fakes.CUT, core.UpstreamSilentException),
    "truncated": (fakes.TRUNCATED, core.UpstreamSilentException),
    "html": (fakes.HTML, core.UpstreamAnswerException),
    "empty body": (fakes.EMPTY_BODY, core.UpstreamAnswerException),
    "null data": (fakes.DATA_NULL, core.UpstreamAnswerException),
    "empty data": (fakes.DATA_EMPTY, core.UpstreamAnswerException),
    "json list": (fakes.JSON_LIST, core.UpstreamAnswerException),
    "json string": (fakes.JSON_STRING, core.UpstreamAnswerException),
    "broken json": (fakes.BROKEN_JSON, core.UpstreamAnswerException),
    "no picture": (fakes.NO_PICTURE, core.UpstreamAnswerException),
    "number for picture": (fakes.NUMBER_FOR_PICTURE, core.UpstreamAnswerException),
    "bad base64": (fakes.BAD_BASE64, core.PictureUnusableException),
    "svg as png": (fakes.SVG_AS_PNG, core.PictureUnusableException),
    "html as png": (fakes.HTML_AS_PNG, core.PictureUnusableException),
    "flood": (fakes.Flood(megabytes=8), core.PictureUnusableException),
    "announced flood": (fakes.Flood(megabytes=8, announced=True), core.PictureUnusableException),
}
NEVER_IN_TIME: dict[str, Behaviour] = {
    "hang": fakes.HANG,
    "hang after headers": fakes.HANG_AFTER_HEADERS,
    "slow drip": fakes.Drip(piece=16, pause=0.01),
}


@pytest.fixture
def sink() -> FakeSink:
    """Return a sink for the pictures."""
    return FakeSink(max_bytes=MAX_BYTES, only_pictures=True)


@pytest.fixture
async def adapter(upstream: FakeUpstream) -> AsyncIterator[OpenAIUpstream]:
    """Yield the adapter with the fake upstream."""
    opened = open_adapter(upstream.base_url, api_key=upstream.api_key)
    yield opened
    await opened.close()


async def draw(adapter: OpenAIUpstream, sink: FakeSink, order: PictureOrder = FOX) -> UpstreamAnswer:
    """Return the result of an order without inputs."""
    return await adapter.draw(order, inputs=(), sink=sink)


async def test_picture_is_received_unchanged(adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink) -> None:
    upstream.picture = pictures.noise_png(1_470_000)
    said = await draw(adapter, sink)
    assert sink.kept == [upstream.picture]
    assert said.facts["size"] == "1024x1024"
    assert said.usage is not None
    assert said.usage.output_image_tokens == said.facts["usage"]["output_tokens"] > 0
    assert said.revised_prompts == (None,)
    assert len(upstream.requests) == 1


async def test_picture_is_received_by_link_or_in_another_form(
    adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink
) -> None:
    await draw(adapter, sink, FOX.model_copy(update={"count": 2}))
    usual = sink.kept
    for behaviour in (fakes.LINKED, fakes.RESPELLED):
        upstream.behave(behaviour)
        again = FakeSink()
        await draw(adapter, again, FOX.model_copy(update={"count": 2}))
        assert again.kept == usual


async def test_errors_for_the_operator_are_logged(
    adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink, caplog: pytest.LogCaptureFixture
) -> None:
    for behaviour, told in ((fakes.NO_SUCH_URL, "404"), (fakes.OUT_OF_CREDIT, "400"), (fakes.UNAUTHORIZED, "401")):
        caplog.clear()
        upstream.behave(behaviour)
        with pytest.raises(core.ImageGenerationException) as caught:
            await draw(adapter, sink)
        assert f"fake responded {told}: {caught.value.message}" in caplog.text
    caplog.clear()
    upstream.behave(fakes.FORBIDDEN_CONTENT)
    with pytest.raises(core.PromptRefusedException):
        await draw(adapter, sink)
    assert caplog.text == ""


async def test_one_response_may_have_ten_pictures(
    adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink
) -> None:
    said = await draw(adapter, sink, FOX.model_copy(update={"count": 10}))
    assert len(sink.kept) == len(said.revised_prompts) == 10
    (request,) = upstream.requests
    assert request.body == {"prompt": FOX.prompt, "model": FOX.model, "n": 10}


@pytest.mark.parametrize(("behaviour", "expected"), OUTCOMES.values(), ids=OUTCOMES)
@pytest.mark.parametrize("previews", [0, 2])
async def test_response_without_a_picture_raises_after_one_post(  # noqa: PLR0913, PLR0917  (fixtures)
    adapter: OpenAIUpstream,
    upstream: FakeUpstream,
    sink: FakeSink,
    behaviour: Behaviour,
    expected: type[Exception],
    previews: int,
) -> None:
    """A requested stream makes no difference."""
    upstream.behave(behaviour)
    with pytest.raises(core.ImageGenerationException) as caught:
        await draw(adapter, sink, FOX.model_copy(update={"previews": previews}))
    assert type(caught.value) is expected
    assert sink.kept == []
    assert [request.method for request in upstream.requests] == ["POST"]


@pytest.mark.parametrize("behaviour", NEVER_IN_TIME.values(), ids=NEVER_IN_TIME)
async def test_slow_response_is_a_timeout_after_one_post(
    upstream: FakeUpstream, sink: FakeSink, behaviour: Behaviour
) -> None:
    adapter = open_adapter(upstream.base_url, api_key=upstream.api_key, timeout_seconds=SHORT)
    upstream.behave(behaviour)
    with pytest.raises(core.UpstreamTimeoutException):
        await draw(adapter, sink)
    await adapter.close()
    assert len(upstream.requests) == 1


async def test_every_behaviour_of_the_fake_is_tested() -> None:
    behaviours: set[object] = {
        value for value in vars(fakes).values() if isinstance(value, fakes.Refusal | fakes.Verbatim)
    }
    behaviours |= {fakes.CUT, fakes.TRUNCATED, fakes.SVG_AS_PNG, fakes.HTML_AS_PNG}
    assert behaviours <= {behaviour for behaviour, _ in OUTCOMES.values()}


async def test_refused_connection_is_unreachable(sink: FakeSink) -> None:
    with refusing_base_url() as base_url:
        adapter = open_adapter(base_url)
        for call in (draw(adapter, sink), adapter.list_models()):
            with pytest.raises(core.UpstreamUnreachableException):
                await call
        await adapter.close()


async def test_failed_call_does_not_affect_the_next(
    adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink
) -> None:
    for behaviour in (fakes.CUT, fakes.TRUNCATED, fakes.SERVER_ERROR, fakes.Flood(megabytes=8)):
        upstream.behave_once(behaviour)
        with pytest.raises(core.ImageGenerationException):
            await draw(adapter, sink)
        assert await draw(adapter, sink)
    assert len(sink.kept) == 4
    assert len(upstream.requests) == 8


async def test_options_are_passed_on_unchanged(adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink) -> None:
    options: dict[str, Any] = {
        "size": "1536x1024",
        "quality": "low",
        "background": "transparent",
        "output_format": "webp",
        "output_compression": 0,
        "moderation": "low",
    }
    said = await draw(adapter, sink, PictureOrder(prompt="a 🦊\n", model="gpt-image-2", options=options))
    (request,) = upstream.requests
    assert request.body == {"prompt": "a 🦊\n", "model": "gpt-image-2", **options}
    assert said.facts["output_format"] == "webp"


async def test_options_cannot_override_the_order(
    adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink
) -> None:
    own = {"prompt": "x", "model": "x", "n": 5, "stream": True, "partial_images": 3, "image": "x", "image[]": "x"}
    await draw(adapter, sink, FOX.model_copy(update={"options": {**own, "mask": "x", "markup": "x", "size": "auto"}}))
    (request,) = upstream.requests
    assert request.body == {"prompt": FOX.prompt, "model": FOX.model, "size": "auto"}


async def test_missing_options_are_not_passed_on(
    adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink
) -> None:
    await draw(adapter, sink)
    (request,) = upstream.requests
    assert request.body == {"prompt": FOX.prompt, "model": FOX.model}
    assert request.headers["accept-encoding"] == "identity"


async def test_upstreams_code_and_retry_after_are_returned(
    adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink
) -> None:
    upstream.behave(fakes.RATE_LIMITED)
    with pytest.raises(core.UpstreamBusyException) as caught:
        await draw(adapter, sink)
    assert caught.value.retry_after_seconds == 7
    assert caught.value.context == {"upstream_code": "rate_limit_exceeded"}


async def test_refused_parameter_is_returned(adapter: OpenAIUpstream, sink: FakeSink) -> None:
    for previews in (0, 1):
        order = FOX.model_copy(update={"options": {"size": "1x1"}, "previews": previews})
        with pytest.raises(core.PromptRefusedException) as caught:
            await draw(adapter, sink, order)
        assert caught.value.context["upstream_param"] == "size"


async def test_upstreams_message_is_not_returned(
    adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink
) -> None:
    words = "tell-tale words"
    upstream.behave(fakes.Refusal(status=400, message=words, code=f"{words} <script>", param=words))
    with pytest.raises(core.PromptRefusedException) as caught:
        await draw(adapter, sink)
    assert words not in str(caught.value)
    assert caught.value.context == {}


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/octet-stream", "application/json"])
async def test_picture_is_read_with_any_content_type(content_type: str, sink: FakeSink) -> None:
    picture = pictures.png(16, 16)
    async with adapter_of(saying(whole(answer_with(picture), content_type=content_type))) as adapter:
        await draw(adapter, sink)
    assert sink.kept == [picture]


async def test_unrequested_compression_is_decoded(sink: FakeSink) -> None:
    picture = pictures.noise_png(200_000)
    body = gzip.compress(answer_with(picture, usage=usage()))
    packed = whole(body, content_type="application/json", headers="Content-Encoding: gzip\r\n")
    async with adapter_of(saying(packed)) as adapter:
        said = await draw(adapter, sink)
    assert sink.kept == [picture]
    assert said.usage is not None


async def test_body_without_a_length_is_read(sink: FakeSink) -> None:
    picture = pictures.png(16, 16)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    async with adapter_of(saying(head + answer_with(picture))) as adapter:
        await draw(adapter, sink)
    assert sink.kept == [picture]


async def test_truncated_response_is_silent(sink: FakeSink) -> None:
    answer = whole(answer_with(pictures.png(1, 1)), content_type="application/json")
    body = answer.index(b"\r\n\r\n") + 4
    for length in [0, 1, body - 1, body, body + 1, *range(body + 20, len(answer), 29), len(answer) - 1]:
        async with adapter_of(saying(answer[:length])) as adapter:
            with pytest.raises(core.UpstreamSilentException) as caught:
                await draw(adapter, sink)
            assert type(caught.value) is core.UpstreamSilentException


async def test_models_are_listed(adapter: OpenAIUpstream, upstream: FakeUpstream) -> None:
    assert await adapter.list_models() == list(fakes.MODELS)
    assert [request.method for request in upstream.requests] == ["GET"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (whole(b"<html>", content_type="text/html"), core.UpstreamAnswerException),
        (whole(b"[1]", content_type="application/json"), core.UpstreamAnswerException),
        (whole(b'{"data": 5}', content_type="application/json"), core.UpstreamAnswerException),
        (whole(b'{"data": [5]}', content_type="application/json"), core.UpstreamAnswerException),
        (whole(b"{", content_type="application/json"), core.UpstreamAnswerException),
        (whole(b"{}", content_type="application/json", status="401 No"), core.UpstreamCredentialException),
        (whole(b"", content_type="application/json", status="502 Gone"), core.UpstreamSilentException),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n{",
            core.UpstreamSilentException,
        ),
    ],
)
async def test_invalid_list_of_models_raises(answer: bytes, expected: type[Exception]) -> None:
    async with adapter_of(saying(answer)) as adapter:
        with pytest.raises(core.ImageGenerationException) as caught:
            await adapter.list_models()
        assert type(caught.value) is expected


async def test_models_without_a_name_are_skipped() -> None:
    body = json.dumps({"data": [{"id": "b"}, {"id": None}, {}, {"id": "a"}, {"id": 5}]}).encode()
    async with adapter_of(saying(whole(body, content_type="application/json"))) as adapter:
        assert await adapter.list_models() == ["b", "a"]


async def _sent(
    sink: FakeSink,
    order: PictureOrder = FOX,
    **upstream: Any,  # noqa: ANN401  (any setting of an upstream)
) -> tuple[list[str], dict[str, Any]]:
    """Return the heads of an order and of a model list request, in lower case, and the body of the order."""
    heads, bodies = [], []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        heads.append(head.lower())
        length = re.search(r"content-length: (\d+)", heads[-1])
        bodies.append(await reader.readexactly(int(length[1])) if length else b"{}")
        body = answer_with(pictures.png(8, 8)) if length else b'{"data": []}'
        writer.write(whole(body, content_type="application/json"))

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, (await reader.readuntil(b"\r\n\r\n")).decode())
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        adapter = open_adapter(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/openai", **upstream)
        await draw(adapter, sink, order)
        await adapter.list_models()
        await adapter.close()
    return heads, json.loads(bodies[0])


async def test_configured_headers_and_query_are_sent_with_every_request(sink: FakeSink) -> None:
    """As Azure requires: its own key header, and a version."""
    azure: dict[str, Any] = {"api_key": None, "headers": {"api-key": "secret"}, "query": {"api-version": "2026-10-01"}}
    heads, _ = await _sent(sink, **azure)
    assert [head.partition(" http/1.1")[0] for head in heads] == [
        "post /openai/images/generations?api-version=2026-10-01",
        "get /openai/models?api-version=2026-10-01",
    ]
    assert all("\r\napi-key: secret\r\n" in head for head in heads)
    assert not any("\r\nauthorization:" in head for head in heads)


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ({"api_key": "sk-1"}, "bearer sk-1"),
        ({"api_key": None, "headers": {"authorization": "Key k"}}, "key k"),
        ({"api_key": "sk-1", "headers": {"Authorization": "Key k"}}, "key k"),
    ],
)
async def test_upstream_gets_its_configured_credential(sink: FakeSink, upstream: dict[str, Any], expected: str) -> None:
    heads, _ = await _sent(sink, **upstream)
    assert [re.findall(r"\r\nauthorization: (.*)\r\n", head) for head in heads] == [[expected], [expected]]


@pytest.mark.parametrize(
    ("upstream", "asked_for", "expected"),
    [
        ("none", None, None),
        ("none", "b64_json", None),
        ("b64_json", None, "b64_json"),
        ("url", None, "url"),
        ("url", "b64_json", "b64_json"),
    ],
)
async def test_configured_response_format_is_sent(
    upstream: str, asked_for: str | None, expected: str | None, sink: FakeSink
) -> None:
    order = FOX.model_copy(update={"response_format": asked_for, "options": {"response_format": "bmp"}})
    _, body = await _sent(sink, order, response_format=upstream)
    assert body.get("response_format") == expected


async def test_default_upstream_is_named_by_its_host() -> None:
    names = {}
    for name in (DEFAULT_NAME, "other"):
        adapter = open_adapter("http://images.example:8080/v1", name=name)
        names[name] = adapter.name
        await adapter.close()
    assert names == {DEFAULT_NAME: "OpenAI Images API at images.example", "other": "other"}


async def test_order_without_a_free_connection_buys_nothing(upstream: FakeUpstream, sink: FakeSink) -> None:
    adapter = open_adapter(upstream.base_url, api_key=upstream.api_key, connect_seconds=MIDDLING, concurrency=1)
    upstream.behave(fakes.HANG)
    first = asyncio.create_task(draw(adapter, sink))
    await asyncio.to_thread(upstream.wait_for_requests, 1)
    with pytest.raises(core.UpstreamUnreachableException):
        await draw(adapter, FakeSink())
    upstream.release()
    await first
    await adapter.close()
    assert len(upstream.requests) == 1
