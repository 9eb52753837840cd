"""Serving of a stored picture; informative, without a target."""

from dataclasses import dataclass

from benchmarks.client import Call, connected, load
from benchmarks.figures import Sample, markdown_table
from benchmarks.processes import BenchmarkError

CLIENTS = (1, 16)
SECONDS = 2.0


@dataclass(frozen=True)
class Served:
    """A picture served to a number of clients at once."""

    clients: int
    picture_bytes: int
    sample: Sample


def measure_serving(generate: Call) -> list[Served]:
    """Make one picture with ``generate``, then get it repeatedly without a credential."""
    with connected(generate) as connection:
        guid = generate.answer(connection)["guid"]
        call = Call(generate.port, "GET", f"/image/{guid}/content", 200)
        size = len(call.send(connection))
    if not size:
        message = "The served picture is empty."
        raise BenchmarkError(message)
    return [Served(clients, size, load(call, clients=clients, seconds=SECONDS)) for clients in CLIENTS]


def serving_table(measured: list[Served]) -> str:
    """Return the report."""
    columns = ("GET /image/{guid}/content", "requests/s", "MB/s", "p50 ms", "p99 ms")
    rows = [
        (
            f"{item.clients} {'client' if item.clients == 1 else 'clients'}",
            f"{item.sample.per_second:.0f}",
            f"{item.sample.per_second * item.picture_bytes / 1e6:.0f}",
            f"{item.sample.p50:.1f}",
            f"{item.sample.p99:.1f}",
        )
        for item in measured
    ]
    return markdown_table(columns, rows)
