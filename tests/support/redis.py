"""A private, real Redis server that tests may kill, freeze and start again."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

from tests.support.debian import find_or_install

PASSWORD = "open sesame/&"
"""With characters that a URL must escape: one of them, taken for the end of the password, would show up in a log."""

_DEBIAN_PACKAGE = "redis-tools"
_PROGRAMS = ("redis-server", "redis-check-rdb")
"""Both are one program that goes by the name it is called by. Debian's package of the first starts a server
on the usual port when it is installed; the package of the second does not."""
_START_SECONDS = 20.0


class RedisServerError(Exception):
    """Redis is missing, or does not start; the message says what to do."""


def ensure_redis() -> str:
    """The path of the server's program, from Debian's package where it is not there and may be installed.

    Raises ``RedisServerError`` that says what to install where neither works.
    """
    program = find_or_install(_DEBIAN_PACKAGE, _find_redis)
    if program is None:
        message = f"No Redis server here: install {_DEBIAN_PACKAGE} (Debian, Ubuntu) or redis."
        raise RedisServerError(message)
    return program


class RedisServer:
    """One server process on one port, which asks for a password and keeps nothing.

    The process dies with this one, however this one ends: by ``close``, by an exit hook, or, after SIGKILL, by a
    watcher that holds a pipe to us.
    """

    def __init__(self) -> None:
        self.port = _free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="pixyproxy-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def __enter__(self) -> Self:
        """Start, and close where that fails."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @property
    def url(self) -> str:
        """Where it is, with its password."""
        return f"redis://:open%20sesame%2F%26@127.0.0.1:{self.port}/0"

    @property
    def running(self) -> bool:
        """Whether the process exists, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start on the same port as before, with nothing in it, and wait until it answers."""
        self.kill()
        arguments = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", PASSWORD]
        arguments += ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                arguments,
                executable=ensure_redis(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watcher = _watch(self._process, self._folder)
        self._wait_until_ready(self._process)

    def kill(self) -> None:
        """End at once (SIGKILL), frozen or not; all that was counted is gone."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._watcher:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None

    def stop(self) -> None:
        """Shut down in order (SIGTERM), frozen or not, and wait for the end."""
        if self._process:
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(_START_SECONDS)
            finally:
                self.kill()

    def freeze(self) -> None:
        """Halt (SIGSTOP): connections are still taken in, and nothing answers."""
        process = self._require_process()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Go on (SIGCONT) as if nothing had been."""
        self._require_process().send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()

    def client(self) -> Redis:
        """A client of one's own."""
        return Redis.from_url(self.url, socket_timeout=5, socket_connect_timeout=5)

    def close(self) -> None:
        """End the server and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.close)

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def _require_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            message = "the server is not running"
            raise RedisServerError(message)
        return self._process

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                log = self._log.read_text(errors="replace")[-3_000:]
                message = f"Redis did not start (exit {process.returncode}):\n{log}"
                raise RedisServerError(message)
            time.sleep(0.01)


def _find_redis() -> str | None:
    return next(filter(None, map(shutil.which, _PROGRAMS)), None)


def _watch(process: subprocess.Popen[bytes], folder: Path) -> subprocess.Popen[bytes]:
    """Start a shell that outlives this process just long enough to clean up after it."""
    script = 'read -r _; kill -KILL "$0"; rm -rf -- "$1"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, str(process.pid), str(folder)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
