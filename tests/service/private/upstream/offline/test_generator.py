"""The offline generator serves every kind of order and identifies its sketches."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from pixyproxy.core.exceptions import PictureUnusableException, PromptRefusedException
from pixyproxy.core.models.order import InputField, InputPicture, Operation, PictureOrder, UpstreamAnswer
from pixyproxy.service.private.upstream.offline.generator import MAX_INPUT_PIXELS, OfflineUpstream
from pixyproxy.service.private.upstream.upstream import OFFLINE_MODEL
from tests.service.private.upstream.openai.sinks import FakeSink
from tests.support import pictures

pytestmark = pytest.mark.anyio
SMALL = {"size": "96x64"}


def order_of(**more: object) -> PictureOrder:
    """Return an order of small pictures."""
    return PictureOrder.model_validate({"prompt": "a fox", "model": "any", "options": SMALL, **more})


async def draw(order: PictureOrder, *inputs: Path) -> tuple[FakeSink, UpstreamAnswer]:
    """Return the pictures and the answer for an order."""
    sink = FakeSink(only_pictures=True)
    said = await OfflineUpstream().draw(order, inputs=inputs, sink=sink)
    return sink, said


def opened(content: bytes) -> Image.Image:
    """Return a picture, decoded."""
    return Image.open(io.BytesIO(content))


async def draw_edit(folder: Path, *files: tuple[InputField, bytes], **more: object) -> bytes:
    """Return the picture for an order with these files."""
    inputs, paths = [], []
    for number, (field, content) in enumerate(files):
        path = folder / str(number)
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        paths.append(path)
        inputs.append(InputPicture(field=field, media_type="image/png", byte_size=len(content), sha256=digest))
    sink, _ = await draw(order_of(operation=Operation.EDIT, inputs=tuple(inputs), **more), *paths)
    (picture,) = sink.kept
    return picture


async def test_order_is_deterministic_and_its_pictures_differ() -> None:
    first, _ = await draw(order_of(count=3))
    second, _ = await draw(order_of(count=3))
    assert first.kept == second.kept
    assert len(set(first.kept)) == 3


async def test_first_picture_does_not_depend_on_the_count() -> None:
    one, _ = await draw(order_of())
    many, _ = await draw(order_of(count=2, previews=1))
    assert one.kept == many.kept[:1]


@pytest.mark.parametrize("previews", [1, 2, 3])
async def test_previews_approach_the_first_picture(previews: int) -> None:
    sink, _ = await draw(order_of(prompt="tiles", count=2, previews=previews))
    assert [index for index, _ in sink.kept_previews] == list(range(previews))
    final = opened(sink.kept[0])
    distances = [distance(opened(content), final) for _, content in sink.kept_previews]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] > 0


def distance(first: Image.Image, second: Image.Image) -> float:
    """Return how much two pictures differ, on average."""
    difference = ImageChops.difference(first.convert("L"), second.convert("L")).histogram()
    return sum(value * count for value, count in enumerate(difference))


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp", "gif"])
async def test_reported_facts_match_the_pictures(output_format: str) -> None:
    options = {**SMALL, "output_format": output_format, "quality": "low", "background": "transparent"}
    sink, said = await draw(order_of(count=2, previews=1, options=options))
    assert {opened(content).format for content in (*sink.kept, sink.kept_previews[0][1])} == {output_format.upper()}
    facts = dict(said.facts)
    assert facts.pop("created") > 1_700_000_000
    assert facts == {"output_format": output_format, "size": "96x64", "quality": "low", "background": "opaque"}
    assert said.usage is None
    assert said.revised_prompts == (None, None)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (1024, 1024)),
        ({"size": "auto"}, (1024, 1024)),
        ({"size": "4096x1024"}, (2048, 512)),
        ({"size": "300x9999"}, (61, 2048)),
        ({"size": "9999x1"}, (2048, 1)),
        ({"size": "2048x40"}, (2048, 40)),
    ],
)
async def test_size_is_as_requested_or_scaled_down(options: dict[str, Any], size: tuple[int, int]) -> None:
    sink, said = await draw(order_of(options=options))
    assert opened(sink.kept[0]).size == size
    assert said.facts["size"] == f"{size[0]}x{size[1]}"


async def test_number_may_be_text_as_in_a_form() -> None:
    low, high = [
        (await draw(order_of(options={**SMALL, "output_format": "jpeg", "output_compression": text})))[0].kept[0]
        for text in ("5", "95")
    ]
    assert len(low) < len(high)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", "big"),
        ("size", "0x64"),
        ("size", "64x64\n"),
        ("size", 64),
        ("output_format", "svg"),
        ("output_format", ["png"]),
        ("output_compression", 101),
        ("output_compression", "much"),
        ("quality", {}),
    ],
)
async def test_invalid_option_is_rejected_with_its_name(name: str, value: object) -> None:
    with pytest.raises(PromptRefusedException) as caught:
        await draw(order_of(options={name: value}))
    assert caught.value.context == {"upstream_code": "invalid_value", "upstream_param": name}


async def test_unknown_options_are_ignored() -> None:
    sink, _ = await draw(order_of(options={**SMALL, "complexity": "high", "user": "x"}))
    assert len(sink.kept) == 1


async def test_edit_resembles_its_picture_and_differs_from_it(tmp_path: Path) -> None:
    source = pictures.png(96, 64)
    edited = opened(await draw_edit(tmp_path, ("image", source)))
    fresh, _ = await draw(order_of())
    assert 0 < distance(edited, opened(source)) < distance(opened(fresh.kept[0]), opened(source))


async def test_edit_has_its_pictures_size_by_default(tmp_path: Path) -> None:
    source = pictures.png(200, 120)
    assert opened(await draw_edit(tmp_path, ("image", source), options={})).size == (200, 120)
    assert opened(await draw_edit(tmp_path, ("image", source))).size == (96, 64)


async def test_first_of_several_pictures_is_edited(tmp_path: Path) -> None:
    files: list[tuple[InputField, bytes]] = [("image", pictures.png(200, 120)), ("image", pictures.png(50, 50))]
    assert opened(await draw_edit(tmp_path, *files, options={})).size == (200, 120)


async def test_mask_preserves_the_covered_area(tmp_path: Path) -> None:
    source = pictures.png(96, 96)
    mask = Image.new("RGBA", (96, 96), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 96, 48))
    file = io.BytesIO()
    mask.save(file, "PNG")
    # Too small for the label, which would be drawn over both halves.
    options = {"size": "32x32"}
    edited = opened(await draw_edit(tmp_path, ("image", source), ("mask", file.getvalue()), options=options))
    original = opened(source).resize((32, 32), Image.Resampling.BICUBIC)
    changed, kept = [distance(edited.crop(half), original.crop(half)) for half in ((0, 0, 32, 14), (0, 18, 32, 32))]
    assert changed > 10 * kept


async def test_result_depends_on_the_inputs(tmp_path: Path) -> None:
    first, other, again = [await draw_edit(tmp_path, ("image", pictures.png(96, 64, seed=seed))) for seed in (1, 2, 1)]
    assert first == again != other


LARGEST = """
import resource, sys
from pathlib import Path
from PIL import Image
from pixyproxy.service.private.upstream.offline.generator import MAX_INPUT_PIXELS, open_picture

