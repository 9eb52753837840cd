"""The location of temporary files in tests."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.support.memory import temporary_files_in_memory


def test_tmpdir_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    with temporary_files_in_memory():
        assert os.environ["TMPDIR"] == str(tmp_path)


def test_files_in_memory_are_removed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = Path(tempfile.gettempdir())

    with temporary_files_in_memory():
        inside = Path(tempfile.gettempdir())
        assert inside.is_dir()
        assert tempfile.mkdtemp().startswith(str(inside))

    # Without a file system in memory, the usual folder is used, and stays.
    assert inside.exists() is (inside == before)
    assert Path(tempfile.gettempdir()) == before
