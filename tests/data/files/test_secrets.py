"""Secrets that a server makes for itself."""

import base64
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pixyproxy.data.files.secrets import load_or_create_secret


def test_a_secret_has_256_bits_that_only_its_user_reads(tmp_path: Path) -> None:
    secret = load_or_create_secret(tmp_path / "var", "secret_key").get_secret_value()
    assert len(base64.urlsafe_b64decode(secret + "=")) == 32
    assert stat.S_IMODE((tmp_path / "var" / "secret_key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700


def test_a_secret_stays_and_is_alone_in_its_folder(tmp_path: Path) -> None:
    first = load_or_create_secret(tmp_path, "secret_key")
    assert load_or_create_secret(tmp_path, "secret_key") == first
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


def test_another_name_or_folder_is_another_secret(tmp_path: Path) -> None:
    secrets = {
        load_or_create_secret(folder, name).get_secret_value()
        for folder in (tmp_path, tmp_path / "other")
        for name in ("a", "b")
    }
    assert len(secrets) == 4


def test_sixteen_threads_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    ready = threading.Barrier(16)

    def load(_: int) -> str:
        ready.wait(20)
        return load_or_create_secret(tmp_path, "secret_key").get_secret_value()

    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(load, range(16)))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


def test_a_folder_that_cannot_be_used_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        load_or_create_secret(tmp_path / "file", "secret_key")
