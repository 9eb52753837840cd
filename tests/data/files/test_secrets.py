"""Secrets that a server generates."""

import base64
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pixyproxy.data.files.secrets import load_or_create_secret


def test_secret_has_256_bits_and_is_private(tmp_path: Path) -> None:
    secret = load_or_create_secret(tmp_path / "var", "secret_key").get_secret_value()
    assert len(base64.urlsafe_b64decode(secret + "=")) == 32
    assert stat.S_IMODE((tmp_path / "var" / "secret_key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700


def test_secret_is_stable_and_the_only_file(tmp_path: Path) -> None:
    first = load_or_create_secret(tmp_path, "secret_key")
    assert load_or_create_secret(tmp_path, "secret_key") == first
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


def test_other_name_or_folder_has_another_secret(tmp_path: Path) -> None:
    secrets = {
        load_or_create_secret(folder, name).get_secret_value()
        for folder in (tmp_path, tmp_path / "other")
        for name in ("a", "b")
    }
    assert len(secrets) == 4


def test_sixteen_concurrent_threads_agree_on_one_secret(tmp_path: Path) -> None:
    ready = threading.Barrier(16)

    def load(_: int) -> str:
        ready.wait(20)
        return load_or_create_secret(tmp_path, "secret_key").get_secret_value()

    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(load, range(16)))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


def test_unusable_folder_raises_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        load_or_create_secret(tmp_path / "file", "secret_key")
