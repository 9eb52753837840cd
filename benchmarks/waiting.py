"""Memory of a generation that waits for a slow upstream, for each of a thousand at once."""

import asyncio
import resource
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Call, connected, load
from benchmarks.figures import Target, markdown_table
from benchmarks.generation import PICTURE_BYTES, Proxy, generating
from benchmarks.processes import HOST, Server, fake_upstream

GENERATIONS = 1000
DELAY_SECONDS = 10.0
SENDERS = 4
ON_THE_WAY = 16
"""The most that may be sent and not yet at the upstream: this measures waiting, not simultaneous arrival."""
WARM_UP_CLIENTS = 8
WARM_UP_SECONDS = 2.0
SETTLE_SECONDS = 1.0
SAMPLE_SECONDS = 0.02
ANSWER_SECONDS = 180.0
ORDER_SECONDS = 50
MOST_KILOBYTES = 100.0
ESTABLISHED = "01"


@dataclass(frozen=True)
class Waiting:
    """A number of generations at once in one process. Memory in units of 10^6 bytes."""

    name: str
    at_upstream: int
    """The most simultaneous connections to the upstream."""
    idle_megabytes: float
    waiting_megabytes: float
    peak_megabytes: float
    """The peak, while all responses arrive at once."""
    answered: int
    """The number of generations with a picture."""

    @property
    def kilobytes_each(self) -> float:
        """The growth while they waited, in units of 10^3 bytes for each generation at the upstream."""
        return (self.waiting_megabytes - self.idle_megabytes) * 1e3 / max(1, self.at_upstream)


def measure_waiting(folder: Path) -> list[Waiting]:
    """Measure with clients that wait for their response, then with clients that do not, on a fresh server each."""
    _allow_many_connections()
    return [
        _measure("POST /v1/images/generations, connections held", _hold, folder / "held"),
        _measure("POST /generation, returned at once", _order, folder / "ordered"),
    ]


def waiting_table(measured: list[Waiting]) -> str:
    """Return the report."""
    columns = (
        f"{GENERATIONS} waiting",
        "at upstream",
        "idle MB",
        "waiting MB",
        "KB each",
        "peak with responses MB",
        "answered",
    )
    rows = [
        (
            item.name,
            str(item.at_upstream),
            f"{item.idle_megabytes:.0f}",
            f"{item.waiting_megabytes:.0f}",
            f"{item.kilobytes_each:.0f}",
            f"{item.peak_megabytes:.0f}",
            str(item.answered),
        )
        for item in measured
    ]
    return markdown_table(columns, rows)


def waiting_targets(measured: list[Waiting]) -> list[Target]:
    """Return the targets: all are at the upstream at once, use little memory there, and get a picture."""
    return [
        target
        for item in measured
        for target in (
            Target(f"at the upstream at once, {item.name}", item.at_upstream, GENERATIONS, "", at_least=True),
            Target(f"finished with a picture, {item.name}", item.answered, GENERATIONS, "", at_least=True),
            Target(f"memory of each waiting generation, {item.name}", item.kilobytes_each, MOST_KILOBYTES, "KB"),
        )
    ]


def _measure(name: str, send: Callable[[Proxy, Server], Awaitable[int]], home: Path) -> Waiting:
    home.mkdir()
    with (
        fake_upstream(picture_bytes=PICTURE_BYTES, delay_seconds=DELAY_SECONDS) as upstream,
        generating(home, upstream) as proxy,
    ):
        # What the first requests load stays in memory, so load it before measuring.
        load(proxy.image, clients=WARM_UP_CLIENTS, seconds=WARM_UP_SECONDS)
        time.sleep(SETTLE_SECONDS)
        idle = proxy.server.resident_megabytes()
        at_upstream, waiting, answered = asyncio.run(_watched(send(proxy, upstream), proxy.server, upstream))
        return Waiting(name, at_upstream, idle, waiting, proxy.server.peak_megabytes(), answered)


async def _watched(sending: Awaitable[int], server: Server, upstream: Server) -> tuple[int, float, int]:
    """Return the most connections to the upstream and the most memory before the first response, and the result."""
    sent = asyncio.ensure_future(sending)
    due = time.monotonic() + DELAY_SECONDS
    connections, megabytes = 0, 0.0
    while time.monotonic() < due and not sent.done():
        connections = max(connections, _connections_to(upstream))
        megabytes = max(megabytes, server.resident_megabytes())
        await asyncio.sleep(SAMPLE_SECONDS)
    return connections, megabytes, await sent


async def _hold(proxy: Proxy, upstream: Server) -> int:
    """Send each order on its own connection, as fast as the upstream accepts them; return the number of pictures."""
    asked: list[asyncio.Task[bool]] = []
    async with asyncio.TaskGroup() as group, asyncio.timeout(ANSWER_SECONDS):
        while len(asked) < GENERATIONS:
            on_the_way = sum(not task.done() for task in asked) - _connections_to(upstream)
            room = min(ON_THE_WAY - on_the_way, GENERATIONS - len(asked))
            asked += [group.create_task(_ask(proxy.openai)) for _ in range(room)]
            await asyncio.sleep(SAMPLE_SECONDS)
    return sum(task.result() for task in asked)


async def _ask(call: Call) -> bool:
    """Send the call on its own connection; read the response to its end without storing it."""
    reader, writer = await asyncio.open_connection(HOST, call.port)
    try:
        writer.write(_request(call))
        status = await reader.readline()
        while await reader.read(1 << 16):
            pass
    finally:
        writer.close()
    return status.split()[1:2] == [str(call.status).encode()]


def _request(call: Call) -> bytes:
    body = call.content() or b""
    headers = {**call.headers, "Host": HOST, "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"{call.method} {call.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def _order(proxy: Proxy, _: Server) -> int:
    """Order all on a few connections, then wait for each outcome; return the number with a picture."""
    with ThreadPoolExecutor(SENDERS) as threads:
        loop = asyncio.get_running_loop()
        sent = [loop.run_in_executor(threads, _order_some, proxy) for _ in range(SENDERS)]
        guids = [guid for some in await asyncio.gather(*sent) for guid in some]
        return sum(await asyncio.gather(*(loop.run_in_executor(threads, _has_ended, proxy, guid) for guid in guids)))


def _order_some(proxy: Proxy) -> list[str]:
    with connected(proxy.generation) as connection:
        return [proxy.generation.answer(connection)["guid"] for _ in range(GENERATIONS // SENDERS)]


def _has_ended(proxy: Proxy, guid: str) -> bool:
    """Wait for the generation; return whether it has a picture."""
    order = proxy.generation
    wait = {"Prefer": f"wait={ORDER_SECONDS}"}
    call = Call(order.port, "GET", f"/generation/{guid}", 200, {**order.headers, **wait})
    with connected(call) as connection:
        return bool(call.answer(connection)["status"] == "stored")


def _connections_to(server: Server) -> int:
    """Return the number of connections to the server."""
    there = f"{int.from_bytes(socket.inet_aton(HOST), sys.byteorder):08X}:{server.port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:])
    return sum(row[2] == there and row[3] == ESTABLISHED for row in rows)


def _allow_many_connections() -> None:
    """Raise the limit of open files, also for processes that are started later."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
