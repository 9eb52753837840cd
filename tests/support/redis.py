"""A private, real Redis server that tests may kill, freeze and restart."""

import shutil
import subprocess
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.support.debian import find_or_install
from tests.support.private_server import PrivateServer, log_of

PASSWORD = "open sesame/&"
"""Contains characters that a URL must escape. An unescaped one, taken for the end of the password, would expose it
in a log."""

_DEBIAN_PACKAGE = "redis-tools"
_PROGRAMS = ("redis-server", "redis-check-rdb")
"""Both are the same program under different names. Debian's package of the first starts a server on the usual port
when it is installed; the package of the second does not."""
_START_SECONDS = 60.0


class RedisServerError(Exception):
    """Redis is missing or does not start. The message says how to fix it."""


def ensure_redis() -> str:
    """Return the path of the server's program, installing Debian's package if needed and allowed.

    Raise ``RedisServerError`` with install instructions if it cannot be found or installed.
    """
    program = find_or_install(_DEBIAN_PACKAGE, _find_redis)
    if program is None:
        message = f"No Redis server found: install {_DEBIAN_PACKAGE} (Debian, Ubuntu) or redis."
        raise RedisServerError(message)
    return program


class RedisServer(PrivateServer):
    """One server process that requires a password and persists nothing."""

    error = RedisServerError

    @property
    def url(self) -> str:
        """The URL with the password."""
        return f"redis://:open%20sesame%2F%26@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start empty on the same port as before, and wait until it responds."""
        self.kill()
        folder = self._folder or self._make_folder()
        process = _launch(ensure_redis(), folder, port=self.port)
        self._run(process, folder, answers=self._answers, seconds=_START_SECONDS)

    def empty(self) -> None:
        """Delete all keys."""
        with self.client() as client:
            client.flushall()

    def client(self) -> Redis:
        """Return a new client."""
        return Redis.from_url(self.url, socket_timeout=30, socket_connect_timeout=30)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False


def _find_redis() -> str | None:
    return next(filter(None, map(shutil.which, _PROGRAMS)), None)


def _launch(program: str, folder: Path, *, port: int) -> subprocess.Popen[bytes]:
    arguments = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--requirepass", PASSWORD]
    arguments += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    with log_of(folder).open("ab") as log:
        return subprocess.Popen(
            arguments,
            executable=program,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
