"""Reading a stream in pieces: pictures and previews are complete, and errors are classified."""

import errno
import gc
import json
import random
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, BinaryIO

import pytest

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer, UpstreamUsage
from pixyproxy.service.private.upstream.openai.base64_scanner import MOST_SKELETON_BYTES
from pixyproxy.service.private.upstream.openai.delivery import BATCH_CHARACTERS
from pixyproxy.service.private.upstream.openai.events import EventReader
from pixyproxy.service.private.upstream.openai.held_picture import MOST_HELD_BYTES, HeldPicture
from pixyproxy.service.private.upstream.upstream import PictureSink
from tests.service.private.upstream.openai.sinks import (
    DiscardingSink,
    FakeSink,
    b64,
    cut,
    cut_anywhere,
    large_base64,
    usage,
)

pytestmark = pytest.mark.anyio
ONE = PictureOrder(prompt="a fox", model="m", previews=2)
THREE = PictureOrder(prompt="a fox", model="m", previews=2, count=3)
FINISHED = "image_generation.completed"
PREVIEW = "image_generation.partial_image"


def event(kind: str, *, name: str | None = None, line_end: str = "\n", **data: object) -> bytes:
    """Return an event as OpenAI writes it: its type in its name, and first in its data."""
    text = f"event: {name or kind}{line_end}data: {json.dumps({'type': kind, **data})}{line_end}{line_end}"
    return text.encode()


def finished(picture: bytes, **more: Any) -> bytes:  # noqa: ANN401  (any member of an event)
    """Return an event with a finished picture."""
    return event(FINISHED, b64_json=b64(picture), **more)


def preview(picture: bytes, index: int) -> bytes:
    """Return an event with a preview; its number is the last member, as in OpenAI's own examples."""
    return event(PREVIEW, b64_json=b64(picture), size="1x1", partial_image_index=index)


def error(**members: object) -> bytes:
    """Return an event that ends a stream with an error."""
    return event("error", error=members)


async def read(pieces: Iterable[bytes], sink: PictureSink, *, order: PictureOrder = ONE) -> UpstreamAnswer:
    """Return the result of a reader for a stream in these pieces."""
    with closing(EventReader(order, sink)) as reader:
        for piece in pieces:
            await reader.take(piece)
        return await reader.finish()


ODDITIES = (
    b": keep-alive\n\n",
    b"event: ping\ndata: {}\n\n",
    b"event: news\ndata: no JSON\n\n",
    b"data: [1, 2]\n\n",
    b'event: image_generation.queued\ndata: {"type":"image_generation.queued","b64_json":"AAAA"}\n\n',
    b"retry: 10\nid: 7\n\n",
    b"\n",
)


