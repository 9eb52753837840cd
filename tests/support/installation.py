"""An installation of several machines, each with several server processes, behind a load balancer.

Each machine has its own data folder. All machines share one MariaDB, one Redis, one folder of pictures, one secret
and one upstream, which records what was bought::

    with open_installation(folder, mysql_server) as installation:
        tenant = installation.new_tenant(images_per_minute=30)
        tenant.http.post("/image", …)                          # through the balancer, round robin
        installation.ask(3, tenant).get("/generation/…")       # process 3, the last of machine 1
        installation.machines[0].kill()

``TEST_SHAPE=1x1`` in the environment makes it one machine of one process: the promises of one process must hold
there, too. Process numbers are then taken modulo the number of processes.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from pydantic import SecretStr

from pixyproxy.core.models.principal import Scope
from pixyproxy.core.settings import Settings
from tests.support.balancer import LoadBalancer
from tests.support.faulty_server import NO_AUTHORITIES, FaultyServer, clear_plan
from tests.support.identity import bearer, make_tenant, order_token
from tests.support.mariadb import MySqlDatabases
from tests.support.process import environment_of, new_api_key
from tests.support.redis import RedisServer
from tests.support.server import EVERY_IMAGE_SCOPE, UNLIMITED, TenantClient, make_settings
from tests.support.upstream import FakeUpstream

SHAPE = os.environ.get("TEST_SHAPE", "2x2")
"""Machines x processes of each."""
SERVE = ("serve", "--port", "0")
PUBLIC_URL = "https://pictures.example.com"
"""The public URL of all processes, which is also the issuer of their tokens."""
SECRET = "the secret that all machines of this installation share"
DAY = 86_400
PRICE_USD = 0.01
"""The price of one picture of any model."""
Upstreams = Mapping[str, Mapping[str, object]]
"""Settings of upstreams by name. Each serves only the model of its own name, so tests do not share limits."""


@dataclass
class Machine:
    """A data folder, and the processes that use it."""

    folder: Path
    environment: Mapping[str, str]
    processes: list[FaultyServer] = field(default_factory=list)

    def add(self, *arguments: str) -> FaultyServer:
        """Start another process with these command line arguments; it may not listen yet on return."""
        folder = self.folder / f"process-{len(self.processes)}"
        folder.mkdir()
        process = FaultyServer(folder, self.environment, arguments=arguments)
        self.processes.append(process)
        process.start()
        return process

    def kill(self) -> None:
        """Kill all processes at once (SIGKILL)."""
        for process in self.processes:
            process.kill()

    @property
    def data_folder(self) -> Path:
        """The folder where its processes keep data that is not stored yet."""
        return self.folder / "var"

    def lose_data(self) -> None:
        """Move the data folder away."""
        self.data_folder.rename(self.folder / "lost")

    def recover_data(self) -> None:
        """Move the data folder back."""
        (self.folder / "lost").rename(self.data_folder)

    def restart(self, number: int) -> FaultyServer:
        """Restart a killed process on the same port without faults, and wait until it listens."""
        process = self.processes[number]
        clear_plan(process.folder)
        command, option, _, *others = process.arguments
        process.arguments = (command, option, process.url.rpartition(":")[2], *others)
        process.start()
        process.wait_until_listening()
        return process


@dataclass
class Installation:
    """The whole installation; ``operator`` is an API key with every scope. ``settings`` are those of machine 0."""

    settings: Settings
    machines: Sequence[Machine]
    balancer: LoadBalancer
    upstream: FakeUpstream
    operator: str
    clients: ExitStack

    @property
    def processes(self) -> list[FaultyServer]:
        """The processes of all machines, those of machine 0 first."""
        return [process for machine in self.machines for process in machine.processes]

    def process(self, number: int) -> FaultyServer:
        """Return one process."""
        return self.processes[number % len(self.processes)]

    def client(self, api_key: str | None = None, *, process: int | None = None, timeout: float = 60) -> httpx2.Client:
        """Return an HTTP client of one process, or of the balancer; it is closed with the installation."""
        url = self.balancer.url if process is None else self.process(process).url
        headers = {} if api_key is None else bearer(api_key)
        client = httpx2.Client(base_url=url, headers=headers, timeout=timeout, verify=NO_AUTHORITIES)
        return self.clients.enter_context(client)

    def ask(self, process: int, tenant: TenantClient) -> httpx2.Client:
        """Return the tenant's HTTP client of one process."""
        return self.client(tenant.api_key, process=process)

    def ask_all(self, tenant: TenantClient) -> list[httpx2.Client]:
        """Return the tenant's HTTP clients of all processes."""
        return [self.ask(number, tenant) for number in range(len(self.processes))]

    def new_tenant(self, *, scopes: frozenset[Scope] = EVERY_IMAGE_SCOPE, **order: object) -> TenantClient:
        """Return a new tenant with an API key and a client of the balancer, created over HTTP as by an operator."""
        operator = self.client(self.operator, process=0)
        guid = make_tenant(operator, **order)["guid"]
        wanted = scopes | {Scope.KEY_MANAGE}
        token = order_token(operator, guid, scope=" ".join(sorted(wanted)), expires_in=DAY)
        key = {"name": "test", "scopes": sorted(scopes)}
        made = operator.post("/key", json=key, headers=bearer(token))
        assert made.status_code == httpx2.codes.CREATED, made.text
        api_key = made.json()["api_key"]
        return TenantClient(guid=guid, api_key=api_key, http=self.client(api_key))


