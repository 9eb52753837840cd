"""Files that are whole and durable, or not there, whatever goes wrong while they are written."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pixyproxy.core.exceptions import ImageStorageException, PictureMissingException, StorageFullException
from pixyproxy.data.files import (
    STAGED_AGE_SECONDS,
    STAGING,
    as_storage_exception,
    move_into,
    remove_durably,
    remove_staged,
    write_durably,
)

CONTENT = bytes(range(256)) * 400
FAIL_EACH_OPERATION = """
import errno, sys
from pathlib import Path
from pixyproxy.core.exceptions import ImageStorageException
from pixyproxy.data.files import write_durably

OPERATIONS = {"open", "os.mkdir", "os.rename"}
left = None

def fail_when_due(event, arguments):
    global left
    if left is not None and event in OPERATIONS:
        left -= 1
        if left == 0:
            raise OSError(errno.EIO, "injected")

sys.addaudithook(fail_when_due)
base, content = Path(sys.argv[1]), bytes(range(256)) * 400
for number in range(1, 100):
    root = base / str(number)
    path = root / "ab" / "cd" / "picture.png"
    left = number
    try:
        write_durably(path, [content], root=root)
        outcome = "written"
    except ImageStorageException:
        outcome = "failed"
    injected, left = left <= 0, None
    files = [file for file in root.rglob("*") if file.is_file()] if root.exists() else []
    whole = files == [path] and path.read_bytes() == content
    print(number, outcome, "whole" if whole else "empty" if not files else files)
    if not injected:
        break
"""


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_a_file_is_written_with_the_folders_above_it(tmp_path: Path) -> None:
    path = tmp_path / "root" / "ab" / "cd" / "picture.png"
    write_durably(path, [CONTENT], root=tmp_path / "root")
    assert path.read_bytes() == CONTENT
    assert _files(tmp_path) == [path]


def test_an_empty_file_is_written(tmp_path: Path) -> None:
    write_durably(tmp_path / "empty", [b""], root=tmp_path)
    assert (tmp_path / "empty").read_bytes() == b""


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    write_durably(path, [b"old and longer"], root=tmp_path)
    write_durably(path, [b"new"], root=tmp_path)
    assert path.read_bytes() == b"new"


def test_each_operation_that_fails_leaves_the_whole_file_or_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAIL_EACH_OPERATION, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *failures, last = done.stdout.splitlines()
    assert len(failures) > 8
    assert last.endswith("written whole")
    # Only when the name itself could not be made durable is the file there, and whole, in spite of the error.
    assert {line.partition(" ")[2] for line in failures[:-1]} == {"failed empty"}
    assert failures[-1].partition(" ")[2] in {"failed empty", "failed whole"}


def test_a_write_that_stops_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from pixyproxy.data.files import write_durably\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_durably(Path(sys.argv[1]) / 'picture.png', [bytes(5000)], root=Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith(f"{ImageStorageException.__module__}.ImageStorageException")
    assert _files(tmp_path) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_full_disk_is_storage_full_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pixyproxy.data.files import write_durably\n"
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
        pytest.skip("only root may mount a small file system")
    assert done.stdout.splitlines() == [StorageFullException.__name__, "[]"], done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("obstacle", ["root", "root/.incoming", "root/ab"])
def test_a_file_where_a_folder_should_be_is_a_storage_exception(tmp_path: Path, obstacle: str) -> None:
    (tmp_path / obstacle).parent.mkdir(exist_ok=True)
    (tmp_path / obstacle).write_text("in the way")
    with pytest.raises(ImageStorageException):
        write_durably(tmp_path / "root" / "ab" / "picture.png", [CONTENT], root=tmp_path / "root")
    assert _files(tmp_path) == [tmp_path / obstacle]


def test_a_folder_where_the_file_should_be_is_a_storage_exception(tmp_path: Path) -> None:
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(ImageStorageException):
        write_durably(tmp_path / "picture.png", [CONTENT], root=tmp_path)
    assert _files(tmp_path) == []


@pytest.mark.parametrize(("number", "kind"), [(28, StorageFullException), (122, StorageFullException), (5, None)])
def test_no_room_is_told_from_other_errors(number: int, kind: type[ImageStorageException] | None) -> None:
    assert type(as_storage_exception(OSError(number, "x"))) is (kind or ImageStorageException)


def test_a_file_is_removed_and_its_absence_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(CONTENT)
    for _ in range(2):
        remove_durably(path)
        assert not path.exists()
    remove_durably(tmp_path / "absent" / "picture.png")


def test_what_cannot_be_removed_is_a_storage_exception(tmp_path: Path) -> None:
    with pytest.raises(ImageStorageException):
        remove_durably(tmp_path)


def test_only_staged_files_older_than_an_hour_are_swept(tmp_path: Path) -> None:
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


def test_sweeping_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_staged(tmp_path / "absent")


def test_a_file_that_moves_is_at_one_place_and_moves_again(tmp_path: Path) -> None:
    source, path = tmp_path / "received", tmp_path / "root" / "ab" / "picture.png"
    source.write_bytes(CONTENT)
    for _ in range(2):
        move_into(path, source, root=tmp_path / "root")
    assert path.read_bytes() == CONTENT
    assert _files(tmp_path) == [path]


def test_a_file_that_is_nowhere_does_not_move(tmp_path: Path) -> None:
    with pytest.raises(PictureMissingException):
        move_into(tmp_path / "root" / "picture.png", tmp_path / "received", root=tmp_path / "root")


def test_a_file_moves_from_one_file_system_to_another(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source, path = Path(folder) / "received", tmp_path / "root" / "ab" / "picture.png"
        source.write_bytes(CONTENT)
        if source.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("everything here is on one file system")
        for _ in range(2):
            move_into(path, source, root=tmp_path / "root")
        assert path.read_bytes() == CONTENT
        assert _files(tmp_path) == [path]
        assert not source.exists()


def test_a_file_does_not_move_to_where_no_folder_can_be(tmp_path: Path) -> None:
    source, root = tmp_path / "received", tmp_path / "root"
    source.write_bytes(CONTENT)
    root.write_text("in the way")
    with pytest.raises(ImageStorageException):
        move_into(root / "ab" / "picture.png", source, root=root)
    assert source.read_bytes() == CONTENT
