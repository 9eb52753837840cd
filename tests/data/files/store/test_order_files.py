"""Files that an order needs until it is finished."""

import os
import time
from pathlib import Path

import pytest

from pixyproxy.core.exceptions import ImageStorageException
from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.data.files.durable import STAGED_AGE_SECONDS
from pixyproxy.data.files.store.order_files import OrderFiles
from tests.support.builders import new_guid


@pytest.fixture
def files(tmp_path: Path) -> OrderFiles:
    """Return the files of a store that has no orders yet."""
    return OrderFiles(tmp_path / "images" / ".orders")


def test_files_of_an_order_are_separate_and_removed_together(files: OrderFiles) -> None:
    gone, kept = (GenerationGuid(new_guid()) for _ in range(2))
    paths = []
    for guid in (gone, kept):
        for _ in range(2):
            files.prepare(guid)
        paths += [files.input(guid, 0), files.input(guid, 1), files.preview(guid, 0)]
        for path in paths[-3:]:
            path.write_bytes(b"picture")
        files.sync(guid)
    assert len(set(paths)) == 6
    for _ in range(2):
        files.remove(gone)
    assert [path.is_file() for path in paths] == [False] * 3 + [True] * 3


def test_orders_with_files_are_listed_with_whether_they_are_old(files: OrderFiles) -> None:
    assert files.list_guids() == {}
    young, old = (GenerationGuid(new_guid()) for _ in range(2))
    for guid in (young, old):
        files.prepare(guid)
    long_ago = time.time() - STAGED_AGE_SECONDS - 1
    os.utime(files.folder / old, (long_ago, long_ago))
    assert files.list_guids() == {young: False, old: True}


def test_unusable_folder_raises_storage_exception(files: OrderFiles) -> None:
    files.folder.parent.mkdir()
    files.folder.write_text("in the way")
    guid = GenerationGuid(new_guid())
    for method in (files.prepare, files.sync):
        with pytest.raises(ImageStorageException):
            method(guid)
    with pytest.raises(ImageStorageException):
        files.list_guids()
    files.remove(guid)
