"""The HTTP client, the same for PixyProxy and the bare upstream, so that both include its cost."""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

from benchmarks.figures import Sample
from benchmarks.processes import HOST, BenchmarkError

TIMEOUT_SECONDS = 60.0
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Call:
    """A kind of request, and the status that every response must have.

    ``order``: a JSON object that is sent with a number in its prompt. An equal order of the same credential could be a
    retry of an open one, and would wait up to a second to find out.
    """

    port: int
    method: str
    path: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    order: Mapping[str, str] | None = None

    def content(self) -> bytes | None:
        """Return the body of the next request."""
        if self.order is None:
            return self.body
        return json.dumps({**self.order, "prompt": f"{self.order['prompt']} {next(NUMBERS)}"}).encode()

    def send(self, connection: HTTPConnection) -> bytes:
        """Return the complete body of the response. Raise ``BenchmarkError`` for any other status."""
        connection.request(self.method, self.path, body=self.content(), headers=dict(self.headers))
        response = connection.getresponse()
        content = response.read()
        if response.status != self.status:
            message = f"{self.method} {self.path}: {response.status} {content[:300].decode(errors='replace')}"
            raise BenchmarkError(message)
        return content

    def answer(self, connection: HTTPConnection) -> dict[str, Any]:
        """Return the response's JSON object."""
        content: dict[str, Any] = json.loads(self.send(connection))
        return content

    def timed(self, connection: HTTPConnection) -> float:
        """Return the milliseconds from sending a request to the last byte of its response."""
        began = time.perf_counter()
        self.send(connection)
        return (time.perf_counter() - began) * 1e3


def post_json(port: int, path: str, order: Mapping[str, str], *, key: str, status: int) -> Call:
    """Return a POST of a JSON object with a bearer key."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return Call(port, "POST", path, status, headers, order=order)


@contextlib.contextmanager
def connected(call: Call) -> Iterator[HTTPConnection]:
    """Open a keep-alive connection to the server of ``call``."""
    connection = HTTPConnection(HOST, call.port, timeout=TIMEOUT_SECONDS)
    try:
        yield connection
    finally:
        connection.close()


def interleave_all(kinds: Sequence[Sequence[Call]], *, rounds: int, warm_up: int) -> list[Sample]:
    """Measure one call of each kind in turn, all on one connection; a kind cycles through its calls."""
    times: list[list[float]] = [[] for _ in kinds]
    with connected(kinds[0][0]) as connection:
        for number in range(warm_up + rounds):
            for calls, taken in zip(kinds, times, strict=True):
                taken.append(calls[number % len(calls)].timed(connection))
    return [Sample(taken[warm_up:], sum(taken[warm_up:]) / 1e3) for taken in times]


def interleave(calls: Sequence[Call], *, rounds: int, warm_up: int) -> list[Sample]:
    """Measure the calls in turn, on one connection each, so that other load on the machine affects all alike."""
    times: list[list[float]] = [[] for _ in calls]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(call)) for call in calls]
        for _ in range(warm_up + rounds):
            for call, connection, taken in zip(calls, connections, times, strict=True):
                taken.append(call.timed(connection))
    return [Sample(taken[warm_up:], sum(taken[warm_up:]) / 1e3) for taken in times]


def load(call: Call, *, clients: int, seconds: float) -> Sample:
    """Measure the call from several clients at once, each sending the next request after its response."""
    barrier = threading.Barrier(clients)

    def run_client(_: int) -> tuple[float, list[float], float]:
        with connected(call) as connection:
            call.timed(connection)
            barrier.wait(TIMEOUT_SECONDS)
            began = time.perf_counter()
            times: list[float] = []
            while time.perf_counter() < began + seconds:
                times.append(call.timed(connection))
            return began, times, time.perf_counter()

    with ThreadPoolExecutor(clients) as threads:
        began, times, ended = zip(*threads.map(run_client, range(clients)), strict=True)
    # Wall time, not the sum of the requests' times: a client also waits for this process's other threads.
    return Sample([milliseconds for client in times for milliseconds in client], max(ended) - min(began))
