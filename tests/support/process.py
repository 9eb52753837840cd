"""PixyProxy as its operators see it: the ``pixyproxy`` program in a separate process."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from pydantic import SecretStr

from pixyproxy.core.models.api_key import NewApiKey
from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.tenant import NewTenant
from pixyproxy.core.settings import Settings
from pixyproxy.service.composition import open_services
from pixyproxy.service.private.identity.tenants import command_grantor
from tests.support.server import ACTOR, EVERY_IMAGE_SCOPE

PROGRAM = str(Path(sys.executable).parent / "pixyproxy")
LISTENING = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")
OURS = ("PIXYPROXY_", "OPENAI_")


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment of a process with exactly these settings, without any of this process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is not None:
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            environment[name.upper() if name.startswith("openai") else f"PIXYPROXY_{name.upper()}"] = text
    return environment


def new_api_key(settings: Settings, *, scopes: frozenset[Scope] = EVERY_IMAGE_SCOPE, tenant: str = "test") -> str:
    """Return the API key of a new tenant, created through the services. Create the database if it is missing."""

    async def create() -> str:
        async with open_services(settings) as services:
            owner = await services.tenants.create_tenant(NewTenant(name=tenant), actor=ACTOR)
            issued = await services.api_keys.issue_key(
                NewApiKey(name="test", scopes=scopes), grantor=command_grantor(owner, ACTOR)
            )
            return issued.api_key.get_secret_value()

    return asyncio.run(create())


@dataclass(frozen=True)
class ServerProcess:
    """A server that listens in a separate process and logs to a file."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def client(self, api_key: str | None = None, *, timeout: float = 60) -> httpx2.Client:
        """Return an HTTP client, anonymous without a key."""
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=timeout)

    def terminate(self) -> int:
        """Stop the server with SIGTERM, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running_server(  # noqa: PLR0913  (how a process may be started, by keyword)
    settings: Settings,
    folder: Path,
    *,
    workers: int = 1,
    environment: dict[str, str] | None = None,
    umask: int = -1,
    within: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[ServerProcess]:
    """Yield a ``pixyproxy serve`` on a free port, and stop it afterwards if it still runs.

    ``within`` is a command that runs the server's command; ``options`` are further options of ``serve``.
    """
    log = folder / f"server-{time.monotonic_ns()}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*within, PROGRAM, "serve", "--port", "0", "--workers", str(workers), *options],
            cwd=folder,
            env=environment_of(settings) | (environment or {}),
            stdout=stream,
            stderr=stream,
            umask=umask,
        )
    try:
        yield ServerProcess(url=_url_in(log, process), log=log, process=process)
    finally:
        # SIGTERM first: the workers of a killed supervisor would stay.
        process.terminate()
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()


START_SECONDS = 200
"""The time a server may take to listen: usually a second, a minute on a machine with twenty times its load."""


def wait_until(condition: Callable[[], bool], *, seconds: float = 60, what: str = "it") -> None:
    """Return once the condition holds. A network error counts as false."""
    deadline = time.monotonic() + seconds
    while not _holds(condition):
        if time.monotonic() > deadline:
            message = f"{what} did not happen in {seconds} s"
            raise TimeoutError(message)
        time.sleep(0.05)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except httpx2.HTTPError:
        return False


def _url_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the address in the server's log, once the server responds there."""

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        found = LISTENING.search(log.read_text())
        return found is not None and httpx2.get(f"{found[1]}/healthz").status_code == httpx2.codes.OK

    wait_until(listens, seconds=START_SECONDS, what="the start of the server")
    found = LISTENING.search(log.read_text())
    assert found is not None
    return found[1]
