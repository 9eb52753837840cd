"""Rejected requests and slow clients as attacks: work and responses are bounded, and no other client waits."""

import json
import os
import resource
import select
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.support.debian import find_or_install
from tests.support.identity import EVERY_SCOPE, bearer
from tests.support.pictures import noise_png
from tests.support.process import ServerProcess, new_api_key, running_server, wait_until
from tests.support.raw_http import exchange, request_bytes
from tests.support.scale import FULL, scaled
from tests.support.server import UNLIMITED, make_settings, upstream_settings
from tests.support.upstream import FakeUpstream

CONNECTIONS = scaled(60, 10_000)
"""The number of connections from one address; ``make faults`` opens more, and also waits for the deadlines."""
MOST_CONNECTIONS = scaled(40, 4_000)
SHORT_BYTES = 4_000
"""The maximum length of a response to a rejected request."""
MOST_CPU_SECONDS = 0.1
"""The maximum CPU time of one rejected request. Unbounded, each of these took several times as long."""
TIMES = 10
PROBES = 50
CLOSED_SECONDS = 90
"""The time until every stalling client has lost its connection: twice the longest deadline."""
JSON_TYPE = {"Content-Type": "application/json"}
Record = Callable[[str, object], None]


@dataclass(frozen=True)
class Stage:
    """A server process with one large picture, and the key of a tenant with every scope."""

    server: ServerProcess
    api_key: str
    picture: str
    """The path of its content."""

    def client_at(self, address: str) -> httpx2.Client:
        """Return an anonymous client with its own loopback address."""
        return httpx2.Client(
            base_url=self.server.url, transport=httpx2.HTTPTransport(local_address=address), timeout=60
        )


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Yield the running stage."""
    with FakeUpstream(picture=noise_png(6_000_000)) as upstream:
        limits = UNLIMITED | {"max_connections": MOST_CONNECTIONS}
        settings = make_settings(tmp_path, **limits, **upstream_settings(upstream))
        api_key = new_api_key(settings, scopes=EVERY_SCOPE)
        with running_server(settings, tmp_path) as server, server.client(api_key) as client:
            made = client.post("/image", json={"prompt": "a fox"}).raise_for_status().json()
            client.close()
            yield Stage(server, api_key, f"/image/{made['guid']}/content")


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def attacks(api_key: str) -> dict[str, bytes]:
    """Return requests that are all rejected, by the part that is too large."""
    known = bearer(api_key) | JSON_TYPE
    members = json.dumps({f"{number:x}": 0 for number in range(90_000)}).encode()
    scopes = b'{"name": "k", "scopes": [%b]}' % b",".join([b'"x"'] * 240_000)
    parameters = "&".join(f"a{number}=1" for number in range(13_000))
    announced = JSON_TYPE | {"Content-Length": "1000000"}
    return {
        "13,000 parameters": request_bytes("GET", f"/image?{parameters}"),
        "90,000 members": request_bytes("POST", "/image", headers=known, body=members),
        "90,000 members under /v1": request_bytes("POST", "/v1/images/generations", headers=known, body=members),
        "240,000 scopes": request_bytes("POST", "/key", headers=known, body=scopes),
        "1 MB of brackets": request_bytes("POST", "/image", headers=known, body=b"[" + b"[]," * 330_000 + b"[]]"),
        "1 MB of fields": request_bytes(
            "POST", "/auth/token", headers={"Content-Type": "application/x-www-form-urlencoded"}, body=b"a&" * 500_000
        ),
        "1 MB of an anonymous client": request_bytes("POST", "/image", headers=announced) + b" " * 1_000_000,
        "60 KB of Accept": request_bytes("GET", "/image", headers={"Accept": "," * 60_000}),
    }


def test_a_rejected_request_costs_bounded_work_and_gets_a_short_response(stage: Stage, record_property: Record) -> None:
    figures = {}
    requests = attacks(stage.api_key)
    assert len(requests) == 8
    for name, sent in requests.items():
        before = cpu_seconds(stage.server.process.pid)
        answers = [exchange(stage.server.url, sent) for _ in range(TIMES)]
        cost = (cpu_seconds(stage.server.process.pid) - before) / TIMES
        assert {answer.status_code for answer in answers} < {400, 401, 414, 422, 431}, name
        figures[name] = cost, max(len(answer.content) for answer in answers)
    for name, (cost, length) in figures.items():
        record_property("figures", f"{name}: {1000 * cost:.0f} ms of a core, {length} bytes of response")
    assert max(cost for cost, _ in figures.values()) < MOST_CPU_SECONDS
    assert max(length for _, length in figures.values()) < SHORT_BYTES


def measure(client: httpx2.Client, path: str) -> list[float]:
    """Return the milliseconds that each of some requests takes, in ascending order. All must be answered."""
    taken = []
    for _ in range(PROBES):
        began = time.perf_counter()
        assert client.get(path).status_code == httpx2.codes.OK
        taken.append(1000 * (time.perf_counter() - began))
    return sorted(taken)


def told(name: str, taken: list[float]) -> str:
    """Return a line of the report."""
    return f"{name}: median {statistics.median(taken):.1f} ms, longest {taken[-1]:.1f} ms"


def stall(stage: Stage, stack: ExitStack, address: str, count: int) -> list[socket.socket]:
    """Open this many connections from an address that send nothing, send half a request, or do not read."""
    parts = urlsplit(stage.server.url)
    form = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": "1000"}
    kinds = [
        b"",
        b"GET /image HT",
        request_bytes("GET", "/image")[:-2],
        request_bytes("POST", "/auth/token", headers=form),
    ]
    made = []
    for number in range(count):
        connection = stack.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(60)
        connection.bind((address, 0))
        connection.connect((str(parts.hostname), parts.port))
        # Only a few that do not read: each uses megabytes of the kernel's memory.
        reading = number % 100 == 0
        connection.sendall(request_bytes("GET", stage.picture) if reading else kinds[number % len(kinds)])
        made.append(connection)
    return made


def test_health_and_other_clients_are_served_while_connections_are_held(stage: Stage, record_property: Record) -> None:
    allow_many_files()
    with ExitStack() as stack:
        same, other = (stack.enter_context(stage.client_at(address)) for address in ("127.0.0.1", "127.0.0.2"))
        quiet = measure(other, "/image")
        held = stall(stage, stack, "127.0.0.1", CONNECTIONS)
        figures = [
            told("quiet", quiet),
            told(f"others while one address has {CONNECTIONS} connections", measure(other, "/image")),
            told("/healthz, from that address", measure(same, "/healthz")),
        ]
        other.close()
        for address in ("127.0.0.3", "127.0.0.4", "127.0.0.5"):
            held += stall(stage, stack, address, MOST_CONNECTIONS // 4)
        with stage.client_at("127.0.0.6") as late:
            assert late.get("/image").status_code == httpx2.codes.SERVICE_UNAVAILABLE
            figures.append(told("/healthz while all connections are held", measure(late, "/healthz")))
        if FULL:
            began = time.monotonic()
            wait_until(lambda: are_closed(held), seconds=CLOSED_SECONDS, what="the end of every connection")
            figures.append(f"all {len(held)} connections closed after {time.monotonic() - began:.0f} s")
    with stage.client_at("127.0.0.6") as late:
        wait_until(lambda: late.get("/image").status_code == httpx2.codes.OK, what="an ordinary answer")
    for line in figures:
        record_property("figures", line)


def are_closed(connections: list[socket.socket]) -> bool:
    """Return whether the server has closed or reset all of them, without reading."""
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLRDHUP)
    return len(poll.poll(0)) == len(connections)


def allow_many_files() -> None:
    """Raise this process's limit of open files to its maximum."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