path = Path(sys.argv[1])
with Image.new("RGBA", (8000, MAX_INPUT_PIXELS // 8000), (9, 99, 199, 128)) as picture:
    picture.save(path, compress_level=1)
del picture
Path("/proc/self/clear_refs").write_text("5")
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024
before = peak()
opened = open_picture(path)
print(peak() - before, *opened.size, *opened.getpixel((1000, 1000)))
"""


def test_largest_picture_is_decoded_once_and_scaled_down(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LARGEST, str(tmp_path / "large.png")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    grown, *said = map(int, done.stdout.split())
    assert said == [2048, 1280, 9, 99, 199, 128]
    assert grown < 200


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
async def test_large_picture_of_any_mode_is_scaled_down(tmp_path: Path, mode: str) -> None:
    file = io.BytesIO()
    opened(pictures.png(3000, 30)).convert(mode).save(file, "PNG")
    assert opened(await draw_edit(tmp_path, ("image", file.getvalue()), options={})).size == (2048, 20)


async def test_large_photograph_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    opened(pictures.png(3000, 30)).save(file, "JPEG", exif=exif)
    assert opened(await draw_edit(tmp_path, ("image", file.getvalue()), options={})).size == (20, 2048)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        pictures.svg(),
        pictures.png(96, 64)[:200],
        pictures.png_claiming(MAX_INPUT_PIXELS, 2),
        pictures.png_claiming(50_000, 50_000),
    ],
    ids=["empty", "text", "svg", "cut", "many pixels", "bomb"],
)
async def test_undecodable_picture_gives_a_different_sketch(tmp_path: Path, content: bytes) -> None:
    assert opened(await draw_edit(tmp_path, ("image", content), ("mask", content))).size == (96, 64)


async def test_undecodable_mask_is_ignored(tmp_path: Path) -> None:
    assert await draw_edit(tmp_path, ("image", pictures.png(96, 64)), ("mask", b"no picture"))


async def test_sinks_exception_fails_the_order() -> None:
    upstream = OfflineUpstream()
    with pytest.raises(PictureUnusableException):
        await upstream.draw(order_of(), inputs=(), sink=FakeSink(max_bytes=10))


async def test_name_and_model_identify_the_generator() -> None:
    upstream = OfflineUpstream()
    assert "offline" in upstream.name
    assert await upstream.list_models() == [OFFLINE_MODEL]
    await upstream.close()
