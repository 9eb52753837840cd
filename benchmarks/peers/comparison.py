"""Send the same requests to the upstream, a bare forwarder, LiteLLM and PixyProxy in turn, and check the claims."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Call, load, post_json
from benchmarks.figures import Sample, Target, markdown_table, pooled
from benchmarks.generation import ADDED_MILLISECONDS, ORDER, bare_call, generating
from benchmarks.peers.litellm_process import litellm_proxy
from benchmarks.processes import HOST, REPOSITORY, Server, bare_environment, serving
from tests.support.upstream import API_KEY, GENERATIONS_PATH

CLIENTS = (1, 4, 16, 64)
ROUNDS = 3
ROUND_SECONDS = 3.0
SETTLE_SECONDS = 2.0
RATE_RATIO = 5.0
LATENCY_RATIO = 7.0
GROWTH_RATIO = 5.0
BUSY_CLIENTS = 16
MOST_CLIENTS = 64


@dataclass(frozen=True)
class Memory:
    """Resident memory of one process in units of 10^6 bytes: before any request, after all, and at the peak."""

    idle: float
    after: float
    peak: float

    @property
    def growth(self) -> float:
        """The growth that remains after the requests."""
        return self.after - self.idle


@dataclass(frozen=True)
class Served:
    """The measurements of one server with a number of clients; ``memory`` is None for the upstream."""

    name: str
    clients: int
    sample: Sample
    start_seconds: float = 0.0
    memory: Memory | None = None


@dataclass(frozen=True)
class Comparison:
    """The measurements of all four servers with a number of clients, all but the upstream freshly started."""

    upstream: Served
    forwarder: Served
    litellm: Served
    pixyproxy: Served


def compare(folder: Path, upstream: Server, *, clients: int) -> Comparison:
    """Measure each in turn, over several rounds, so that other load on the machine affects all of them."""
    homes = [folder / name for name in ("forwarder", "litellm", "pixyproxy")]
    for home in homes:
        home.mkdir(parents=True)
    with (
        bare_forwarder(homes[0], upstream) as (forwarder, ask_forwarder),
        litellm_proxy(homes[1], upstream) as (litellm, ask_litellm),
        generating(homes[2], upstream) as proxy,
    ):
        time.sleep(SETTLE_SECONDS)
        servers = {"a bare forwarder": forwarder, "LiteLLM": litellm, "PixyProxy": proxy.server}
        idle = [server.resident_megabytes() for server in servers.values()]
        direct, *proxied = _rounds([bare_call(upstream), ask_forwarder, ask_litellm, proxy.openai], clients)
        served = [
            Served(name, clients, sample, server.start_seconds, _memory(server, before))
            for (name, server), sample, before in zip(servers.items(), proxied, idle, strict=True)
        ]
    return Comparison(Served("the upstream itself", clients, direct), *served)


def comparison_table(measured: Sequence[Comparison]) -> str:
    """Return the report."""
    columns = ("", "requests/s", "p50 ms", "p99 ms", "idle MB", "after MB", "peak MB", "start s")
    rows = [_row(served) for each in measured for served in _of(each)]
    return markdown_table(columns, rows)


def comparison_targets(measured: Sequence[Comparison]) -> list[Target]:
    """Return PixyProxy's claims as ratios, so that another machine can check them."""
    at = {each.pixyproxy.clients: each for each in measured}
    one, busy, most = at[1], at[BUSY_CLIENTS], at[MOST_CLIENTS]
    rate = busy.pixyproxy.sample.per_second / busy.litellm.sample.per_second
    latency = one.litellm.sample.p50 / one.pixyproxy.sample.p50
    added = one.pixyproxy.sample.p50 - one.upstream.sample.p50
    return [
        Target(f"requests/s at {BUSY_CLIENTS} clients, over LiteLLM's", rate, RATE_RATIO, "x", at_least=True),
        Target("LiteLLM's p50 at one client, over PixyProxy's", latency, LATENCY_RATIO, "x", at_least=True),
        Target(
            f"LiteLLM's growth at {MOST_CLIENTS} clients, over PixyProxy's",
            _growth(most),
            GROWTH_RATIO,
            "x",
            at_least=True,
        ),
        Target("added to the bare call at one client, p50", added, ADDED_MILLISECONDS, "ms"),
    ]


@contextlib.contextmanager
def bare_forwarder(folder: Path, upstream: Server) -> Iterator[tuple[Server, Call]]:
    """Serve ``forwarder.py`` in one process; yield it and the call that makes a picture."""
    command = [sys.executable, "-m", "benchmarks.peers.forwarder"]
    base_url = f"http://{HOST}:{upstream.port}/v1"
    environment = {"PYTHONPATH": str(REPOSITORY), "OPENAI_API_KEY": API_KEY, "OPENAI_BASE_URL": base_url}
    with serving(command, folder, bare_environment(folder) | environment, health="/healthz") as server:
        yield server, post_json(server.port, GENERATIONS_PATH, ORDER, key=API_KEY, status=200)


def _of(compared: Comparison) -> tuple[Served, ...]:
    return compared.upstream, compared.forwarder, compared.litellm, compared.pixyproxy


def _rounds(calls: Sequence[Call], clients: int) -> list[Sample]:
    rounds = [[load(call, clients=clients, seconds=ROUND_SECONDS) for call in calls] for _ in range(ROUNDS)]
    return [pooled(samples) for samples in zip(*rounds, strict=True)]


def _memory(server: Server, idle: float) -> Memory:
    return Memory(idle, server.resident_megabytes(), server.peak_megabytes())


def _growth(compared: Comparison) -> float:
    """Return LiteLLM's growth over PixyProxy's; no growth at all wins by any ratio."""
    theirs, ours = compared.litellm.memory, compared.pixyproxy.memory
    if theirs is None or ours is None or ours.growth <= 0:
        return float("inf")
    return theirs.growth / ours.growth


def _row(served: Served) -> tuple[str, ...]:
    memory = served.memory
    figures = (memory.idle, memory.after, memory.peak) if memory else ()
    return (
        f"{served.clients} {'client' if served.clients == 1 else 'clients'}, {served.name}",
        f"{served.sample.per_second:.1f}",
        f"{served.sample.p50:.1f}",
        f"{served.sample.p99:.1f}",
        *([f"{each:.0f}" for each in figures] or ("", "", "")),
        f"{served.start_seconds:.1f}" if memory else "",
    )
