"""The OpenAI adapter and streamed responses, from a fake API server and from a test's own bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.service.private.upstream.openai.images import OpenAIUpstream
from tests.service.private.upstream.openai.adapters import LONG, MIDDLING, adapter_of, open_adapter, saying, whole
from tests.service.private.upstream.openai.sinks import FakeSink, answer_with, b64
from tests.support import pictures
from tests.support import upstream as fakes
from tests.support.upstream import Behaviour, FakeUpstream

pytestmark = pytest.mark.anyio
FOX = PictureOrder(prompt="a red fox", model="gpt-image-2.5-flare", previews=2)
TWO = FOX.model_copy(update={"count": 2})
MAX_BYTES = 2_000_000

LEGAL: dict[str, Behaviour] = {
    "normal": fakes.NORMAL,
    "crlf": fakes.STREAM_CRLF,
    "heartbeats": fakes.STREAM_HEARTBEATS,
    "crlf and heartbeats": fakes.STREAM_CRLF_HEARTBEATS,
    "garbage line": fakes.STREAM_GARBAGE_LINE,
    "broken data": fakes.STREAM_BROKEN_DATA,
}
FAILED: dict[str, tuple[Behaviour, type[core.ImageGenerationException]]] = {
    "cut before events": (fakes.STREAM_CUT_BEFORE_EVENTS, core.UpstreamSilentException),
    "cut": (fakes.STREAM_CUT, core.UpstreamSilentException),
    "cut within": (fakes.STREAM_CUT_WITHIN, core.UpstreamSilentException),
    "cut within the picture": (fakes.StreamCut(events=2, within=True), core.UpstreamSilentException),
    "incomplete": (fakes.STREAM_INCOMPLETE, core.UpstreamSilentException),
    "error": (fakes.STREAM_ERROR, core.UpstreamErrorException),
    "busy": (fakes.StreamError(code="rate_limit_exceeded"), core.UpstreamBusyException),
    "moderated": (fakes.StreamError(code="moderation_blocked"), core.PromptRefusedException),
    "flood": (fakes.StreamFlood(megabytes=8), core.PictureUnusableException),
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


@pytest.mark.parametrize("behaviour", LEGAL.values(), ids=LEGAL)
async def test_previews_and_pictures_are_received_unchanged(
    adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink, behaviour: Behaviour
) -> None:
    upstream.picture = pictures.noise_png(300_000)
    upstream.behave(behaviour)
    said = await draw(adapter, sink, TWO)
    assert sink.kept == [upstream.picture] * 2
    assert [index for index, _ in sink.kept_previews] == [0, 1]
    (line,) = upstream.ledger
    assert said.usage is not None
    assert line.usage is not None
    assert said.usage.output_image_tokens == line.usage["output_tokens"]
    assert (said.facts["size"], len(said.revised_prompts)) == ("1024x1024", 2)
    (request,) = upstream.requests
    assert request.body == {"prompt": FOX.prompt, "model": FOX.model, "n": 2, "stream": True, "partial_images": 2}


@pytest.mark.parametrize(("behaviour", "expected"), FAILED.values(), ids=FAILED)
async def test_stream_without_a_picture_raises_after_one_post(
    adapter: OpenAIUpstream,
    upstream: FakeUpstream,
    sink: FakeSink,
    behaviour: Behaviour,
    expected: type[Exception],
) -> None:
    upstream.behave(behaviour)
    with pytest.raises(core.ImageGenerationException) as caught:
        await draw(adapter, sink)
    assert type(caught.value) is expected
    assert sink.kept == []
    assert len(upstream.requests) == 1


async def test_every_behaviour_of_the_fake_is_tested() -> None:
    behaviours = {value for value in vars(fakes).values() if isinstance(value, fakes.StreamBehaviour)}
    tested = {*LEGAL.values(), *(behaviour for behaviour, _ in FAILED.values())}
    assert behaviours - tested == {fakes.STREAM_HANG, fakes.STREAM_FLOOD}


@pytest.mark.parametrize(
    "behaviour",
    [fakes.StreamCut(events=3), fakes.StreamCut(events=3, within=True), fakes.STREAM_INCOMPLETE],
    ids=["cut", "cut within", "incomplete"],
)
async def test_first_picture_is_kept_if_the_second_never_arrives(
    adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink, behaviour: Behaviour
) -> None:
    upstream.behave(behaviour)
    said = await draw(adapter, sink, TWO)
    assert len(sink.kept) == len(said.revised_prompts) == 1
    assert said.facts["size"] == "1024x1024"


async def test_slow_stream_is_a_timeout(upstream: FakeUpstream, sink: FakeSink) -> None:
    adapter = open_adapter(upstream.base_url, api_key=upstream.api_key, timeout_seconds=MIDDLING)
    upstream.behave(fakes.STREAM_HANG)
    with pytest.raises(core.UpstreamTimeoutException):
        await draw(adapter, sink)
    assert [index for index, _ in sink.kept_previews] == [0]
    await adapter.close()
    assert len(upstream.requests) == 1


async def test_picture_in_an_endless_stream_is_kept(sink: FakeSink) -> None:
    picture = pictures.png(16, 16)

    async def never_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        writer.write(b'data: {"type":"image_generation.completed","b64_json":"%b"}\n\n' % b64(picture).encode())
        await writer.drain()
        await reader.read()

    async with adapter_of(never_end, timeout_seconds=MIDDLING) as adapter:
        said = await draw(adapter, sink)
    assert sink.kept == [picture]
    assert said.revised_prompts == (None,)


async def test_streamed_order_may_get_a_json_response(sink: FakeSink) -> None:
    picture = pictures.png(16, 16)
    async with adapter_of(saying(whole(answer_with(picture), content_type="application/json"))) as adapter:
        await draw(adapter, sink)
    assert (sink.kept, sink.previews) == ([picture], [])


async def test_order_may_get_an_unrequested_stream(sink: FakeSink) -> None:
    picture = pictures.png(16, 16)
    stream = b'data: {"type":"image_generation.completed","b64_json":"%b"}\n\n' % b64(picture).encode()
    answer = whole(stream, content_type="Text/Event-Stream; charset=utf-8")
    async with adapter_of(saying(answer)) as adapter:
        await draw(adapter, sink, FOX.model_copy(update={"previews": 0}))
    assert sink.kept == [picture]


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_too_large_response_is_not_read_to_its_end(content_type: str, sink: FakeSink) -> None:
    """An endless body: only a reader that stops by itself ever disconnects."""
    hung_up = asyncio.Event()

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n\r\n" % content_type.encode())
        writer.write(
            b'data: {"type": "image_generation.completed", "data":[{"b64_json":"'.removeprefix(
                b"" if content_type == "text/event-stream" else b"data: "
            )
        )
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"A" * 100_000)
                await writer.drain()
        hung_up.set()

    async with adapter_of(flood) as adapter:
        with pytest.raises(core.PictureUnusableException):
            await draw(adapter, sink)
        async with asyncio.timeout(LONG):
            await hung_up.wait()


@pytest.mark.parametrize("status", ["200 OK", "400 No"])
async def test_endless_page_or_error_is_not_read_to_its_end(status: str, sink: FakeSink) -> None:
    hung_up = asyncio.Event()

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"<p>" * 100_000)
                await writer.drain()
        hung_up.set()

    async with adapter_of(flood) as adapter:
        with pytest.raises((core.UpstreamAnswerException, core.PromptRefusedException)):
            await draw(adapter, sink)
        async with asyncio.timeout(LONG):
            await hung_up.wait()


async def test_cancelled_order_does_not_affect_the_next(
    adapter: OpenAIUpstream, upstream: FakeUpstream, sink: FakeSink
) -> None:
    upstream.behave_once(fakes.STREAM_HANG)
    task = asyncio.create_task(draw(adapter, FakeSink()))
    await asyncio.to_thread(upstream.wait_for_requests, 1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await draw(adapter, sink)
    assert len(sink.kept) == 1
    assert len(upstream.requests) == 2
