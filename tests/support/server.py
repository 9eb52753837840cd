"""PixyProxy as its clients see it: the real application behind a real HTTP server, in a thread of the test."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import httpx2
import uvicorn

from pixyproxy.core.models.api_key import NewApiKey
from pixyproxy.core.models.principal import Actor, Scope, SubjectType
from pixyproxy.core.models.tenant import NewTenant, Visibility
from pixyproxy.core.settings import Settings
from pixyproxy.service.composition import Services
from pixyproxy.service.private.identity.tenants import command_grantor
from pixyproxy.web.server.uvicorn_server import server_config
from tests.support.upstream import FakeUpstream

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pixyproxy.web.server.connections import Connections

Result = TypeVar("Result")
EVERY_IMAGE_SCOPE = frozenset({Scope.IMAGE_READ, Scope.IMAGE_GENERATE, Scope.IMAGE_MANAGE})
ACTOR = Actor(type=SubjectType.COMMAND, subject="tests")
START_SECONDS = 60
UNLIMITED = dict.fromkeys(
    (
        "images_per_minute",
        "reads_per_second",
        "changes_per_minute",
        "sign_ins_per_minute",
        "failures_per_address",
        "failures_per_name",
    ),
    1_000_000,
)
"""All tests come from one address, so only tests of limits set limits."""


def make_settings(folder: Path, **overrides: Any) -> Settings:  # noqa: ANN401  (any setting)
    """Return settings that keep everything below ``folder`` and ignore the ``.env`` file."""
    values = {"data_dir": folder / "var", "images": folder / "images", "openai_api_key": None, **overrides}
    return Settings(_env_file=None, **values)


def upstream_settings(upstream: FakeUpstream) -> dict[str, object]:
    """Return the settings that point PixyProxy at the fake upstream."""
    return {"openai_api_key": upstream.api_key, "openai_base_url": upstream.base_url}


@dataclass(frozen=True)
class TenantClient:
    """A tenant for one test, and an HTTP client that carries its key."""

    guid: str
    api_key: str
    http: httpx2.Client


@dataclass(frozen=True)
class RunningServer:
    """A listening server. ``services`` and ``connections`` live inside it; use them through ``call`` alone."""

    url: str
    settings: Settings
    services: Services
    connections: "Connections"
    loop: asyncio.AbstractEventLoop

    def call(self, work: Callable[[Services], Coroutine[Any, Any, Result]]) -> Result:
        """Return the result of ``work``, run in the server's own event loop."""
        return asyncio.run_coroutine_threadsafe(work(self.services), self.loop).result(timeout=60)

    def hash_cheaply(self) -> None:
        """Make password hashes cost microseconds from now on. Tests of the cost do not call this."""
        self.services.users.passwords.context.update(argon2__memory_cost=8, argon2__time_cost=1)

    def client(self, api_key: str | None = None) -> httpx2.Client:
        """Return an HTTP client, anonymous without a key."""
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60)

    def new_tenant(
        self, name: str, *, scopes: frozenset[Scope] = EVERY_IMAGE_SCOPE, visibility: Visibility | None = None
    ) -> TenantClient:
        """Return a tenant with one API key, created through the services."""

        async def create(services: Services) -> tuple[str, str]:
            tenant = await services.tenants.create_tenant(
                NewTenant(name=name, default_visibility=visibility), actor=ACTOR
            )
            issued = await services.api_keys.issue_key(
                NewApiKey(name="test", scopes=scopes), grantor=command_grantor(tenant, ACTOR)
            )
            return tenant.guid, issued.api_key.get_secret_value()

        guid, api_key = self.call(create)
        return TenantClient(guid=guid, api_key=api_key, http=self.client(api_key))


@contextmanager
def serving(settings: Settings) -> Iterator[RunningServer]:
    """Yield a server with these settings on a free port, and stop it afterwards."""
    listening = socket.create_server(("127.0.0.1", 0))
    # asyncio sets TCP_NODELAY only on sockets it creates. Without it every response takes 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port = listening.getsockname()[1]
    config = server_config(settings, host="127.0.0.1", port=port)
    server = uvicorn.Server(config)
    connections = cast("Connections", config.http)
    app: FastAPI = config.app  # type: ignore[assignment]  # uvicorn types it for every kind of application
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_serve, args=(loop, server, listening), daemon=True)
    thread.start()
    try:
        _wait_until_started(server, thread)
        yield RunningServer(f"http://127.0.0.1:{port}", settings, app.state.services, connections, loop)
    finally:
        server.should_exit = True
        thread.join(timeout=60)
        listening.close()


def _serve(loop: asyncio.AbstractEventLoop, server: uvicorn.Server, listening: socket.socket) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(server.serve(sockets=[listening]))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while thread.is_alive() and time.monotonic() < deadline:
        if server.started:
            return
        time.sleep(0.01)
    message = "The server did not start. See its log for the reason."
    raise RuntimeError(message)
