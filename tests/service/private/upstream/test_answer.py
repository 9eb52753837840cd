"""Reading an answer piece by piece: the pictures come out whole, however it was cut."""

import asyncio
import base64
import gc
import json
import random
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import anyio
import pytest

from pixyproxy.core.exceptions import PictureUnusableException, UpstreamAnswerException
from pixyproxy.core.models.order import UpstreamAnswer, UpstreamUsage
from pixyproxy.service.private.upstream.answer import AnswerReader
from pixyproxy.service.private.upstream.base64_scanner import MOST_SKELETON_BYTES
from pixyproxy.service.private.upstream.delivery import BATCH_CHARACTERS, MOST_GATHERED_CHARACTERS, PictureDelivery
from pixyproxy.service.private.upstream.upstream import PictureSink
from tests.service.private.upstream.sinks import (
    BlockedWriter,
    DiscardingSink,
    FakeSink,
    answer_with,
    b64,
    cut,
    cut_anywhere,
    large_base64,
    usage,
)

pytestmark = pytest.mark.anyio
PICTURES = (b"first", b"the second", b"third!")


async def read(pieces: Iterable[bytes], sink: PictureSink, *, count: int = 10) -> UpstreamAnswer:
    """What a reader makes of an answer that arrives in these pieces."""
    reader = AnswerReader(count=count, sink=sink)
    for piece in pieces:
        await reader.take(piece)
    return reader.finish()


async def read_one(answer: bytes, *, piece: int = 65_536) -> bytes:
    """The picture in an answer of one."""
    sink = FakeSink()
    await read(cut(answer, piece), sink, count=1)
    (picture,) = sink.kept
    return picture


@pytest.mark.parametrize("seed", range(40))
async def test_pictures_are_read_whatever_the_pieces_and_their_length(seed: int) -> None:
    source = random.Random(seed)
    pictures = [source.randbytes(source.randrange(1, 300)) for _ in range(source.randint(1, 10))]
    data: list[Any] = [{"revised_prompt": '"b64_json":"', "b64_json": b64(picture)} for picture in pictures]
    document = {"note": 'says "b64_json": "zz" and "b64_json":"', 'x"b64_json': "zz", "data": data, "size": "1x1"}
    answer = json.dumps(document, indent=source.choice([None, 1])).encode()
    sink = FakeSink()
    said = await read(cut_anywhere(answer, source), sink)
    assert sink.kept == pictures
    assert said.facts == {name: value for name, value in document.items() if name != "data"}
    assert said.revised_prompts == ('"b64_json":"',) * len(pictures)


async def test_every_place_to_cut_gives_an_exception_and_no_wrong_picture() -> None:
    answer = answer_with(*PICTURES, usage=usage())
    for length in range(len(answer)):
        sink = FakeSink()
        with pytest.raises(UpstreamAnswerException):
            await read([answer[:length]], sink)
        assert sink.kept == list(PICTURES[: len(sink.kept)])
    assert (await read([answer], FakeSink())).facts == {"created": 1, "usage": usage()}


@pytest.mark.parametrize(
    ("before", "after"), [(b" " * 16, b" " * 16), (b"\t\r\n " * 4, b"\r\n\t " * 4), (b"", b"\n" * 16), (b" ", b"")]
)
async def test_blanks_around_the_colon_lose_no_picture_wherever_they_are_cut(before: bytes, after: bytes) -> None:
    answer = b'{"data": [{"b64_json"%b:%b"%b"}]}' % (before, after, b64(PICTURES[0]).encode())
    for place in range(len(answer)):
        sink = FakeSink()
        await read([answer[:place], answer[place:]], sink)
        assert sink.kept == [PICTURES[0]]
    assert await read_one(answer, piece=1) == PICTURES[0]


async def test_more_pictures_than_ordered_are_passed_over() -> None:
    sink = FakeSink()
    said = await read(cut(answer_with(*PICTURES), 5), sink, count=2)
    assert sink.kept == list(PICTURES[:2])
    assert len(sink.pictures) == 2
    assert said.revised_prompts == (None, None)


