"""Where tests keep their temporary files."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.support.memory import temporary_files_in_memory


def test_who_says_where_temporary_files_go_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    with temporary_files_in_memory():
        assert os.environ["TMPDIR"] == str(tmp_path)


def test_what_was_kept_in_memory_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
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