SLOW_WAYS = {
    "headers": ["-H", "-u", "{url}/image"],
    "body": ["-B", "-t", "POST", "-f", "application/x-www-form-urlencoded", "-s", "8192", "-u", "{url}/auth/token"],
    "reading": ["-X", "-w", "16", "-y", "32", "-n", "5", "-z", "32", "-u", "{url}{picture}"],
}


@pytest.mark.skipif(not FULL, reason="takes minutes: `make faults`")
@pytest.mark.parametrize("way", SLOW_WAYS)
def test_slowhttptest_does_not_slow_other_clients(way: str, stage: Stage, record_property: Record) -> None:
    program = find_or_install("slowhttptest", lambda: shutil.which("slowhttptest"))
    assert program is not None, "install slowhttptest"
    arguments = [each.format(url=stage.server.url, picture=stage.picture) for each in SLOW_WAYS[way]]
    # As many connections as the limit of open files allows, for longer than the deadlines.
    command = [program, "-c", "4000", "-r", "1000", "-i", "10", "-l", "60", "-p", "2", *arguments]
    with stage.client_at("127.0.0.1") as same, stage.client_at("127.0.0.2") as other:
        quiet = measure(other, "/image")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attack:
            health, others = [], []
            while attack.poll() is None:
                health += measure(same, "/healthz")
                others += measure(other, "/image")
    for name, taken in (("quiet", quiet), ("others", sorted(others)), ("/healthz", sorted(health))):
        record_property("figures", told(f"slowhttptest, {way}: {name}", taken))