async def test_items_without_a_picture_are_passed_over_beside_one() -> None:
    sink = FakeSink()
    data = [{"url": "http://x"}, {"b64_json": b64(b"picture"), "revised_prompt": "a fox"}, {"b64_json": None}, 5]
    said = await read([json.dumps({"data": data}).encode()], sink)
    assert sink.kept == [b"picture"]
    assert said.revised_prompts == ("a fox",)


async def test_a_small_picture_is_written_at_once_in_another_thread() -> None:
    sink = FakeSink()
    await read(cut(answer_with(bytes(100_000)), 1000), sink)
    (writer,) = sink.pictures
    assert writer.writes == 1
    assert len(writer.threads) == 1


async def test_a_large_picture_is_written_in_batches() -> None:
    sink = FakeSink()
    content = random.Random(1).randbytes(10_000_000)
    await read(cut(answer_with(content), 65_536), sink)
    assert sink.kept == [content]
    assert len(b64(content)) / BATCH_CHARACTERS < sink.pictures[0].writes < len(b64(content)) / 65_536


async def test_pictures_that_arrive_together_share_the_room() -> None:
    sink = FakeSink()
    content = random.Random(1).randbytes(1_500_000)
    alone = AnswerReader(count=1, sink=sink)
    others = [PictureDelivery(FakeSink().begin_picture()) for _ in range(MOST_GATHERED_CHARACTERS // 500_000)]
    for piece in cut(answer_with(content), 65_536):
        await alone.take(piece)
    assert sink.kept == [content]
    assert sink.pictures[0].writes >= 4
    for delivery in others:
        await delivery.take(b"AAAA", last=True)


@pytest.mark.parametrize("piece", [1, 5, 1000])
@pytest.mark.parametrize("b64_json", ["A", "AA", "AAA", "AA==AA==", "AA==AAAA", "A!AA", "AA=A", "AA\nAA", "AA\\/A"])
async def test_bad_base64_is_refused(b64_json: str, piece: int) -> None:
    with pytest.raises(UpstreamAnswerException):
        await read_one(json.dumps({"data": [{"b64_json": b64_json}]}).encode(), piece=piece)


@pytest.mark.parametrize("seed", range(20))
async def test_base64_is_taken_or_refused_alike_however_it_is_batched(seed: int) -> None:
    source = random.Random(seed)
    text = "".join(source.choices("AZaz09+/=!", weights=[9] * 8 + [3, 1], k=source.randint(1, 40)))
    try:
        expected = base64.b64decode(text, validate=True) if len(text) % 4 == 0 else None
    except ValueError:
        expected = None
    for characters in range(1, 20):
        sink = FakeSink()
        delivery = PictureDelivery(sink.begin_picture(), batch_characters=characters)
        if expected is None:
            with pytest.raises(UpstreamAnswerException):
                await deliver(delivery, text, source)
        else:
            await deliver(delivery, text, source)
            assert sink.kept == [expected]


async def deliver(delivery: PictureDelivery, text: str, source: random.Random) -> None:
    """Give base64 to a delivery in any pieces."""
    for piece in cut_anywhere(text.encode(), source):
        await delivery.take(piece, last=False)
    await delivery.take(b"", last=True)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"<html>",
        b'{"data": []}',
        b'{"data": null}',
        b'{"data": {"b64_json": "AAAA"}}',
        b'{"data": [{}]}',
        b'{"data": [{"url": "http://x"}], "b64_json": "AAAA"}',
        b'{"data": [{"b64_json": "AAAA"}], "b64_json": "AAAA"}',
        b'{"data": [{"b64_json": "AAAA", "b64_json": "AAAA"}]}',
        b'{"data": [{"b64_json": "AAAA"}]',
        b'{"data": [{"b64_json": "AAAA',
        b'{"data": [{"b64_json": "AAAA"}]} more',
        b'{"data": [{"b64\\u005fjson": "AAAA"}]}',
        b'{"data": [{"b64_json": ""}]}',
        b'{"data": [{"b64_json": 12345}]}',
        b'{"data": [{"b64_json": "AAAA"}], "cost": NaN}',
        b'{"data": [{"b64_json": "AAAA"}], "note": "\xff"}',
        b'{"data": [{"b64_json": "AAAA"}], "deep": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'[{"data": [{"b64_json": "AAAA"}]}]',
    ],
)
async def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    with pytest.raises(UpstreamAnswerException):
        await read(cut(answer, 3), FakeSink())


