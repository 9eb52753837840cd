"""One server process that tests may kill, freeze and start again."""

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.support.mariadb.databases import PASSWORD, URL_VARIABLE, USER, MySqlDatabases, takes_logins
from tests.support.mariadb.program import (
    LOG_TAIL,
    MariaDbError,
    ensure_mariadb,
    launch,
    log_of,
    make_system_tables,
)

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


@contextlib.contextmanager
def mysql_databases() -> Iterator[MySqlDatabases]:
    """Yield databases on the server of PIXYPROXY_TEST_MYSQL_URL, else on our own."""
    url = os.environ.get(URL_VARIABLE)
    if url:
        yield MySqlDatabases(url)
    else:
        with MariaDbServer() as server:
            yield server.databases


class MariaDbServer:
    """One server process over one temporary data folder and one port.

    The process dies with this one, however this one ends: by `close`, by an exit
    hook, or, after SIGKILL, by a watcher that holds a pipe to us.
    """

    def __init__(self) -> None:
        """Choose a port; nothing runs before `start` or `with`."""
        self.port = _free_port()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

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
    def databases(self) -> MySqlDatabases:
        """The databases of the ordinary user, who may do anything within them."""
        return MySqlDatabases(f"mysql://{USER}:{PASSWORD}@127.0.0.1:{self.port}")

    @property
    def admin_url(self) -> str:
        """The URL of the all-powerful user, for SET GLOBAL, KILL and the like."""
        return f"mysql://root@127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the running process."""
        return self._require_process().pid

    @property
    def running(self) -> bool:
        """Whether the process exists, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, on the same port and data as before, and wait until it takes logins.

        Raises `MariaDbError` with the end of the server's log where it does not.
        """
        if self.running:
            message = "the server is already running"
            raise MariaDbError(message)
        self.kill()  # Reaps one that ended by itself, and its watcher.
        program = ensure_mariadb()
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="pixyproxy-mariadb-"))
            atexit.register(self.close)
            make_system_tables(program, self._folder)
        self._process = launch(program, self._folder, port=self.port)
        self._watcher = _watch(self._process, self._folder)
        self._wait_until_ready(self._process, self._folder)

    def stop(self) -> None:
        """Shut down in order (SIGTERM), frozen or not, and wait for the end."""
        if self._process:
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            finally:
                self.kill()

    def kill(self) -> None:
        """End at once (SIGKILL), frozen or not; committed rows outlive it."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._watcher:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None

    def freeze(self) -> None:
        """Halt (SIGSTOP): connections are still taken in, and nothing answers."""
        process = self._require_process()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Go on (SIGCONT) as if nothing had been."""
        self._require_process().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its data. A closed server may start anew."""
        self.kill()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        atexit.unregister(self.close)

    def create_database(self) -> str:
        """Create an empty database with a fresh name, and return its URL."""
        return self.databases.create_database()

    def drop_database(self, url: str) -> None:
        """Drop a database that `create_database` made."""
        self.databases.drop_database(url)

    def _require_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            message = "the server is not running"
            raise MariaDbError(message)
        return self._process

    def _wait_until_ready(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not takes_logins(self.databases.server_url):
            if process.poll() is not None or time.monotonic() > deadline:
                log = log_of(folder).read_text(errors="replace")[-LOG_TAIL:]
                message = f"MariaDB did not start (exit {process.returncode}):\n{log}"
                raise MariaDbError(message)
            time.sleep(0.01)


def _watch(process: subprocess.Popen[bytes], folder: Path) -> subprocess.Popen[bytes]:
    """Start a shell that outlives this process just long enough to clean up after it.

    Only the death of this process closes the pipe that it reads.
    """
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
