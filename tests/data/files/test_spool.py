"""The spool: entries survive their process, and are not taken from a running one."""

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pixyproxy.core.exceptions import ImageStorageException
from pixyproxy.core.models.generation import GenerationGuid, ProcessGuid
from pixyproxy.core.models.order import ReceivedPicture, UpstreamAnswer, UpstreamUsage
from pixyproxy.data.files.spool import Spool, SpoolEntry, SpoolFile, SpoolFolder
from tests.faults.recorded_disk import recorded_disk
from tests.support.builders import new_guid

pytestmark = pytest.mark.anyio
LIVING = """
import sys
from pathlib import Path
from pixyproxy.data.files.spool import Spool
spool = Spool(Path(sys.argv[1]))
print(spool.own.owner, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def _entry(guid: GenerationGuid | None = None) -> SpoolEntry:
    picture = ReceivedPicture(media_type="image/png", byte_size=7, sha256="a" * 64, width=3, height=2)
    return SpoolEntry(
        generation=guid or GenerationGuid(new_guid()),
        upstream="a",
        pictures=(picture, picture),
        answer=UpstreamAnswer(facts={"é": [None]}, usage=UpstreamUsage(output_image_tokens=9), revised_prompts=(None,)),
    )


async def _dead(spool: Spool) -> list[SpoolFolder]:
    async with spool.dead_folders() as folders:
        return folders


def _left_by_a_dead_process(spool: Spool) -> SpoolFolder:
    """Create what a killed process leaves: its folder, and a lock file without a lock."""
    owner = ProcessGuid(new_guid())
    folder = SpoolFolder(spool.folder / owner)
    folder.path.mkdir(parents=True)
    (spool.folder / f"{owner}.lock").touch()
    return folder


@contextmanager
def _living_process(spool: Spool) -> Iterator[tuple[subprocess.Popen[str], SpoolFolder]]:
    """Start another process that has a folder in the spool."""
    command = [sys.executable, "-c", LIVING, str(spool.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, SpoolFolder(spool.folder / process.stdout.readline().strip())
        finally:
            process.kill()


def test_file_has_size_and_digest_of_what_was_written(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "a")
    for piece in (b"pic", b"", b"ture"):
        file.write(piece)
    file.finish()
    assert (tmp_path / "a").read_bytes() == b"picture"
    assert file.byte_size == 7
    assert file.sha256 == hashlib.sha256(b"picture").hexdigest()


def test_file_that_cannot_be_written_raises_storage_exception(tmp_path: Path) -> None:
    with pytest.raises(ImageStorageException):
        SpoolFile(tmp_path / "absent" / "a").write(b"picture")


def test_existing_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"what another attempt left")
    file = SpoolFile(tmp_path / "a")
    file.write(b"new")
    file.close()
    assert (tmp_path / "a").read_bytes() == b"new"


def test_process_has_one_folder_created_when_first_needed(spool: Spool) -> None:
    assert not spool.is_held
    assert not spool.folder.exists()
    assert spool.own == spool.own == SpoolFolder(spool.folder / spool.owner)
    assert spool.own.path.is_dir()
    assert spool.own.owner == spool.owner
    assert spool.is_held


def test_spool_that_cannot_be_created_raises_until_it_can(spool: Spool) -> None:
    spool.folder.write_text("in the way")
    with pytest.raises(ImageStorageException):
        _ = spool.own
    spool.folder.unlink()
    assert spool.own.path.is_dir()


async def test_entry_round_trips(spool: Spool) -> None:
    entries = [_entry() for _ in range(3)]
    for entry in entries:
        spool.own.commit(entry)
        spool.own.commit(entry)
    found, _ = await spool.own.entries()
    assert sorted(found, key=lambda entry: entry.generation) == sorted(entries, key=lambda entry: entry.generation)


async def test_entry_appears_only_when_it_is_durable(spool: Spool) -> None:
    """An interrupted commit leaves no entry, and a completed one only the entry."""
    entry = _entry()
    staged = spool.own.path / f"{entry.generation}.staged"
    staged.write_bytes(b"a half")
    assert await spool.own.entries() == ([], True)
    spool.own.commit(entry)
    assert [path.name for path in spool.own.path.iterdir()] == [f"{entry.generation}.json"]


async def test_entry_that_cannot_be_written_raises_storage_exception(spool: Spool) -> None:
    entry = _entry()
    (spool.own.path / f"{entry.generation}.json").mkdir()
    with pytest.raises(ImageStorageException):
        spool.own.commit(entry)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff", b"null"])
async def test_unreadable_entry_is_kept_and_the_others_are_found(spool: Spool, content: bytes) -> None:
    entry, damaged = _entry(), spool.own.path / f"{new_guid()}.json"
    damaged.write_bytes(content)
    spool.own.commit(entry)
    assert await spool.own.entries() == ([entry], False)
    assert damaged.read_bytes() == content


async def test_unreadable_entry_is_logged_again_only_when_it_changes(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    path = _left_by_a_dead_process(spool).path / f"{new_guid()}.json"
    whole = _entry().model_dump_json().encode()
    for number, content, told in ((1, b"", 1), (2, b"{", 2), (3, b"[", 3), (4, whole, 3), (5, b"[", 4)):
        path.write_bytes(content)
        os.utime(path, (number, number))
        for _ in range(3):
            async with spool.dead_folders() as (folder,):
                assert (await folder.entries())[1] is (content == whole)
        assert caplog.text.count(f"cannot read the spool entry {path.name}") == told
    os.utime(path, (6, 6))
    async with spool.dead_folders() as (folder,):
        await folder.entries()
    assert len(caplog.records) == 5


async def test_remove_deletes_all_files_of_that_generation_only(spool: Spool) -> None:
    gone, kept = _entry(), _entry()
    for entry in (gone, kept):
        spool.own.commit(entry)
        for index in range(2):
            spool.own.picture(entry.generation, index).write_bytes(b"picture")
    for _ in range(2):
        await spool.own.remove(gone.generation)
    left = {path.name.split(".")[0] for path in spool.own.path.iterdir()}
    assert left == {kept.generation}
    assert await spool.own.entries() == ([kept], True)


async def test_remove_deletes_the_entry_before_the_other_files(spool: Spool, tmp_path: Path) -> None:
    """Some files are older than the entry and some newer, since a folder may list them in any order."""
    with recorded_disk(tmp_path) as disk:
        for _ in range(10):
            entry = _entry()
            paths = [spool.own.picture(entry.generation, index) for index in range(3)]
            paths[0].write_bytes(b"picture")
            spool.own.commit(entry)
            for path in paths[1:]:
                path.write_bytes(b"picture")
            await spool.own.remove(entry.generation)
            for path in paths:
                disk.assert_order(("unlink", spool.own.path / f"{entry.generation}.json"), ("unlink", path))


async def test_own_folder_is_never_dead(spool: Spool) -> None:
    assert spool.own.path.is_dir()
    assert await _dead(spool) == []


async def test_unused_spool_has_no_dead_folders(spool: Spool) -> None:
    assert await _dead(spool) == []


async def test_folder_is_dead_as_soon_as_its_process_is_killed(spool: Spool) -> None:
    with _living_process(spool) as (process, folder):
        assert folder.path.is_dir()
        for _ in range(3):
            assert await _dead(spool) == []
        process.kill()
        process.wait()
        assert await _dead(spool) == [folder]


async def test_dead_folder_is_held_by_one_process_at_a_time(spool: Spool) -> None:
    folder, other = _left_by_a_dead_process(spool), Spool(spool.folder)
    async with spool.dead_folders() as first, other.dead_folders() as second:
        assert (first, second) == ([folder], [])
    assert await _dead(other) == [folder]


async def test_dead_folder_is_released_when_an_exception_is_raised(spool: Spool) -> None:
    folder = _left_by_a_dead_process(spool)
    with pytest.raises(ZeroDivisionError):
        async with spool.dead_folders():
            raise ZeroDivisionError
    assert await _dead(spool) == [folder]


def _renew(path: Path) -> None:
    """Replace a file with a new one of the same name."""
    path.unlink()
    path.touch()


@pytest.mark.parametrize("remove", [Path.unlink, _renew])
async def test_lock_is_taken_again_if_its_file_was_removed_before(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, remove: Callable[[Path], None]
) -> None:
    """Another process removes the file as that of a dead process, after it was opened and before it is locked."""
    flock = fcntl.flock

    def remove_and_lock(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        (lock,) = spool.folder.glob("*.lock")
        remove(lock)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    assert spool.own.path.is_dir()
    assert fcntl.flock is flock
    assert await Spool(spool.folder).is_alive(spool.owner)
    assert await _dead(Spool(spool.folder)) == []


async def test_remove_folder_deletes_everything_in_it(spool: Spool) -> None:
    folder = _left_by_a_dead_process(spool)
    (folder.path / "stray").write_bytes(b"a part")
    for _ in range(2):
        await spool.remove_folder(folder)
    assert list(spool.folder.iterdir()) == []
    assert await _dead(spool) == []


async def test_close_removes_an_empty_folder(spool: Spool) -> None:
    assert spool.own.path.is_dir()
    await spool.close()
    assert list(spool.folder.iterdir()) == []


async def test_close_leaves_entries_to_other_processes(spool: Spool) -> None:
    spool.own.commit(entry := _entry())
    await spool.close()
    (folder,) = await _dead(Spool(spool.folder))
    assert await folder.entries() == ([entry], True)


async def test_unused_spool_can_be_closed(spool: Spool) -> None:
    await spool.close()
    assert not spool.folder.exists()


async def test_facts_nested_too_deep_are_dropped(spool: Spool) -> None:
    nested: dict[str, Any] = {}
    for _ in range(199):
        nested = {"deeper": nested}
    entry = _entry().model_copy(
        update={"answer": UpstreamAnswer(facts=nested, usage=UpstreamUsage(input_text_tokens=7))}
    )
    spool.own.commit(entry)
    (found,), all_readable = await spool.own.entries()
    assert (found.answer.facts, found.answer.usage, all_readable) == ({}, entry.answer.usage, True)
