"""Debian packages that tests need: found, or installed if allowed."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")


def find_or_install(package: str, find: Callable[[], Found | None]) -> Found | None:
    """Return the result of ``find``, installing the package if needed; None if that fails."""
    found = find()
    if found is not None:
        return found
    # Test processes install one after the other: apt rejects a second concurrent run.
    with Path(tempfile.gettempdir(), f"pixyproxy-tests-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = find()
        if found is None:
            _install(package)
            found = find()
    return found


def _install(package: str) -> None:
    """Try to install the package. Do nothing without apt or the permission to use it."""
    apt = shutil.which("apt-get")
    if apt is None:
        return
    command = [] if os.geteuid() == 0 else ["sudo", "-n"]
    # Packages of servers start them on their usual ports, unless systemctl reports that nothing runs.
    command += ["env", "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_OFFLINE=1", apt]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", package]):
            subprocess.run([*command, *arguments], check=True, capture_output=True)
