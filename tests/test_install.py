"""``scripts/install.sh`` reports what is wrong with the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOO_OLD = """#!/bin/sh
if [ "$1" = --version ]; then echo "Python 3.10.9"; fi
[ "$1" != -c ]
"""


def failed_install(folder: Path, python: str) -> str:
    """Return the standard error of a failed installation into ``folder/venv``."""
    environment = {**os.environ, "VENV": str(folder / "venv"), "PYTHON": python}
    command = [str(ROOT / "scripts" / "install.sh"), "requirements.lock"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr


def test_an_old_python_is_reported(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(TOO_OLD)
    python.chmod(0o755)
    assert "needs Python 3.11 or newer" in failed_install(tmp_path, str(python))
    assert "3.10.9" in failed_install(tmp_path, str(python))


def test_a_missing_python_is_reported(tmp_path: Path) -> None:
    assert f"Cannot run {tmp_path}/python" in failed_install(tmp_path, f"{tmp_path}/python")


def test_a_read_only_folder_is_reported_as_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    told = failed_install(tmp_path / "file", sys.executable)
    assert "Not a directory" in told
    assert "venv module" not in told


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "docs/requirements.txt"])
def test_a_lock_file_names_no_index(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    assert len(lines) > 100
    assert [line for line in lines if "://" in line] == []