@contextmanager
def open_installation(
    folder: Path,
    databases: MySqlDatabases,
    upstreams: Upstreams,
    *,
    shape: str = SHAPE,
    serve: Sequence[str] = (),
    **overrides: object,
) -> Iterator[Installation]:
    """Yield an installation whose processes listen, and stop every process afterwards.

    ``serve`` are further arguments of ``pixyproxy serve``, ``overrides`` settings of all processes.
    """
    machines, processes = map(int, shape.split("x"))
    with ExitStack() as stack:
        url = databases.create_database()
        stack.callback(databases.drop_database, url)
        redis = stack.enter_context(RedisServer())
        upstream = stack.enter_context(FakeUpstream())
        common = UNLIMITED | {
            "database_url": SecretStr(url),
            "redis_url": SecretStr(redis.url),
            "secret_key": SecretStr(SECRET),
            "images": folder / "images",
            "public_url": PUBLIC_URL,
            "prices": _prices(folder, upstreams),
            "default_model": next(iter(upstreams)),
            "default_size": "64x64",
            "database_wait_seconds": 30,
            **overrides,
        }
        settings = [_settings_of(folder / f"machine-{number}", common) for number in range(machines)]
        operator = new_api_key(settings[0], scopes=frozenset(Scope), tenant="operators")
        listed = {"PIXYPROXY_UPSTREAMS": _listed(upstreams, upstream), "PIXYPROXY_TRUSTED_PROXIES": "127.0.0.1"}
        made = [Machine(each.data_dir.parent, environment_of(each) | listed) for each in settings]
        for machine in made:
            stack.callback(machine.kill)
            for _ in range(processes):
                machine.add(*SERVE, *serve)
        for process in (process for machine in made for process in machine.processes):
            process.wait_until_listening()
        balancer = stack.enter_context(LoadBalancer([process.url for machine in made for process in machine.processes]))
        clients = stack.enter_context(ExitStack())
        yield Installation(settings[0], made, balancer, upstream, operator, clients)


def _settings_of(folder: Path, common: dict[str, object]) -> Settings:
    folder.mkdir(parents=True)
    return make_settings(folder, **common)


def _listed(upstreams: Upstreams, fake: FakeUpstream) -> str:
    """Return the setting ``PIXYPROXY_UPSTREAMS``, in which each upstream is the fake with its own limits."""
    common = {"base_url": fake.base_url, "api_key": fake.api_key}
    return json.dumps([{"name": name, "models": [name], **common, **limits} for name, limits in upstreams.items()])


def _prices(folder: Path, upstreams: Upstreams) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prices.json"
    file.write_text(json.dumps({"models": {model: {"per_picture": PRICE_USD} for model in upstreams}}))
    return file