async def test_a_picture_that_is_too_large_is_refused_before_it_is_whole() -> None:
    sink = FakeSink(max_bytes=1000)
    reader = AnswerReader(count=1, sink=sink)
    await reader.take(b'{"data": [{"b64_json": "')
    with pytest.raises(PictureUnusableException):
        await reader.take(b"A" * BATCH_CHARACTERS)
    assert sink.kept == []


async def test_a_flood_around_the_picture_is_refused_before_it_is_whole() -> None:
    reader = AnswerReader(count=1, sink=FakeSink())
    with pytest.raises(UpstreamAnswerException):
        await reader.take(b" " * (MOST_SKELETON_BYTES + 1))


async def test_tokens_are_told_by_kind() -> None:
    details = {"text_tokens": 3, "image_tokens": 97}
    told = {**usage(text=7, image=323), "output_tokens_details": details}
    said = await read([answer_with(b"picture", usage=told)], FakeSink())
    assert said.usage == UpstreamUsage(
        input_text_tokens=7, input_image_tokens=323, output_text_tokens=3, output_image_tokens=97
    )


async def test_tokens_of_the_output_are_those_of_the_image_where_their_kind_is_not_told() -> None:
    for told in (usage(output=55), {**usage(output=55), "output_tokens_details": None}):
        said = await read([answer_with(b"picture", usage=told)], FakeSink())
        assert said.usage == UpstreamUsage(input_text_tokens=5, output_image_tokens=55)


@pytest.mark.parametrize(
    "told",
    [
        None,
        5,
        [],
        {},
        "usage",
        {**usage(), "output_tokens": -1},
        {**usage(), "output_tokens": 1.5},
        {**usage(), "output_tokens": True},
        {**usage(), "output_tokens": "9"},
        {**usage(), "output_tokens": 10**12},
        {**usage(), "input_tokens_details": None},
        {**usage(), "input_tokens_details": {"text_tokens": 5}},
        {**usage(), "output_tokens_details": {"image_tokens": "many"}},
    ],
)
async def test_a_malformed_usage_costs_no_picture(told: object) -> None:
    sink = FakeSink()
    said = await read([answer_with(b"picture", usage=told)], sink)
    assert said.usage is None
    assert said.facts["usage"] == told
    assert sink.kept == [b"picture"]


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_whoever_is_cancelled_waits_for_the_thread_that_writes(how: str) -> None:
    writer = BlockedWriter()
    delivery = PictureDelivery(writer)
    scope = anyio.CancelScope()

    async def deliver_all() -> None:
        with scope:
            await delivery.take(b"AAAA", last=True)

    task = asyncio.create_task(deliver_all())
    await asyncio.to_thread(writer.begun.wait, 20)
    if how == "task":
        task.cancel()
    else:
        scope.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    writer.release.set()
    await asyncio.wait([task])
    assert writer.done


async def test_memory_does_not_grow_with_the_pictures() -> None:
    """Ten pictures of 8 MB take no more than a batch as it came, as a whole and decoded, and the next one."""
    small = await peak_of([answer_with(bytes(100_000))])
    large = await peak_of(answer_of_large_pictures(count=10, characters=10_682_368))
    assert large - small < 4 * BATCH_CHARACTERS


def answer_of_large_pictures(*, count: int, characters: int) -> Iterator[bytes]:
    """A JSON answer, made while it is read."""
    yield b'{"data":['
    for number in range(count):
        yield b',{"b64_json":"' if number else b'{"b64_json":"'
        yield from large_base64(characters)
        yield b'"}'
    yield b"]}"


async def peak_of(pieces: Iterable[bytes]) -> int:
    """Bytes of Python's own memory, at the most, while an answer is read."""
    gc.collect()
    tracemalloc.start()
    try:
        await read(pieces, DiscardingSink())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
