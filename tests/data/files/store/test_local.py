"""The picture store in a local folder."""

import os
import sys
import time
from pathlib import Path
from typing import get_args

import pytest

from pixyproxy.core.exceptions import ImageStorageException, PictureMissingException
from pixyproxy.core.models.image import ImageGuid, MediaType
from pixyproxy.data.files.store.local import EXTENSIONS, LocalStore
from tests.support.builders import find_picture, keep_picture, new_guid

pytestmark = pytest.mark.anyio
MEDIA_TYPES: tuple[MediaType, ...] = get_args(MediaType)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "images", room_bytes=1)


@pytest.fixture
def guid() -> ImageGuid:
    return ImageGuid(new_guid())


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
async def test_picture_is_returned_byte_for_byte(store: LocalStore, guid: ImageGuid, media_type: MediaType) -> None:
    content = os.urandom(100_000)
    await keep_picture(store, guid, media_type, content)
    assert find_picture(store, guid) == media_type
    assert await store.read(guid, media_type) == content
    path, status = await store.locate(guid, media_type)
    assert (path.read_bytes(), status.st_size) == (content, len(content))


def test_every_media_type_has_a_unique_extension() -> None:
    assert set(EXTENSIONS) == set(MEDIA_TYPES)
    assert len(set(EXTENSIONS.values())) == len(MEDIA_TYPES)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_path_is_below_the_folder(store: LocalStore, media_type: MediaType) -> None:
    for _ in range(100):
        guid = ImageGuid(new_guid())
        *folders, name = store.path(guid, media_type).resolve().relative_to(store.folder.resolve()).parts
        assert name == f"{guid}{EXTENSIONS[media_type]}"
        assert folders
        assert all(folder.isalnum() for folder in folders)


async def test_absent_picture_is_missing(store: LocalStore, guid: ImageGuid) -> None:
    assert find_picture(store, guid) is None
    with pytest.raises(PictureMissingException):
        await store.read(guid, "image/png")
    with pytest.raises(PictureMissingException):
        await store.locate(guid, "image/png")


async def test_picture_of_another_media_type_is_missing(store: LocalStore, guid: ImageGuid) -> None:
    await keep_picture(store, guid)
    with pytest.raises(PictureMissingException):
        await store.read(guid, "image/webp")


async def test_delete_removes_only_that_picture_and_is_idempotent(store: LocalStore, guid: ImageGuid) -> None:
    other = ImageGuid(new_guid())
    for each in (guid, other):
        await keep_picture(store, each)
    for _ in range(2):
        await store.delete(guid, "image/png")
        assert find_picture(store, guid) is None
    assert await store.read(other, "image/png") == b"picture"


async def test_file_in_place_of_the_folder_raises_storage_exception(store: LocalStore, guid: ImageGuid) -> None:
    store.folder.write_text("in the way")
    with pytest.raises(ImageStorageException):
        await keep_picture(store, guid)
    with pytest.raises(ImageStorageException):
        await store.check()
    assert store.folder.read_text() == "in the way"


async def test_check_creates_the_folder(store: LocalStore) -> None:
    await store.check()
    assert store.folder.is_dir()


async def test_sweep_removes_old_staged_files(store: LocalStore, guid: ImageGuid) -> None:
    await keep_picture(store, guid)
    staged = store.folder / ".incoming" / "dead"
    staged.parent.mkdir()
    staged.write_bytes(b"half")
    os.utime(staged, (time.time() - 7200, time.time() - 7200))
    await store.sweep()
    assert not staged.exists()
    assert await store.read(guid, "image/png") == b"picture"


async def test_adopt_moves_the_picture_and_is_idempotent(store: LocalStore, guid: ImageGuid, tmp_path: Path) -> None:
    source = tmp_path / "received"
    source.write_bytes(b"picture")
    for _ in range(2):
        store.adopt(source, guid, "image/png")
    store.sync([guid])
    assert not source.exists()
    assert await store.read(guid, "image/png") == b"picture"


async def test_adopting_an_absent_file_raises_picture_missing(
    store: LocalStore, guid: ImageGuid, tmp_path: Path
) -> None:
    with pytest.raises(PictureMissingException):
        store.adopt(tmp_path / "received", guid, "image/png")


async def test_sync_without_the_folder_raises_storage_exception(store: LocalStore, guid: ImageGuid) -> None:
    with pytest.raises(ImageStorageException):
        store.sync([guid])


async def test_name_rejected_by_the_file_system_is_a_missing_picture(store: LocalStore) -> None:
    with pytest.raises(PictureMissingException):
        await store.locate(ImageGuid("a" * sys.maxunicode.bit_length() * 20), "image/png")
