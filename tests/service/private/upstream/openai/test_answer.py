"""Reading a response in pieces: the pictures are complete, however it was split."""

import asyncio
import base64
import gc
import json
import random
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio
import pytest

from pixyproxy.core.exceptions import (
    ImageGenerationException,
    PictureUnusableException,
    PromptRefusedException,
    UpstreamAnswerException,
    UpstreamBusyException,
    UpstreamErrorException,
)
from pixyproxy.core.models.order import UpstreamAnswer, UpstreamUsage
from pixyproxy.service.private.upstream.openai.answer import AnswerReader
from pixyproxy.service.private.upstream.openai.base64_scanner import MOST_SKELETON_BYTES
from pixyproxy.service.private.upstream.openai.delivery import (
    BATCH_CHARACTERS,
    MOST_GATHERED_CHARACTERS,
    PictureDelivery,
)
from pixyproxy.service.private.upstream.upstream import PictureSink
from tests.service.private.upstream.openai.sinks import (
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
from tests.support import pictures

pytestmark = pytest.mark.anyio
PICTURES = (b"first", b"the second", b"third!")


async def read(pieces: Iterable[bytes], sink: PictureSink, *, count: int = 10) -> UpstreamAnswer:
    """Return the result of a reader for a response in these pieces."""
    reader = AnswerReader(count=count, sink=sink)
    for piece in pieces:
        await reader.take(piece)
    return await reader.finish()


async def read_one(answer: bytes, *, piece: int = 65_536) -> bytes:
    """Return the picture in a response with one."""
    sink = FakeSink()
    await read(cut(answer, piece), sink, count=1)
    (picture,) = sink.kept
    return picture


@pytest.mark.parametrize("seed", range(40))
async def test_pictures_are_read_from_pieces_of_any_length(seed: int) -> None:
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


async def test_truncated_response_raises_and_gives_no_wrong_picture() -> None:
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
async def test_split_white_space_around_the_colon_loses_no_picture(before: bytes, after: bytes) -> None:
    answer = b'{"data": [{"b64_json"%b:%b"%b"}]}' % (before, after, b64(PICTURES[0]).encode())
    for slot in range(len(answer)):
        sink = FakeSink()
        await read([answer[:slot], answer[slot:]], sink)
        assert sink.kept == [PICTURES[0]]
    assert await read_one(answer, piece=1) == PICTURES[0]


async def test_pictures_beyond_the_order_are_ignored() -> None:
    sink = FakeSink()
    said = await read(cut(answer_with(*PICTURES), 5), sink, count=2)
    assert sink.kept == list(PICTURES[:2])
    assert len(sink.pictures) == 2
    assert said.revised_prompts == (None, None)


async def test_items_without_a_picture_are_ignored_beside_one() -> None:
    sink = FakeSink()
    data = [{"url": ""}, {"b64_json": b64(b"picture"), "revised_prompt": "a fox"}, {"b64_json": None}, 5]
    said = await read([json.dumps({"data": data}).encode()], sink)
    assert sink.kept == [b"picture"]
    assert said.revised_prompts == ("a fox",)


async def test_urls_of_linked_pictures_are_returned() -> None:
    """As LocalAI, Together and xAI respond; an empty ``b64_json`` beside the URL is not a picture."""
    data = [
        {"url": "http://x/1.png", "b64_json": None, "revised_prompt": "a fox"},
        {"b64_json": "", "url": "http://x/2.png"},
        {"url": "http://x/3.png"},
    ]
    for piece in (1, 7, 1000):
        sink = FakeSink()
        reader = AnswerReader(count=2, sink=sink)
        for part in cut(json.dumps({"created": 1, "data": data}).encode(), piece):
            await reader.take(part)
        said = await reader.finish()
        assert reader.urls == ["http://x/1.png", "http://x/2.png"]
        assert (said.facts, said.revised_prompts) == ({"created": 1}, ("a fox", None))
        assert sink.pictures == []


async def test_small_picture_is_written_at_once_in_another_thread() -> None:
    sink = FakeSink()
    await read(cut(answer_with(bytes(100_000)), 1000), sink)
    (writer,) = sink.pictures
    assert writer.writes == 1
    assert len(writer.threads) == 1


async def test_large_picture_is_written_in_batches() -> None:
    sink = FakeSink()
    content = random.Random(1).randbytes(10_000_000)
    await read(cut(answer_with(content), 65_536), sink)
    assert sink.kept == [content]
    assert len(b64(content)) / BATCH_CHARACTERS < sink.pictures[0].writes < len(b64(content)) / 65_536


async def test_concurrent_pictures_share_the_memory_limit() -> None:
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


SPELLINGS: dict[str, Callable[[str], str]] = {
    "PHP": lambda text: text.replace("/", r"\/"),
    ".NET": lambda text: text.replace("+", r"\u002B").replace("/", r"\u002F"),
    "Java": lambda text: text.replace("=", r"\u003d"),
    "every character escaped": lambda text: "".join(f"\\u{ord(character):04x}" for character in text),
    "MIME lines": lambda text: r"\r\n".join(text[start : start + 76] for start in range(0, len(text), 76)),
    "OpenSSL lines": lambda text: "".join(text[start : start + 64] + r"\n" for start in range(0, len(text), 64)),
    "spaces": lambda text: f" {text[:9]} {text[9:]}\\t",
    "no padding": lambda text: text.rstrip("="),
    "the URL-safe alphabet": lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
    "a data URL": lambda text: "data:image/png;base64," + text,
    "a data URL of PHP": lambda text: r"data:image\/png;base64," + text.replace("/", r"\/"),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("seed", range(6))
async def test_base64_is_read_in_every_valid_form(spelling: Callable[[str], str], seed: int) -> None:
    source = random.Random(seed)
    pictures = [source.randbytes(source.randrange(60, 600)) for _ in range(3)]
    items = b", ".join(b'{"b64_json": "%b"}' % spelling(b64(picture)).encode() for picture in pictures)
    sink = FakeSink()
    await read(cut_anywhere(b'{"data": [%b]}' % items, source), sink)
    assert sink.kept == pictures


@pytest.mark.parametrize("spelling", [SPELLINGS[name] for name in SPELLINGS if "data" not in name])
@pytest.mark.parametrize("seed", range(4))
async def test_base64_may_be_split_anywhere_into_batches(spelling: Callable[[str], str], seed: int) -> None:
    source = random.Random(seed)
    content = source.randbytes(100 + seed)
    for characters in range(1, 30):
        assert await delivered(spelling(b64(content)), source, batch_characters=characters) == content


async def test_data_url_is_the_picture_itself() -> None:
    content = random.Random(1).randbytes(100_000)
    data = [{"url": f"data:image/png;base64,{b64(content)}", "revised_prompt": "a fox"}]
    for piece in (7, 50, 65_536):
        sink = FakeSink()
        said = await read(cut(json.dumps({"data": data}).encode(), piece), sink)
        assert sink.kept == [content]
        assert said.revised_prompts == ("a fox",)


@pytest.mark.parametrize("piece", [1, 5, 1000])
@pytest.mark.parametrize(
    "b64_json", ["A", "AA==AA==", "AA==AAAA", "A!AA", "AA=A", r"AA\u00e9A", r"AA\u0", r"AA\x2F", r"AA\/A=A", "data:A"]
)
async def test_invalid_base64_is_retained_unchanged(b64_json: str, piece: int) -> None:
    answer = b'{"created": 1, "data": [{"b64_json": "%b"}], "usage": {"b64_json": "AAAA"}}' % b64_json.encode()
    sink = FakeSink()
    with pytest.raises(PictureUnusableException):
        await read(cut(answer, piece), sink)
    assert bytes(sink.kept_answer) == answer
    assert sink.kept == []


@pytest.mark.parametrize("piece", [1, 100, 65_536])
async def test_unusable_picture_is_retained_with_the_whole_answer(piece: int) -> None:
    answer = answer_with(pictures.svg(), pictures.png(8, 8), usage=usage())
    sink = FakeSink(only_pictures=True)
    with pytest.raises(PictureUnusableException):
        await read(cut(answer, piece), sink)
    assert bytes(sink.kept_answer) == answer


async def test_pictures_before_an_unusable_one_are_not_retained() -> None:
    first, second = pictures.png(8, 8), pictures.svg()
    sink = FakeSink(only_pictures=True)
    with pytest.raises(PictureUnusableException):
        await read(cut(answer_with(first, second), 100), sink)
    assert sink.kept == [first]
    assert json.loads(sink.kept_answer)["data"] == [{"b64_json": "*"}, {"b64_json": b64(second)}]


async def test_large_broken_picture_is_retained_from_the_error_on() -> None:
    text = b64(bytes(9_000_000))[:-4] + "A!AA"
    sink = FakeSink()
    with pytest.raises(PictureUnusableException):
        await read(cut(b'{"data":[{"b64_json":"%b"}]}' % text.encode(), 65_536), sink)
    written = bytes(sink.pictures[0].content)
    assert len(written) > 6_000_000
    kept = bytes(sink.kept_answer)
    assert kept.startswith(b'{"data":[{"b64_json":"')
    assert kept.endswith(b'A!AA"}]}')
    assert len(b64(written)) + len(kept) == len(text) + len(b'{"data":[{"b64_json":""}]}')


@pytest.mark.parametrize(
    "answer",
    [
        b'{"images": [{"url": "http://x/1.png"}]}',
        b'{"data": {"url": "http://x/1.png"}}',
        b'{"data": [{"image": "AAAA"}]}',
        b'[{"data": [{"base64": "AAAA"}]}]',
        b'{"data": [{"b64_json": "AAAA"}, {"b64_json": 5}], "b64_json": "AAAA"}',
        b'{"data": [{"b64_json": "AAAA',
        b'{"output": "' + b"A" * MOST_SKELETON_BYTES + b'"}',
        pictures.png(8, 8),
        pictures.noise_png(2 * MOST_SKELETON_BYTES),
    ],
    ids=["images", "no list", "image", "base64", "elsewhere", "half", "long", "a picture", "a long picture"],
)
@pytest.mark.parametrize("piece", [50, 100_000])
async def test_answer_in_another_dialect_is_retained_if_it_may_have_a_picture(answer: bytes, piece: int) -> None:
    sink = FakeSink()
    with pytest.raises(PictureUnusableException):
        await read(cut(answer, piece), sink)
    assert bytes(sink.kept_answer).replace(b'"*"', b'"AAAA"') == answer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 429, "message": "Slow down"}, UpstreamBusyException),
        ({"message": "Your request was rejected by the safety system."}, PromptRefusedException),
        ({"type": "server_error"}, UpstreamErrorException),
        ("Content violates usage guidelines.", PromptRefusedException),
    ],
    ids=repr,
)
async def test_error_in_a_200_response_maps_like_its_status(error: object, expected: type[Exception]) -> None:
    sink = FakeSink()
    with pytest.raises(ImageGenerationException) as caught:
        await read([json.dumps({"error": error, "data": None}).encode()], sink)
    assert type(caught.value) is expected
    assert sink.kept_answer == b""


