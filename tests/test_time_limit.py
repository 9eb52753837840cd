"""A hanging test is stopped, and the tests after it run."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HANGING = """
import asyncio, pytest, time

@pytest.mark.timeout(0.1)
def test_1_waits():
    asyncio.run(asyncio.Event().wait())

@pytest.mark.timeout(0.1)
def test_2_swallows():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def test_3_passes():
    assert True
"""
PLUGINS = ("-p", "pytest_timeout", "-p", "xdist", "-p", "no:cacheprovider")


def test_a_hanging_test_is_stopped_and_later_tests_run(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    configuration = ("-c", str(ROOT / "pyproject.toml"), "-n", "1", "-o", "faulthandler_timeout=5")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *PLUGINS, *configuration, str(tmp_path)],
        cwd=tmp_path, env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    *_, first, second, last = done.stdout.splitlines()
    assert "test_1_waits - Failed: Timeout (>0.1s)" in first
    assert "test_2_swallows - worker 'gw0' crashed" in second
    assert last.startswith("2 failed, 1 passed in")
