"""Debian packages that tests need: found, or installed where that is allowed."""

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
    """What ``find`` finds, at once or after the package was installed; None where neither works."""
    found = find()
    if found is not None:
        return found
    # The processes that tests run in install one after the other; apt refuses the second.
    with Path(tempfile.gettempdir(), f"pixyproxy-tests-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = find()
        if found is None:
            _install(package)
            found = find()
    return found


def _install(package: str) -> None:
    """Try to install the package; without apt or the right to use it, do nothing."""
    apt = shutil.which("apt-get")
    if apt is None:
        return
    command = [] if os.geteuid() == 0 else ["sudo", "-n"]
    # Packages of servers start them on their usual ports, unless systemctl believes that nothing runs.
    command += ["env", "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_OFFLINE=1", apt]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", package]):
            subprocess.run([*command, *arguments], check=True, capture_output=True)