@pytest.mark.parametrize("seed", range(20))
async def test_batching_does_not_change_base64_validation(seed: int) -> None:
    source = random.Random(seed)
    text = "".join(source.choices("AZaz09+/=!", weights=[9] * 8 + [3, 1], k=source.randint(1, 40)))
    try:
        expected = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        expected = None
    for characters in range(1, 20):
        assert await delivered(text, source, batch_characters=characters) == expected


async def delivered(text: str, source: random.Random, *, batch_characters: int) -> bytes | None:
    """Return what a delivery decodes from base64 in any pieces; None if it rejects it."""
    sink = FakeSink()
    delivery = PictureDelivery(sink.begin_picture(), batch_characters=batch_characters)
    try:
        for piece in cut_anywhere(text.encode(), source):
            await delivery.take(piece, last=False)
        await delivery.take(b"", last=True)
    except UpstreamAnswerException:
        return None
    (picture,) = sink.kept
    return picture


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
async def test_invalid_response_is_rejected(answer: bytes) -> None:
    with pytest.raises(UpstreamAnswerException):
        await read(cut(answer, 3), FakeSink())


async def test_too_large_picture_is_rejected_early() -> None:
    sink = FakeSink(max_bytes=1000)
    reader = AnswerReader(count=1, sink=sink)
    await reader.take(b'{"data": [{"b64_json": "')
    with pytest.raises(PictureUnusableException):
        await reader.take(b"A" * BATCH_CHARACTERS)
    assert sink.kept == []


