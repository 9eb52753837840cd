"""Pictures are recognized by their bytes: four formats within the limits are accepted, everything else is rejected."""

import hashlib
import io
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pixyproxy.core.exceptions import ImageStorageException, PictureUnusableException
from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.core.models.image import ImageGuid
from pixyproxy.core.models.order import ReceivedPicture
from pixyproxy.data.files.retained_answers import RetainedAnswers
from pixyproxy.data.files.spool import SpoolFile, SpoolFolder
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.private.generation.received import PictureLimits, PictureReceiver, ReceivedAnswer
from tests.support import pictures

LIMITS = PictureLimits(max_bytes=1_000_000, max_pixels=100_000_000)
FORMATS = {
    "image/png": pictures.png,
    "image/jpeg": pictures.jpeg,
    "image/webp": pictures.webp,
    "image/gif": pictures.gif,
}
GUID = GenerationGuid("g")
IMAGES = [ImageGuid(f"image {number}") for number in range(3)]


def _receive(
    path: Path, content: bytes, *, limits: PictureLimits = LIMITS, piece: int | None = None
) -> ReceivedPicture:
    """Return the details of a picture that arrives in pieces of this many bytes."""
    receiver = PictureReceiver(SpoolFile(path), limits)
    size = piece or max(1, len(content))
    for start in range(0, len(content), size):
        receiver.write(content[start : start + size])
    receiver.finish()
    assert receiver.finished
    return receiver.picture


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path to which a picture is received."""
    return tmp_path / "picture"


@pytest.fixture
def folder(tmp_path: Path) -> SpoolFolder:
    return SpoolFolder(tmp_path)


@pytest.mark.parametrize("piece", [None, 1, 7, 12, 100], ids=lambda piece: f"pieces of {piece}")
@pytest.mark.parametrize(("media_type", "draw"), FORMATS.items(), ids=FORMATS)
def test_format_is_read_from_the_bytes_in_any_pieces(
    path: Path, media_type: str, draw: Callable[[int, int], bytes], piece: int | None
) -> None:
    content = draw(48, 32)
    picture = _receive(path, content, piece=piece)
    assert (picture.media_type, picture.width, picture.height) == (media_type, 48, 32)
    assert (picture.byte_size, picture.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert path.read_bytes() == content


def test_jpeg_with_further_pictures_is_a_jpeg(path: Path) -> None:
    content = io.BytesIO()
    first, second = (Image.new("RGB", (48, 32), colour) for colour in ("red", "blue"))
    first.save(content, "MPO", save_all=True, append_images=[second])
    picture = _receive(path, content.getvalue())
    assert (picture.media_type, picture.width, picture.height) == ("image/jpeg", 48, 32)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        pictures.svg(),
        b"<!DOCTYPE html><html></html>",
        b"BM" + bytes(60),
        b"II*\0" + bytes(60),
        b"%PDF-1.7\n",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBP",
        b"\xff\xd8\xff",
        bytes(1000),
    ],
    ids=["empty", "png's magic", "svg", "html", "bmp", "tiff", "pdf", "gif's magic", "webp's magic", "jpeg's", "zeros"],
)
@pytest.mark.parametrize("piece", [None, 1], ids=["whole", "byte by byte"])
def test_other_content_is_rejected(path: Path, content: bytes, piece: int | None) -> None:
    with pytest.raises(PictureUnusableException):
        _receive(path, content, piece=piece)


def test_content_rejected_by_its_first_bytes_is_not_written(path: Path) -> None:
    receiver = PictureReceiver(SpoolFile(path), LIMITS)
    with pytest.raises(PictureUnusableException):
        receiver.write(b"<!DOCTYPE html><html></html>")
    assert not path.exists()
    assert not receiver.finished


@pytest.mark.parametrize("draw", FORMATS.values(), ids=FORMATS)
def test_damaged_pictures_raise_only_the_expected_exception(path: Path, draw: Callable[[int, int], bytes]) -> None:
    content, chosen = draw(48, 32), random.Random(1)
    broken = [content[:length] for length in range(min(len(content), 200))]
    for _ in range(200):
        altered = bytearray(content)
        for _ in range(chosen.randint(1, 4)):
            altered[chosen.randrange(min(len(altered), 200))] = chosen.randrange(256)
        broken.append(bytes(altered))
    refused = 0
    for candidate in broken:
        try:
            _receive(path, candidate)
        except PictureUnusableException:
            refused += 1
        path.unlink(missing_ok=True)
    assert refused > 10


def test_header_with_too_many_pixels_is_rejected_at_once(path: Path) -> None:
    receiver = PictureReceiver(SpoolFile(path), LIMITS)
    with pytest.raises(PictureUnusableException):
        receiver.write(pictures.png_claiming(50_000, 50_000))
    assert not path.exists()


@pytest.mark.parametrize("piece", [None, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (100_000, 1000)])
def test_pixel_limit_is_exact(path: Path, width: int, height: int, piece: int | None) -> None:
    assert _receive(path, pictures.png_claiming(width, height), piece=piece).width == width
    with pytest.raises(PictureUnusableException):
        _receive(path, pictures.png_claiming(width, height + 1), piece=piece)


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0), (0, 0)])
def test_picture_without_pixels_is_rejected(path: Path, width: int, height: int) -> None:
    with pytest.raises(PictureUnusableException):
        _receive(path, pictures.png_claiming(width, height))


@pytest.mark.parametrize("piece", [None, 1], ids=["whole", "byte by byte"])
def test_byte_limit_is_exact(path: Path, piece: int | None) -> None:
    content = pictures.png(64, 64)
    limits = PictureLimits(max_bytes=len(content), max_pixels=64 * 64)
    assert _receive(path, content, limits=limits, piece=piece).byte_size == len(content)
    with pytest.raises(PictureUnusableException):
        _receive(path, content, limits=PictureLimits(max_bytes=len(content) - 1, max_pixels=64 * 64), piece=piece)


def test_unwritable_file_is_a_storage_exception(tmp_path: Path) -> None:
    with pytest.raises(ImageStorageException):
        _receive(tmp_path / "absent" / "picture", pictures.png(8, 8))


def _begun(folder: SpoolFolder, notify_preview: Callable[[], object] = lambda: None) -> ReceivedAnswer:
    """Return a response of which nothing has arrived."""
    answers, store = RetainedAnswers(folder.path / "kept"), LocalStore(folder.path / "images", room_bytes=1)
    return ReceivedAnswer(folder, GUID, IMAGES, LIMITS, store, answers, notify_preview)


def _answer(folder: SpoolFolder, *contents: bytes | None) -> ReceivedAnswer:
    """Return a response with these pictures; None: one that broke off."""
    answer = _begun(folder)
    for content in contents:
        receiver = answer.begin_picture()
        receiver.write(content or pictures.png(8, 8)[:40])
        if content is None:
            receiver.file.close()
        else:
            receiver.finish()
    return answer


def test_pictures_are_in_the_folder_in_order(folder: SpoolFolder) -> None:
    contents = [pictures.png(8, 8, seed=seed) for seed in range(3)]
    answer = _answer(folder, *contents)
    assert [picture.sha256 for picture in answer.whole] == [hashlib.sha256(each).hexdigest() for each in contents]
    assert [folder.picture(GUID, index).read_bytes() for index in range(3)] == contents


def test_picture_in_one_piece_stays_in_memory(folder: SpoolFolder) -> None:
    content = pictures.png(8, 8)
    answer = _answer(folder, content)
    assert answer.store.recent.get(IMAGES[0]) == content
    receiver = answer.begin_picture()
    for piece in (content[:40], content[40:]):
        receiver.write(piece)
    receiver.finish()
    assert [answer.store.recent.get(guid) for guid in IMAGES[1:]] == [None, None]


def test_previews_do_not_stay_in_memory(folder: SpoolFolder) -> None:
    content = pictures.noise_png(1_000_000)
    answer = _begun(folder)
    answer.store.orders.prepare(GUID)
    tracemalloc.start()
    try:
        for _ in range(10):
            receiver = answer.begin_preview(0)
            # A new object each time.
            receiver.write(bytes(bytearray(content)))
            receiver.finish()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < len(content)


@pytest.mark.parametrize("broken_at", range(3))
def test_whole_has_the_pictures_before_the_first_incomplete_one(folder: SpoolFolder, broken_at: int) -> None:
    content = pictures.png(8, 8)
    contents: list[bytes | None] = [content, content, content]
    contents[broken_at] = None
    assert len(_answer(folder, *contents).whole) == broken_at


def test_retained_answer_is_limited_and_stops_its_reader(folder: SpoolFolder) -> None:
    answer = _begun(folder)
    content = random.Random(1).randbytes(2 * LIMITS.max_bytes)
    for start in range(0, len(content), 700_000):
        answer.keep(content[start : start + 700_000])
    with pytest.raises(PictureUnusableException):
        answer.keep(b"more")
    answer.commit_kept()
    (kept,) = answer.answers.list_all()
    assert (kept.guid, kept.byte_size) == (GUID, len(content))
    assert kept.paths[0].read_bytes() == content


def test_response_without_a_picture_has_none(folder: SpoolFolder) -> None:
    assert _answer(folder).whole == ()


def test_preview_is_published_when_complete(folder: SpoolFolder) -> None:
    shown: list[bool] = []
    content, orders = pictures.png(8, 8), _begun(folder).store.orders
    path = orders.preview(GUID, 2)
    orders.prepare(GUID)
    answer = _begun(folder, lambda: shown.append(path.is_file()))
    receiver = answer.begin_preview(2)
    seen_too_soon = []
    for start in range(0, len(content), 20):
        receiver.write(content[start : start + 20])
        seen_too_soon.append(path.exists())
    assert seen_too_soon == [False] * (len(content) // 20 + 1)
    receiver.finish()
    assert path.read_bytes() == content
    assert shown == [True]
    assert answer.whole == ()


@pytest.mark.parametrize(
    "content",
    [b"<!DOCTYPE html><html></html>", b"", pictures.png_claiming(50_000, 50_000), b"\x89PNG\r\n\x1a\n" + bytes(20)],
    ids=["html", "empty", "too large", "damaged"],
)
def test_invalid_preview_is_dropped(folder: SpoolFolder, content: bytes) -> None:
    shown: list[None] = []
    answer = _begun(folder, lambda: shown.append(None))
    answer.store.orders.prepare(GUID)
    receiver = answer.begin_preview(0)
    receiver.write(content)
    receiver.write(content)
    receiver.finish()
    assert not answer.store.orders.preview(GUID, 0).exists()
    assert shown == []


def test_unwritable_preview_is_dropped(tmp_path: Path) -> None:
    answer = _begun(SpoolFolder(tmp_path / "absent"))
    receiver = answer.begin_preview(0)
    receiver.write(pictures.png(8, 8))
    receiver.finish()
    assert not (tmp_path / "absent").exists()
