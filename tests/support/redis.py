"""A private, real Redis server that tests may kill, freeze and start again."""

import shutil
import subprocess
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.support.debian import find_or_install
from tests.support.private_server import PrivateServer, log_of

PASSWORD = "open sesame/&"
"""With characters that a URL must escape: one of them, taken for the end of the password, would show up in a log."""

_DEBIAN_PACKAGE = "redis-tools"
_PROGRAMS = ("redis-server", "redis-check-rdb")
"""Both are one program that goes by the name it is called by. Debian's package of the first starts a server
on the usual port when it is installed; the package of the second does not."""
_START_SECONDS = 60.0


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


class RedisServer(PrivateServer):
    """One server process, which asks for a password and keeps nothing."""

    error = RedisServerError

    @property
    def url(self) -> str:
        """Where it is, with its password."""
        return f"redis://:open%20sesame%2F%26@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start on the same port as before, with nothing in it, and wait until it answers."""
        self.kill()
        folder = self._folder or self._make_folder()
        process = _launch(ensure_redis(), folder, port=self.port)
        self._run(process, folder, answers=self._answers, seconds=_START_SECONDS)

    def empty(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()

    def client(self) -> Redis:
        """A client of one's own."""
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