@pytest.mark.parametrize("family", ["image_generation", "image_edit"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("seed", range(12))
async def test_pictures_and_previews_are_read_from_any_pieces(seed: int, line_end: str, family: str) -> None:
    source = random.Random(seed)
    previews = [source.randbytes(source.randrange(1, 200)) for _ in range(2)]
    pictures = [source.randbytes(source.randrange(1, 300)) for _ in range(3)]
    events = [
        event(f"{family}.partial_image", line_end=line_end, b64_json=b64(content), partial_image_index=number)
        for number, content in enumerate(previews)
    ]
    events += [
        event(f"{family}.completed", line_end=line_end, b64_json=b64(content), created_at=number, usage=usage())
        for number, content in enumerate(pictures)
    ]
    stream = b"".join(part for sent in events for part in (source.choice(ODDITIES), sent)) + b"data: [DONE]\n\n"
    sink = FakeSink()
    said = await read(cut_anywhere(stream, source), sink, order=THREE)
    assert sink.kept == pictures
    assert sink.kept_previews == list(enumerate(previews))
    assert said == UpstreamAnswer(
        facts={"created_at": 2, "usage": usage()},
        usage=UpstreamUsage(input_text_tokens=15, output_image_tokens=300),
        revised_prompts=(None, None, None),
    )


async def test_truncated_stream_is_silent_or_gives_its_complete_pictures() -> None:
    first, second = finished(b"first", usage=usage()), finished(b"the second", usage=usage())
    stream = preview(b"draft", 0) + first + second
    whole = [len(stream) - len(second), len(stream)]
    assert len(stream) > sum(whole) / 2 > 100
    for length in range(len(stream)):
        sink = FakeSink()
        said = await read_or_silence(stream[:length], sink)
        assert sink.kept == [b"first", b"the second"][: len(sink.kept)]
        assert len(said.revised_prompts) == len(sink.kept)
        # The last event is complete except for its empty line.
        told = sum(length >= end - 2 for end in whole)
        assert said.facts == ({"usage": usage()} if told else {})
        assert (said.usage is not None) == (told == len(sink.kept) > 0 and not begun(sink))


async def read_or_silence(stream: bytes, sink: FakeSink) -> UpstreamAnswer:
    """Return the stream's result, or an empty one if the upstream counts as silent."""
    try:
        return await read([stream], sink, order=THREE)
    except core.UpstreamSilentException:
        return UpstreamAnswer()


def begun(sink: FakeSink) -> bool:
    """Return whether a picture was started and never finished."""
    return len(sink.kept) < len(sink.pictures)


async def test_truncated_stream_succeeds_after_a_complete_picture() -> None:
    stream = finished(b"picture", usage=usage())
    closing_quote = stream.index(b'", "usage"')
    with pytest.raises(core.UpstreamSilentException):
        await read([stream[:closing_quote]], FakeSink())
    said = await read([stream[: closing_quote + 1]], FakeSink())
    assert said == UpstreamAnswer(revised_prompts=(None,))


@pytest.mark.parametrize(
    "stream",
    [b"", b"data: [DONE]\n\n", b": comment\n\n", preview(b"draft", 0), event(FINISHED), event("image_generation.x")],
    ids=["nothing", "done", "comment", "preview", "no picture", "other"],
)
async def test_stream_without_a_finished_picture_is_silent(stream: bytes) -> None:
    with pytest.raises(core.UpstreamSilentException):
        await read([stream], FakeSink())


async def test_pictures_beyond_the_order_are_ignored() -> None:
    previews = [preview(bytes([number]), number) for number in range(4)]
    pictures = [finished(bytes([number]), usage=usage(output=10)) for number in range(3)]
    sink = FakeSink()
    said = await read([*previews, *pictures], sink)
    assert (len(sink.pictures), sink.kept) == (1, [b"\0"])
    assert sink.kept_previews == [(0, b"\0"), (1, b"\1")]
    assert said.revised_prompts == (None,)
    assert said.usage is not None
    assert said.usage.output_image_tokens == 10


async def test_previews_beyond_the_order_are_ignored() -> None:
    sink = FakeSink()
    await read([preview(b"draft", 0), finished(b"picture")], sink, order=PictureOrder(prompt="a", model="m"))
    assert (sink.previews, sink.kept) == ([], [b"picture"])


async def test_number_before_the_preview_is_used() -> None:
    sink = FakeSink()
    late = event(PREVIEW, partial_image_index=1, b64_json=b64(b"late"))
    wrong = [event(PREVIEW, partial_image_index=index, b64_json=b64(b"x")) for index in (-1, 2, 10**30, "0", None)]
    await read([late, *wrong, finished(b"picture")], sink)
    assert sink.kept_previews == [(1, b"late")]


async def test_preview_numbers_restart_for_each_picture() -> None:
    sink = FakeSink()
    pictures = [part for number in range(3) for part in (preview(b"draft", 0), finished(bytes([number])))]
    await read(pictures, sink, order=THREE)
    assert [index for index, _ in sink.kept_previews] == [0, 0, 0]


@pytest.mark.parametrize("b64_json", ["A", "A!AA", "AA=A", b64(bytes(2000))])
async def test_invalid_preview_is_skipped(b64_json: str) -> None:
    sink = FakeSink(max_bytes=1000)
    await read([event(PREVIEW, b64_json=b64_json), preview(b"second", 1), finished(b"picture")], sink)
    assert sink.kept_previews == [(1, b"second")]
    assert sink.kept == [b"picture"]


@pytest.mark.parametrize("b64_json", ["A", "A!AA", "AA=A", b64(bytes(3001))])
@pytest.mark.parametrize("piece", [1, 50, 10_000])
async def test_invalid_finished_picture_is_retained_with_the_rest(b64_json: str, piece: int) -> None:
    for before in (b"", finished(b"first")):
        sink = FakeSink(max_bytes=3000)
        broken = event(FINISHED, b64_json=b64_json, size="1x1")
        with pytest.raises(core.PictureUnusableException):
            await read(cut(before + broken + finished(b"next"), piece), sink, order=THREE)
        first, following = [json.loads(data) for data in data_of(bytes(sink.kept_answer))]
        assert first == {"type": FINISHED, "b64_json": b64_json, "size": "1x1"}
        assert following == {"type": FINISHED, "b64_json": b64(b"next")}
        assert sink.kept == ([b"first"] if before else [])


def data_of(stream: bytes) -> list[bytes]:
    """Return the data of the events in a retained stream."""
    return [part.partition(b"\n")[0] for part in stream.split(b"data: ") if part.startswith(b"{")]


async def test_finished_event_with_an_empty_picture_has_none() -> None:
    with pytest.raises(core.UpstreamSilentException):
        await read([event(FINISHED, b64_json="")], FakeSink())


@pytest.mark.parametrize("piece", [1, 50, 10_000])
async def test_stream_may_link_to_its_pictures(piece: int) -> None:
    sink = FakeSink()
    stream = preview(b"draft", 0) + event(FINISHED, url="http://x/1.png", usage=usage(), revised_prompt="a fox")
    stream += event(FINISHED, url="http://x/2.png")
    with closing(EventReader(ONE, sink)) as reader:
        for part in cut(stream, piece):
            await reader.take(part)
        said = await reader.finish()
        await reader.keep()
    assert reader.urls == ["http://x/1.png"]
    assert (said.revised_prompts, said.facts["usage"]) == (("a fox",), usage())
    assert sink.kept_previews == [(0, b"draft")]
    assert [json.loads(data)["url"] for data in data_of(bytes(sink.kept_answer))] == reader.urls


@pytest.mark.parametrize("named", [True, False])
async def test_base64_in_a_stream_is_read_in_other_forms(named: bool) -> None:  # noqa: FBT001  (pytest's way)
    content = random.Random(7).randbytes(500)
    spelled = b64(content).rstrip("=").replace("/", r"\/").replace("+", r"\u002B")
    spelled = r"\r\n".join(spelled[start : start + 76] for start in range(0, len(spelled), 76))
    members = [f'"type": "{FINISHED}"', f'"b64_json": "{spelled}"']
    data = ", ".join(members if named else reversed(members))
    for seed in range(6):
        sink = FakeSink()
        await read(cut_anywhere(f"data: {{{data}}}\n\n".encode(), random.Random(seed)), sink)
        assert sink.kept == [content]


async def test_event_that_ends_within_its_picture_is_invalid() -> None:
    broken = finished(b"the picture").replace(b'"}\n\n', b"\n\n")
    with pytest.raises(core.UpstreamAnswerException):
        await read([broken, finished(b"second")], FakeSink(), order=THREE)


async def test_too_much_json_around_a_picture_is_rejected_early() -> None:
    with pytest.raises(core.UpstreamAnswerException):
        await read([b"data: ", b" " * (MOST_SKELETON_BYTES + 1)], FakeSink())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", ["", "event: message\n"])
async def test_event_type_may_follow_its_picture(name: str, seed: int) -> None:
    """As in events parsed with the SDK's models, whose members are in alphabetical order."""
    draft = {"b64_json": b64(b"draft"), "partial_image_index": 1, "type": PREVIEW}
    picture = {"b64_json": b64(b"picture"), "quality": "low", "type": FINISHED, "usage": usage()}
    excess = {"b64_json": b64(b"excess"), "type": FINISHED, "usage": usage()}
    other = {"b64_json": b64(b"other"), "type": "image_generation.other"}
    events = [f"{name}data: {json.dumps(data)}\n\n".encode() for data in (draft, other, picture, excess)]
    sink = FakeSink()
    said = await read(cut_anywhere(b"".join(events), random.Random(seed)), sink)
    assert sink.kept == [b"picture"]
    assert len(sink.pictures) == 1
    assert sink.kept_previews == [(1, b"draft")]
    assert said.facts == {"quality": "low", "usage": usage()}
    assert said.usage == UpstreamUsage(input_text_tokens=5, output_image_tokens=100)


@pytest.mark.parametrize("b64_json", ["A!AA", b64(bytes(2000))])
async def test_broken_held_picture_fails_only_as_a_finished_one(b64_json: str) -> None:
    def unnamed(kind: str) -> bytes:
        return f"data: {json.dumps({'b64_json': b64_json, 'type': kind})}\n\n".encode()

    sink = FakeSink(max_bytes=1000)
    await read([unnamed(PREVIEW), finished(b"picture")], sink)
    assert (sink.kept_previews, sink.kept) == ([], [b"picture"])
    sink = FakeSink(max_bytes=1000)
    with pytest.raises(core.PictureUnusableException):
        await read([unnamed(FINISHED)], sink)
    assert bytes(sink.kept_answer).endswith(b64_json.encode())
    assert FINISHED.encode() in sink.kept_answer


async def test_held_picture_of_a_broken_stream_is_discarded() -> None:
    """Its file would otherwise be reported as unclosed."""
    with pytest.raises(core.UpstreamSilentException):
        await read([b'data: {"b64_json": "AAAAAAAA"'], FakeSink())
    gc.collect()


def test_held_picture_is_limited() -> None:
    held = HeldPicture(FakeSink().open_temporary)
    with pytest.raises(core.PictureUnusableException):
        held.write(bytes(MOST_HELD_BYTES + 1))
    held.close()


@pytest.mark.parametrize(
    ("code", "raised"), [(errno.ENOSPC, core.StorageFullException), (errno.EROFS, core.ImageStorageException)]
)
def test_failure_to_hold_a_picture_is_a_storage_exception(code: int, raised: type[Exception]) -> None:
    def fail() -> BinaryIO:
        raise OSError(code, "no")

    with pytest.raises(raised) as caught:
        HeldPicture(fail).write(b"picture")
    assert type(caught.value) is raised


async def test_type_in_the_data_overrides_the_name() -> None:
    sink = FakeSink()
    await read([event(FINISHED, name="image_generation.partial_image", b64_json=b64(b"picture"))], sink)
    assert sink.kept == [b"picture"]


async def test_last_event_needs_no_empty_line() -> None:
    sink = FakeSink()
    said = await read([finished(b"picture", usage=usage())[:-2]], sink)
    assert said.usage == UpstreamUsage(input_text_tokens=5, output_image_tokens=100)


async def test_usage_missing_in_one_event_is_unknown() -> None:
    for missing in ({}, {"usage": None}, {"usage": {"output_tokens": 1}}):
        said = await read([finished(b"first", usage=usage()), finished(b"second", **missing)], FakeSink(), order=THREE)
        assert said.usage is None
        assert said.revised_prompts == (None, None)


async def test_revised_prompt_is_returned() -> None:
    said = await read([finished(b"a", revised_prompt="x"), finished(b"b", revised_prompt=5)], FakeSink(), order=THREE)
    assert said.revised_prompts == ("x", None)


async def test_invalid_json_after_a_picture_loses_only_its_details() -> None:
    broken = finished(b"picture", usage=usage()).replace(b"}\n\n", b"\n\n")
    sink = FakeSink()
    said = await read([broken, finished(b"second", usage=usage())], sink, order=THREE)
    assert sink.kept == [b"picture", b"second"]
    assert said.usage is None


ERRORS: dict[str, tuple[dict[str, Any], type[core.ImageGenerationException], dict[str, str]]] = {
    "rate limit": (
        {"type": "requests", "code": "rate_limit_exceeded"},
        core.UpstreamBusyException,
        {"upstream_code": "rate_limit_exceeded"},
    ),
    "quota": ({"type": "insufficient_quota", "code": None}, core.UpstreamFundsException, {}),
    "moderation": (
        {"type": "image_generation_user_error", "code": "moderation_blocked"},
        core.PromptRefusedException,
        {"upstream_code": "moderation_blocked"},
    ),
    "request": (
        {"type": "invalid_request_error", "code": "invalid_value", "param": "size"},
        core.PromptRefusedException,
        {"upstream_code": "invalid_value", "upstream_param": "size"},
    ),
    "server": (
        {"type": "server_error", "code": "server_error"},
        core.UpstreamErrorException,
        {"upstream_code": "server_error"},
    ),
    "nothing": ({}, core.UpstreamErrorException, {}),
    "words": (
        {"type": ["x"], "code": "two words", "param": "<b>", "message": "tell-tale"},
        core.UpstreamErrorException,
        {},
    ),
}


@pytest.mark.parametrize(("members", "expected", "context"), ERRORS.values(), ids=ERRORS)
async def test_error_in_the_stream_maps_like_its_status(
    members: dict[str, Any], expected: type[core.ImageGenerationException], context: dict[str, str]
) -> None:
    forms = (
        error(**members),
        f"data: {json.dumps({'error': members})}\n\n".encode(),
        f"event: error\ndata: {json.dumps(members)}\n\n".encode(),
    )
    for form in forms:
        with pytest.raises(core.ImageGenerationException) as caught:
            await read([preview(b"draft", 0), form, b"data: [DONE]\n\n"], FakeSink())
        assert type(caught.value) is expected
        assert caught.value.context == context
        assert "tell-tale" not in str(caught.value)


async def test_error_that_is_not_json_is_raised() -> None:
    with pytest.raises(core.UpstreamErrorException):
        await read([b"event: error\ndata: it broke\n\n"], FakeSink())


async def test_error_after_a_finished_picture_loses_nothing() -> None:
    sink = FakeSink()
    stream = [finished(b"first", usage=usage()), error(code="rate_limit_exceeded")]
    said = await read(stream, sink, order=THREE)
    assert sink.kept == [b"first"]
    assert said.usage == UpstreamUsage(input_text_tokens=5, output_image_tokens=100)


async def test_memory_does_not_grow_with_pictures_previews_or_lines() -> None:
    """Ten pictures and previews of 8 MB, all but one picture beyond the order.

    They take only one batch as received, as lines, joined and decoded.
    """
    small = await peak_of([finished(bytes(100_000))])
    large = await peak_of(large_stream(characters=10_682_368))
    assert large - small < 4 * BATCH_CHARACTERS


async def test_memory_does_not_grow_with_events_beyond_the_order() -> None:
    """A hundred of them, of 100 KB each."""
    talkative = finished(b"picture", background="x" * 100_000)
    few, many = await peak_of([talkative] * 2), await peak_of([talkative] * 100)
    assert many - few < 1_000_000


def large_stream(*, characters: int) -> Iterator[bytes]:
    """Yield a stream, generated while it is read; its first event has its type after its picture."""
    yield b'data: {"b64_json": "'
    yield from large_base64(characters)
    yield b'", "type": "%b"}\n\n' % FINISHED.encode()
    for kind in (PREVIEW, FINISHED, "other") * 3:
        yield b'event: %b\ndata: {"b64_json": "' % kind.encode()
        yield from large_base64(characters)
        yield b'"}\n\n'


async def peak_of(pieces: Iterable[bytes]) -> int:
    """Return the peak of Python's own memory in bytes while a stream is read."""
    gc.collect()
    tracemalloc.start()
    try:
        await read(pieces, DiscardingSink())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