async def test_too_much_json_around_a_picture_is_rejected_early() -> None:
    reader = AnswerReader(count=1, sink=FakeSink())
    with pytest.raises(UpstreamAnswerException):
        await reader.take(b" " * (MOST_SKELETON_BYTES + 1))


async def test_tokens_are_returned_by_kind() -> None:
    details = {"text_tokens": 3, "image_tokens": 97}
    told = {**usage(text=7, image=323), "output_tokens_details": details}
    said = await read([answer_with(b"picture", usage=told)], FakeSink())
    assert said.usage == UpstreamUsage(
        input_text_tokens=7, input_image_tokens=323, output_text_tokens=3, output_image_tokens=97
    )


async def test_output_tokens_without_details_are_image_tokens() -> None:
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
async def test_malformed_usage_loses_no_picture(told: object) -> None:
    sink = FakeSink()
    said = await read([answer_with(b"picture", usage=told)], sink)
    assert said.usage is None
    assert said.facts["usage"] == told
    assert sink.kept == [b"picture"]


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_cancelled_caller_waits_for_the_writing_thread(how: str) -> None:
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


async def test_memory_does_not_grow_with_the_pictures_size() -> None:
    """Ten pictures of 8 MB take only one batch as received, joined and decoded, and the next one."""
    small = await peak_of([answer_with(bytes(100_000))])
    large = await peak_of(answer_of_large_pictures(count=10, characters=10_682_368))
    assert large - small < 4 * BATCH_CHARACTERS


def answer_of_large_pictures(*, count: int, characters: int) -> Iterator[bytes]:
    """Yield a JSON response, generated while it is read."""
    yield b'{"data":['
    for number in range(count):
        yield b',{"b64_json":"' if number else b'{"b64_json":"'
        yield from large_base64(characters)
        yield b'"}'
    yield b"]}"


async def peak_of(pieces: Iterable[bytes]) -> int:
    """Return the peak of Python's own memory in bytes while a response is read."""
    gc.collect()
    tracemalloc.start()
    try:
        await read(pieces, DiscardingSink())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
