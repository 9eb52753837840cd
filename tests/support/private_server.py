"""A real server program that tests may kill, freeze and restart: the common part of MariaDB and Redis."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Self

LOG_TAIL = 3_000
"""How many characters of its log are reported when a server does not start."""
STOP_SECONDS = 60.0


class PrivateServer(ABC):
    """One server process on one port, with its own temporary folder.

    The process dies with this one in every case: by ``close``, by an exit hook, or, after SIGKILL, by a watcher that
    reads a pipe from this process.
    """

    error: type[Exception]
    """The exception for a server that does not start or does not run."""

    def __init__(self) -> None:
        """Choose a port. The server starts with ``start`` or ``with``."""
        self.port = free_port()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start, and close if that fails."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @abstractmethod
    def start(self) -> None:
        """Start on the same port as before, and wait until it responds."""

    @property
    def pid(self) -> int:
        """The id of the running process."""
        return self._require_process().pid

    @property
    def running(self) -> bool:
        """Whether the process exists, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Shut down cleanly (SIGTERM), frozen or not, and wait for the exit."""
        if self._process:
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            finally:
                self.kill()

    def kill(self) -> None:
        """Kill at once (SIGKILL), frozen or not. Data on disk survives."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._watcher:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None

    def freeze(self) -> None:
        """Freeze (SIGSTOP): connections are still accepted, but get no response."""
        process = self._require_process()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Resume (SIGCONT) from a freeze."""
        self._require_process().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop the server and remove its folder. A closed server may be started again."""
        self.kill()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        atexit.unregister(self.close)

    def _make_folder(self) -> Path:
        self._folder = Path(tempfile.mkdtemp(prefix="pixyproxy-server-"))
        atexit.register(self.close)
        return self._folder

    def _run(
        self, process: subprocess.Popen[bytes], folder: Path, *, answers: Callable[[], bool], seconds: float
    ) -> None:
        """Adopt a process that was just started, and wait until it responds."""
        self._process = process
        self._watcher = _watch(process, folder)
        deadline = time.monotonic() + seconds
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                log = log_of(folder).read_text(errors="replace")[-LOG_TAIL:]
                message = f"The server did not start (exit {process.returncode}):\n{log}"
                raise self.error(message)
            time.sleep(0.01)

    def _require_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            message = "the server is not running"
            raise self.error(message)
        return self._process


def log_of(folder: Path) -> Path:
    """Return the log of the server with this folder."""
    return folder / "server.log"


def _watch(process: subprocess.Popen[bytes], folder: Path) -> subprocess.Popen[bytes]:
    """Start a shell that outlives this process only to clean up after it.

    It reads a pipe that closes only when this process dies.
    """
    script = 'read -r _; kill -KILL "$0"; rm -rf -- "$1"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, str(process.pid), str(folder)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
