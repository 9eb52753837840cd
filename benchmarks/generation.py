"""Generation of one 1.47 MB picture, storing included, beside the bare call of the same upstream."""

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
ROUNDS = 300
WARM_UP = 25
CLIENTS = (4, 16)
LOAD_SECONDS = 4.0
BARE_LOAD_SECONDS = 1.5
MOST_MILLISECONDS = 20.0
ORDER = {"prompt": "a red fox in the snow"}


@dataclass(frozen=True)
class Load:
    """Several clients at once."""

    clients: int
    sample: Sample
    resident_megabytes: float


@dataclass(frozen=True)
class Generations:
    """What was measured of generation with one database."""

    database: str
    proxied: Sample
    bare: Sample
    loads: list[Load]


@contextlib.contextmanager
def generating(folder: Path, upstream: Server, *, database_url: str | None = None) -> Iterator[tuple[Server, Call]]:
    """A PixyProxy that asks ``upstream``, with a high rate limit, and the call that makes a picture."""
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
        yield server, post_json(server.port, "/image", ORDER, key=key, status=201)


@contextlib.contextmanager
def durable_mariadb() -> Iterator[str]:
    """The URL of an empty database on a private MariaDB whose commits are synced to disk, as by default.

    The tests' options would only hand them to the operating system. Raises ``MariaDbError`` without MariaDB.
    """
    with MariaDbServer() as server:
        with contextlib.closing(mysql.connector.connect(host="127.0.0.1", port=server.port, user="root")) as connection:
            connection.cursor().execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        yield server.databases.create_database()


def bare_call(upstream: Server) -> Call:
    """The upstream's own call, which PixyProxy makes for each picture."""
    order = {**ORDER, "model": "gpt-image-2.5-flare"}
    return post_json(upstream.port, GENERATIONS_PATH, order, key=API_KEY, status=200)


def measure_generation(database: str, server: Server, call: Call, *, bare: Call) -> Generations:
    """One client in turn with the bare call, then several clients."""
    proxied, direct = interleave(call, bare, rounds=ROUNDS, warm_up=WARM_UP)
    loads = [
        Load(clients, load(call, clients=clients, seconds=LOAD_SECONDS), server.resident_megabytes())
        for clients in CLIENTS
    ]
    return Generations(database, proxied, direct, loads)


def measure_bare_loads(bare: Call) -> dict[int, Sample]:
    """What the upstream and the client manage between themselves, by number of clients."""
    return {clients: load(bare, clients=clients, seconds=BARE_LOAD_SECONDS) for clients in CLIENTS}


def generation_table(measured: list[Generations]) -> str:
    """The report on one client."""
    columns = ("one client", "p50 ms", "p99 ms", "bare call p50 ms", "bare p99 ms", "added p50 ms", "ratio p50")
    return markdown_table(columns, [_row(item) for item in measured])


def load_table(measured: list[Generations], bare: dict[int, Sample]) -> str:
    """The report on several clients."""
    columns = ("several clients", "requests/s", "p50 ms", "p99 ms", "memory after MB", "bare requests/s")
    rows = [
        (
            f"{item.database}, {one.clients} clients",
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


def generation_targets(measured: list[Generations]) -> list[Target]:
    """One for each database."""
    return [Target(f"generation, {item.database}, p50", item.proxied.p50, MOST_MILLISECONDS, "ms") for item in measured]


def _row(item: Generations) -> tuple[str, ...]:
    return (
        item.database,
        f"{item.proxied.p50:.1f}",
        f"{item.proxied.p99:.1f}",
        f"{item.bare.p50:.1f}",
        f"{item.bare.p99:.1f}",
        f"{item.proxied.p50 - item.bare.p50:.1f}",
        f"{item.proxied.p50 / item.bare.p50:.1f}",
    )
