"""Generation of a picture through both endpoints, and PixyProxy's bare upstream call for comparison."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mysql.connector

from benchmarks.client import Call, interleave, load, post_json
from benchmarks.figures import Sample, Target, markdown_table
from benchmarks.processes import Installation, Server
from tests.support.mariadb import MariaDbServer
from tests.support.upstream import API_KEY, GENERATIONS_PATH

PICTURE_BYTES = 1_470_000
ROUNDS = 250
WARM_UP = 25
CLIENTS = (4, 16)
LOAD_SECONDS = 4.0
BARE_LOAD_SECONDS = 1.5
ADDED_MILLISECONDS = 8.0
"""The most that PixyProxy may add at the median: hardly noticeable to a client of the upstream."""
SQLITE = "embedded SQLite"
PROMPT = {"prompt": "a red fox in the snow"}
ORDER = {**PROMPT, "model": "gpt-image-2.5-flare"}


@dataclass(frozen=True)
class Load:
    """A measurement with several clients at once."""

    clients: int
    sample: Sample
    resident_megabytes: float


@dataclass(frozen=True)
class Door:
    """The measurements of one endpoint with one database, in turn with the bare call."""

    name: str
    proxied: Sample
    bare: Sample
    loads: list[Load]

    @property
    def added(self) -> float:
        """The median in milliseconds."""
        return self.proxied.p50 - self.bare.p50


@dataclass(frozen=True)
class Proxy:
    """A PixyProxy with a fake upstream, high limits, and an administrator's API key."""

    server: Server
    key: str

    @property
    def image(self) -> Call:
        """The call that makes a picture and returns its details."""
        return post_json(self.server.port, "/image", PROMPT, key=self.key, status=201)

    @property
    def generation(self) -> Call:
        """The call that orders a picture and returns at once."""
        return post_json(self.server.port, "/generation", PROMPT, key=self.key, status=202)

    @property
    def openai(self) -> Call:
        """The call that makes a picture and returns it in base64, as the upstream does."""
        return post_json(self.server.port, GENERATIONS_PATH, ORDER, key=self.key, status=200)


@contextlib.contextmanager
def generating(folder: Path, upstream: Server, *, database_url: str | None = None) -> Iterator[Proxy]:
    """Serve a separate PixyProxy with all its data in ``folder``."""
    settings = {
        "OPENAI_API_KEY": API_KEY,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream.port}/v1",
        "PIXYPROXY_IMAGES_PER_MINUTE": "1000000",
    }
    if database_url is not None:
        settings["PIXYPROXY_DATABASE_URL"] = database_url
    installation = Installation(folder, settings)
    key = installation.bootstrap()
    with installation.serve() as server:
        yield Proxy(server, key)


@contextlib.contextmanager
def durable_mariadb() -> Iterator[str]:
    """Yield the URL of an empty database on a private MariaDB that syncs commits to disk, as by default.

    With the tests' options, commits only reach the operating system. Raise ``MariaDbError`` without MariaDB.
    """
    with MariaDbServer() as server:
        with contextlib.closing(mysql.connector.connect(host="127.0.0.1", port=server.port, user="root")) as connection:
            connection.cursor().execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        yield server.databases.create_database()


def bare_call(upstream: Server) -> Call:
    """Return the upstream call that PixyProxy makes for each picture."""
    return post_json(upstream.port, GENERATIONS_PATH, ORDER, key=API_KEY, status=200)


def measure_generation(database: str, proxy: Proxy, *, bare: Call) -> list[Door]:
    """Measure both endpoints and the bare call in turn with one client, then each endpoint with several."""
    calls = {"POST /image": proxy.image, "POST /v1/images/generations": proxy.openai}
    *proxied, direct = interleave([*calls.values(), bare], rounds=ROUNDS, warm_up=WARM_UP)
    return [
        Door(f"{name}, {database}", sample, direct, _loads(proxy.server, call))
        for (name, call), sample in zip(calls.items(), proxied, strict=True)
    ]


def measure_bare_loads(bare: Call) -> dict[int, Sample]:
    """Measure the upstream and the client without PixyProxy, by number of clients."""
    return {clients: load(bare, clients=clients, seconds=BARE_LOAD_SECONDS) for clients in CLIENTS}


def generation_table(measured: list[Door]) -> str:
    """Return the report for one client."""
    columns = ("one client", "p50 ms", "p99 ms", "bare call p50 ms", "bare p99 ms", "added p50 ms", "ratio p50")
    return markdown_table(columns, [_row(item) for item in measured])


def load_table(measured: list[Door], bare: dict[int, Sample]) -> str:
    """Return the report for several clients."""
    columns = ("several clients", "requests/s", "p50 ms", "p99 ms", "memory after MB", "bare requests/s")
    rows = [
        (
            f"{item.name}, {one.clients} clients",
            f"{one.sample.per_second:.1f}",
            f"{one.sample.p50:.1f}",
            f"{one.sample.p99:.1f}",
            f"{one.resident_megabytes:.0f}",
            f"{bare[one.clients].per_second:.0f}",
        )
        for item in measured
        for one in item.loads
    ]
    return markdown_table(columns, rows)


def generation_targets(measured: list[Door]) -> list[Target]:
    """Return one target per endpoint; a database in another process is informative only."""
    return [
        Target(f"added by {item.name}, p50", item.added, ADDED_MILLISECONDS, "ms")
        for item in measured
        if item.name.endswith(SQLITE)
    ]


def _loads(server: Server, call: Call) -> list[Load]:
    return [
        Load(clients, load(call, clients=clients, seconds=LOAD_SECONDS), server.resident_megabytes())
        for clients in CLIENTS
    ]


def _row(item: Door) -> tuple[str, ...]:
    return (
        item.name,
        f"{item.proxied.p50:.1f}",
        f"{item.proxied.p99:.1f}",
        f"{item.bare.p50:.1f}",
        f"{item.bare.p99:.1f}",
        f"{item.added:.1f}",
        f"{item.proxied.p50 / item.bare.p50:.1f}",
    )
