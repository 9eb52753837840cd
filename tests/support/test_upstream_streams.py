"""The fake upstream's streams, compared with the official SDK, and byte for byte where the SDK sees no difference."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import openai
import pytest
from openai.types import ImageGenCompletedEvent, ImageGenPartialImageEvent
from PIL import Image

from tests.support import pictures, upstream
from tests.support.raw_http import connected, exchange, request_bytes
from tests.support.upstream import Behaviour, FakeUpstream

FOX = "a red fox"
PARTIAL = "image_generation.partial_image"
COMPLETED = "image_generation.completed"

Stream = Callable[..., Iterator[Any]]


@pytest.fixture(scope="module")
def _served() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
def fake(_served: FakeUpstream) -> FakeUpstream:
    _served.reset()
    return _served


@pytest.fixture
def client(fake: FakeUpstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=fake.base_url, api_key=fake.api_key, max_retries=0, timeout=5) as opened:
        yield opened


@pytest.fixture
def stream(client: openai.OpenAI) -> Stream:
    """Return the events of a stream, by default one with two partial pictures."""

    def events(**parameters: object) -> Iterator[Any]:
        wanted: dict[str, Any] = {"prompt": FOX, "partial_images": 2, **parameters, "stream": True}
        return iter(cast("openai.Stream[Any]", client.images.generate(**wanted)))

    return events


def _types(events: Iterator[Any]) -> list[str]:
    return [event.type for event in events]


def _content(event: Any) -> bytes:  # noqa: ANN401  (the SDK has four types of events without a common base)
    return base64.b64decode(event.b64_json, validate=True)


def _request(fake: FakeUpstream, **parameters: object) -> bytes:
    body = json.dumps({"prompt": FOX, "stream": True, "partial_images": 1, **parameters}).encode()
    headers = {"Authorization": f"Bearer {fake.api_key}", "Content-Type": "application/json"}
    return request_bytes("POST", upstream.GENERATIONS_PATH, headers=headers, body=body)


def _raw_stream(fake: FakeUpstream) -> bytes:
    answer = exchange(fake.base_url, _request(fake))
    assert answer.headers["content-type"].startswith("text/event-stream")
    return answer.content


def test_partial_pictures_come_before_the_finished_ones(stream: Stream) -> None:
    *partials, first, second = stream(partial_images=3, n=2, size="1536x1024", output_format="webp", quality="low")

    assert [type(event) for event in partials] == [ImageGenPartialImageEvent] * 3
    assert [event.partial_image_index for event in partials] == [0, 1, 2]
    assert [type(event) for event in (first, second)] == [ImageGenCompletedEvent] * 2
    contents = [_content(event) for event in (*partials, first)]
    assert len(set(contents)) == 4
    sizes = []
    for content in contents:
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "WEBP"
            sizes.append(picture.size)
    assert sizes == [(192, 128), (384, 256), (768, 512), (1536, 1024)]
    assert (first.size, first.quality, first.output_format, first.background) == ("1536x1024", "low", "webp", "opaque")


def test_every_event_matches_the_sdk_types(stream: Stream) -> None:
    *partials, first, second = stream(n=2)
    for event in (*partials, first, second):
        assert type(event).model_validate(event.to_dict(), strict=True) == event


@pytest.mark.parametrize("partial_images", [None, 0])
def test_without_partial_pictures_there_is_one_event_per_picture(stream: Stream, partial_images: int | None) -> None:
    assert _types(stream(partial_images=partial_images)) == [COMPLETED]


def test_usages_of_the_events_add_up_to_the_ledger(fake: FakeUpstream, stream: Stream) -> None:
    usages = [event.usage for event in stream(n=3) if event.type == COMPLETED]

    (line,) = fake.ledger
    assert line.usage
    for field in ("input_tokens", "output_tokens", "total_tokens"):
        assert sum(getattr(usage, field) for usage in usages) == line.usage[field]
    assert line.usage["output_tokens"] == 3 * 1056 + 2 * 100
    assert line.usage["input_tokens"] == 3


def test_picture_set_by_a_test_is_streamed(fake: FakeUpstream, stream: Stream) -> None:
    fake.picture = pictures.noise_png(300_000)

    *_, last = stream()

    assert _content(last) == fake.picture


@pytest.mark.anyio
async def test_the_asynchronous_sdk_streams(fake: FakeUpstream) -> None:
    async with openai.AsyncOpenAI(base_url=fake.base_url, api_key=fake.api_key, max_retries=0) as client:
        picture = ("fox.png", pictures.png(64, 64), "image/png")
        generated = await client.images.generate(prompt=FOX, stream=True, partial_images=1)
        assert [event.type async for event in generated] == [PARTIAL, COMPLETED]
        edited = await client.images.edit(image=[picture, picture], prompt=FOX, stream=True)
        assert [event.type async for event in edited] == ["image_edit.completed"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"partial_images": 4},
        {"partial_images": -1},
        {"n": 11},
        {"output_format": "gif"},
        {"output_format": "svg"},
        {"extra_body": {"stream": 1}},
        {"extra_body": {"stream": "yes"}},
    ],
)
def test_stream_requests_that_the_real_api_rejects_are_rejected(
    fake: FakeUpstream, stream: Stream, parameters: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        stream(**parameters)

    assert caught.value.code == "invalid_value"
    assert [line.bought for line in fake.ledger] == [False]


def test_bytes_of_a_stream_match_those_of_openai(fake: FakeUpstream) -> None:
    first, second, rest = _raw_stream(fake).split(b"\n\n")

    assert rest == b""
    for event, kind in ((first, PARTIAL), (second, COMPLETED)):
        name, data = event.split(b"\n")
        assert name == f"event: {kind}".encode()
        assert json.loads(data.removeprefix(b"data: "))["type"] == kind


@pytest.mark.parametrize(
    "behaviour", [upstream.STREAM_CRLF, upstream.STREAM_HEARTBEATS, upstream.STREAM_CRLF_HEARTBEATS]
)
def test_legal_variants_are_equivalent(fake: FakeUpstream, stream: Stream, behaviour: upstream.StreamVariant) -> None:
    usual = [(event.type, event.b64_json) for event in stream()]
    fake.behave(behaviour)

    assert [(event.type, event.b64_json) for event in stream()] == usual
    lines = _raw_stream(fake).split(behaviour.line_end)
    assert set(b"".join(lines)).isdisjoint(b"\r\n")
    # Each of the two events has a comment before it and one between its lines.
    assert lines.count(b": keep-alive") == (4 if behaviour.comment else 0)


@pytest.mark.parametrize(
    ("behaviour", "seen", "error"),
    [
        (upstream.STREAM_CUT_BEFORE_EVENTS, [], openai.APIConnectionError),
        (upstream.STREAM_CUT, [PARTIAL], openai.APIConnectionError),
        (upstream.StreamCut(events=2), [PARTIAL] * 2, openai.APIConnectionError),
        (upstream.StreamCut(events=2, within=True), [PARTIAL] * 2, openai.APIConnectionError),
        (upstream.STREAM_CUT_WITHIN, [PARTIAL], openai.APIConnectionError),
        (upstream.STREAM_ERROR, [PARTIAL], openai.APIError),
        (upstream.STREAM_BROKEN_DATA, [PARTIAL] * 2, json.JSONDecodeError),
    ],
)
def test_faulty_stream_raises_after_its_valid_events(
    fake: FakeUpstream, stream: Stream, behaviour: Behaviour, seen: list[str], error: type[Exception]
) -> None:
    fake.behave_once(behaviour)
    got: list[str] = []

    with pytest.raises(error):
        got.extend(event.type for event in stream())

    assert got == seen
    assert [line.bought for line in fake.ledger] == [behaviour is not upstream.STREAM_ERROR]
    assert _types(stream())[-1] == COMPLETED


def test_cut_within_an_event_leaves_half_its_data(fake: FakeUpstream) -> None:
    fake.behave(upstream.STREAM_CUT_WITHIN)
    with connected(fake.base_url) as connection:
        connection.sendall(_request(fake, partial_images=0))
        received = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert received.count(b"event: ") == 1
    assert b'data: {"type":"image_generation.completed","b64_json":"' in received
    assert b"\n\n" not in received
    assert not received.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("behaviour", "seen"),
    [
        (upstream.STREAM_INCOMPLETE, [PARTIAL] * 2),
        (upstream.STREAM_GARBAGE_LINE, [PARTIAL, PARTIAL, COMPLETED]),
    ],
)
def test_odd_stream_is_accepted_by_the_sdk(
    fake: FakeUpstream, stream: Stream, behaviour: Behaviour, seen: list[str]
) -> None:
    fake.behave_once(behaviour)

    assert _types(stream()) == seen


def test_hung_stream_continues_once_released(fake: FakeUpstream, stream: Stream) -> None:
    fake.behave_once(upstream.STREAM_HANG)
    events = stream()

    assert next(events).type == PARTIAL
    assert [line.bought for line in fake.ledger] == [True]
    rest: list[str] = []
    waiting = threading.Thread(target=lambda: rest.extend(_types(events)))
    waiting.start()
    assert not rest
    fake.release()
    waiting.join()
    assert rest == [PARTIAL, COMPLETED]


def test_flood_is_one_data_line(fake: FakeUpstream, client: openai.OpenAI) -> None:
    fake.behave_once(upstream.StreamFlood(megabytes=20))

    with client.images.with_streaming_response.generate(prompt=FOX, stream=True) as answer:
        body = b"".join(answer.iter_bytes())

    name, data, *rest = body.split(b"\n")
    assert name == f"event: {COMPLETED}".encode()
    assert len(json.loads(data.removeprefix(b"data: "))["b64_json"]) == 20_000_000
    assert rest == [b"", b""]


@pytest.mark.parametrize("behaviour", [upstream.STREAM_CUT, upstream.STREAM_ERROR, upstream.STREAM_HANG])
def test_stream_behaviours_do_not_affect_other_requests(
    fake: FakeUpstream, client: openai.OpenAI, behaviour: Behaviour
) -> None:
    fake.behave(behaviour)

    assert client.images.generate(prompt=FOX).data
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-other").images.generate(prompt=FOX, stream=True)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (upstream.RATE_LIMITED, openai.RateLimitError),
        (upstream.CUT, openai.APIConnectionError),
        (upstream.TRUNCATED, openai.APIConnectionError),
        (upstream.HANG, openai.APITimeoutError),
        (upstream.HANG_AFTER_HEADERS, openai.APITimeoutError),
    ],
)
def test_other_behaviours_apply_to_streams_too(
    fake: FakeUpstream, client: openai.OpenAI, behaviour: Behaviour, error: type[Exception]
) -> None:
    fake.behave(behaviour)

    with pytest.raises(error):
        list(client.with_options(timeout=0.3).images.generate(prompt=FOX, stream=True))


def test_dripped_stream_is_complete(fake: FakeUpstream, stream: Stream) -> None:
    fake.picture = pictures.png(16, 16)
    fake.behave(upstream.Drip(piece=50, pause=0))

    assert _types(stream(partial_images=0)) == [COMPLETED]
