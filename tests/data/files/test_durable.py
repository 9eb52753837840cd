"""Durable writes: files are complete or absent, whatever fails."""

import errno
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixyproxy.core.exceptions import ImageStorageException, PictureMissingException, StorageFullException
from pixyproxy.data.files.durable import (
    STAGED_AGE_SECONDS,
    STAGING,
    as_storage_exception,
    move_into,
    remove_durably,
    remove_staged,
    write_durably,
)
from tests.faults.failing_disk import failing_disk
from tests.faults.recorded_disk import recorded_disk

CONTENT = bytes(range(256)) * 400


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_file_is_written_with_its_parent_folders(tmp_path: Path) -> None:
    path = tmp_path / "root" / "ab" / "cd" / "picture.png"
    write_durably(path, [CONTENT], root=tmp_path / "root")
    assert path.read_bytes() == CONTENT
    assert _files(tmp_path) == [path]


def test_empty_file_is_written(tmp_path: Path) -> None:
    write_durably(tmp_path / "empty", [b""], root=tmp_path)
    assert (tmp_path / "empty").read_bytes() == b""


def test_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    write_durably(path, [b"old and longer"], root=tmp_path)
    write_durably(path, [b"new"], root=tmp_path)
    assert path.read_bytes() == b"new"


def _outcome_of_writing(root: Path) -> tuple[type[ImageStorageException] | None, list[bytes]]:
    """Write a file below ``root``; return the exception raised and the contents of the files there."""
    raised = None
    try:
        write_durably(root / "ab" / "picture.png", [CONTENT], root=root)
    except ImageStorageException as error:
        raised = type(error)
    return raised, [path.read_bytes() for path in _files(root)]


@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, ImageStorageException), (errno.ENOSPC, StorageFullException)])
def test_failure_of_any_operation_leaves_the_complete_file_or_none(
    tmp_path: Path, code: int, kind: type[ImageStorageException]
) -> None:
    outcomes = []
    with failing_disk(tmp_path) as disk:
        for number in itertools.count(1):
            disk.fail(number, code, lasts=False)
            outcomes.append(_outcome_of_writing(tmp_path / str(number)))
            if not disk.has_failed:
                break
    *failures, unsynced_name, success = outcomes
    assert len(failures) > 8
    assert failures == [(kind, [])] * len(failures)
    # The file exists, complete, in spite of the error only if syncing its name failed.
    assert unsynced_name == (kind, [CONTENT])
    assert success == (None, [CONTENT])


def test_full_disk_raises_storage_full_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pixyproxy.data.files.durable import write_durably\n"
        "root = Path(sys.argv[1])\n"
        "try:\n"
        "    write_durably(root / 'a' / 'big.png', [bytes(500_000)], root=root)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
        "print([path.name for path in root.rglob('*') if path.is_file()])\n"
        "write_durably(root / 'a' / 'small.png', [b'small'], root=root)\n"
    )
    mounted = 'mount -t tmpfs -o size=128k tmpfs "$2" && exec "$0" -c "$1" "$2"'
    command = ["unshare", "--mount", "sh", "-c", mounted, sys.executable, script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "permi" in done.stderr.lower():
        pytest.skip("requires root to mount a small file system")
    assert done.stdout.splitlines() == [StorageFullException.__name__, "[]"], done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("obstacle", ["root", "root/.incoming", "root/ab"])
def test_file_in_place_of_a_folder_raises_storage_exception(tmp_path: Path, obstacle: str) -> None:
    (tmp_path / obstacle).parent.mkdir(exist_ok=True)
    (tmp_path / obstacle).write_text("in the way")
    with pytest.raises(ImageStorageException):
        write_durably(tmp_path / "root" / "ab" / "picture.png", [CONTENT], root=tmp_path / "root")
    assert _files(tmp_path) == [tmp_path / obstacle]


def test_folder_in_place_of_the_file_raises_storage_exception(tmp_path: Path) -> None:
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(ImageStorageException):
        write_durably(tmp_path / "picture.png", [CONTENT], root=tmp_path)
    assert _files(tmp_path) == []


@pytest.mark.parametrize(("number", "kind"), [(28, StorageFullException), (122, StorageFullException), (5, None)])
def test_full_disk_errors_are_distinguished_from_others(number: int, kind: type[ImageStorageException] | None) -> None:
    assert type(as_storage_exception(OSError(number, "x"))) is (kind or ImageStorageException)


def test_remove_is_idempotent(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(CONTENT)
    for _ in range(2):
        remove_durably(path)
        assert not path.exists()
    remove_durably(tmp_path / "absent" / "picture.png")


def test_path_that_cannot_be_removed_raises_storage_exception(tmp_path: Path) -> None:
    with pytest.raises(ImageStorageException):
        remove_durably(tmp_path)


def test_sweep_removes_only_staged_files_older_than_an_hour(tmp_path: Path) -> None:
    (tmp_path / STAGING).mkdir()
    old, young = tmp_path / STAGING / "old", tmp_path / STAGING / "young"
    kept = tmp_path / "picture.png"
    for path, age in (
        (old, STAGED_AGE_SECONDS + 60),
        (young, STAGED_AGE_SECONDS - 60),
        (kept, 10 * STAGED_AGE_SECONDS),
    ):
        path.write_bytes(CONTENT)
        os.utime(path, (time.time() - age, time.time() - age))
    remove_staged(tmp_path)
    assert sorted(_files(tmp_path)) == sorted([young, kept])


def test_sweep_of_an_absent_folder_is_no_error(tmp_path: Path) -> None:
    remove_staged(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_move_is_idempotent(tmp_path: Path) -> None:
    source, path = tmp_path / "received", tmp_path / "root" / "ab" / "picture.png"
    source.write_bytes(CONTENT)
    for _ in range(2):
        move_into(path, source, root=tmp_path / "root")
    assert path.read_bytes() == CONTENT
    assert _files(tmp_path) == [path]


def test_moving_an_absent_file_raises_picture_missing(tmp_path: Path) -> None:
    with pytest.raises(PictureMissingException):
        move_into(tmp_path / "root" / "picture.png", tmp_path / "received", root=tmp_path / "root")


def test_move_across_file_systems_is_durable_and_idempotent(tmp_path: Path) -> None:
    source, root = tmp_path / "received", tmp_path / "root"
    path = root / "ab" / "picture.png"
    source.write_bytes(CONTENT)
    with recorded_disk(tmp_path) as disk:
        disk.mounted = (root,)
        for _ in range(2):
            move_into(path, source, root=root)
    assert path.read_bytes() == CONTENT
    assert _files(tmp_path) == [path]
    copy = disk.source_of(path)
    disk.assert_order(("write", copy), ("fsync", copy), ("replace", path), ("fsync", path.parent), ("unlink", source))


def test_move_to_an_impossible_folder_fails_and_keeps_the_file(tmp_path: Path) -> None:
    source, root = tmp_path / "received", tmp_path / "root"
    source.write_bytes(CONTENT)
    root.write_text("in the way")
    with pytest.raises(ImageStorageException):
        move_into(root / "ab" / "picture.png", source, root=root)
    assert source.read_bytes() == CONTENT
