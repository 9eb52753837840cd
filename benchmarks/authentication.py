"""The cost of a credential: the same cheap read without one, with an API key and with an access token."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.client import Call, connected, interleave_all
from benchmarks.figures import Sample, Target, markdown_table
from benchmarks.processes import Installation, Server

ROUNDS = 1500
WARM_UP = 100
COLD_ROUNDS = 250
COLD_WARM_UP = 10
KEY_MILLISECONDS = 0.4
TOKEN_MILLISECONDS = 0.6
SETTINGS = {
    # The benchmark requests tokens and uses credentials faster than the usual limits allow.
    "PIXYPROXY_READS_PER_SECOND": "1000000",
    "PIXYPROXY_CHANGES_PER_MINUTE": "1000000",
}


@dataclass(frozen=True)
class Credentials:
    """One read in three ways on one connection, with the same credentials throughout or different ones each time."""

    name: str
    anonymous: Sample
    key: Sample
    token: Sample

    @property
    def added_by_key(self) -> float:
        """The median in milliseconds."""
        return self.key.p50 - self.anonymous.p50

    @property
    def added_by_token(self) -> float:
        """The median in milliseconds."""
        return self.token.p50 - self.anonymous.p50


@contextlib.contextmanager
def reading(folder: Path, *, database_url: str | None = None) -> Iterator[tuple[Server, str, Call]]:
    """Serve a PixyProxy with one picture; yield it, its administrator's key and the call that reads the details."""
    settings = SETTINGS if database_url is None else {**SETTINGS, "PIXYPROXY_DATABASE_URL": database_url}
    installation = Installation(folder, settings)
    key = installation.bootstrap()
    with installation.serve() as server:
        order = json.dumps({"prompt": "a red fox in the snow", "size": "64x64"}).encode()
        make = with_credential(
            Call(server.port, "POST", "/image", 201, {"Content-Type": "application/json"}, order), key
        )
        with connected(make) as connection:
            guid = json.loads(make.send(connection))["guid"]
        yield server, key, Call(server.port, "GET", f"/image/{guid}", 200)


def with_credential(call: Call, credential: str) -> Call:
    """Return the same call with an API key or an access token."""
    return replace(call, headers={**call.headers, "Authorization": f"Bearer {credential}"})


def measure_authentication(database: str, server: Server, key: str, read: Call) -> list[Credentials]:
    """Measure with recently checked credentials, and with credentials that the server has not seen."""
    with_key, with_token = with_credential(read, key), with_credential(read, _new_token(server, key))
    samples = interleave_all([[read], [with_key], [with_token]], rounds=ROUNDS, warm_up=WARM_UP)
    count = COLD_ROUNDS + COLD_WARM_UP
    keys = [with_credential(read, _new_key(server, key)) for _ in range(count)]
    tokens = [with_credential(read, _new_token(server, key)) for _ in range(count)]
    cold = interleave_all([[read], keys, tokens], rounds=COLD_ROUNDS, warm_up=COLD_WARM_UP)
    return [
        Credentials(f"{database}, the same", *samples),
        Credentials(f"{database}, another each time", *cold),
    ]


def authentication_table(measured: Sequence[Credentials]) -> str:
    """Return the report."""
    columns = ("GET /image/{guid}", "none p50 ms", "key p50 ms", "token p50 ms", "key adds ms", "token adds ms")
    rows = [
        (
            item.name,
            f"{item.anonymous.p50:.2f}",
            f"{item.key.p50:.2f}",
            f"{item.token.p50:.2f}",
            f"{item.added_by_key:.2f}",
            f"{item.added_by_token:.2f}",
        )
        for item in measured
    ]
    return markdown_table(columns, rows)


def authentication_targets(measured: Sequence[Credentials]) -> list[Target]:
    """Return the targets for credentials in use; the cost of the first check is informative only."""
    return [
        target
        for item in measured
        if item.name.endswith("the same")
        for target in (
            Target(f"key, {item.name}, p50", item.added_by_key, KEY_MILLISECONDS, "ms"),
            Target(f"token, {item.name}, p50", item.added_by_token, TOKEN_MILLISECONDS, "ms"),
        )
    ]


def _new_key(server: Server, key: str) -> str:
    return _created(server, key, "/key", {"name": "benchmark"})["api_key"]


def _new_token(server: Server, key: str) -> str:
    return _created(server, key, "/admin/token", {"tenant": "default"})["access_token"]


def _created(server: Server, key: str, path: str, order: dict[str, str]) -> dict[str, str]:
    call = Call(server.port, "POST", path, 201, {"Content-Type": "application/json"}, json.dumps(order).encode())
    with connected(call) as connection:
        answer: dict[str, str] = json.loads(with_credential(call, key).send(connection))
    return answer
