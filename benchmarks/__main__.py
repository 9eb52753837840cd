"""Measure everything, print the report, and exit with 1 if a target is missed."""

import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.authentication import (
    Credentials,
    authentication_table,
    authentication_targets,
    measure_authentication,
    reading,
)
from benchmarks.figures import Target, target_table
from benchmarks.generation import (
    PICTURE_BYTES,
    SQLITE,
    Door,
    bare_call,
    durable_mariadb,
    generating,
    generation_table,
    generation_targets,
    load_table,
    measure_bare_loads,
    measure_generation,
)
from benchmarks.processes import Server, fake_upstream
from benchmarks.serving import measure_serving, serving_table
from benchmarks.start import measure_starts, start_table, start_targets
from benchmarks.waiting import measure_waiting, waiting_table, waiting_targets
from tests.support.mariadb import MariaDbError


@dataclass(frozen=True)
class Report:
    """Markdown tables and the targets computed with them."""

    tables: list[str]
    targets: list[Target]


def main() -> int:
    """Run in temporary folders (in TMPDIR, whose disk affects the figures)."""
    began = time.monotonic()
    busy = os.getloadavg()[0]
    reports = []
    for measure in (_report_starts, _report_pictures, _report_waiting, _report_authentication):
        with tempfile.TemporaryDirectory(prefix="pixyproxy-bench-") as folder:
            reports.append(measure(Path(folder)))
    targets = [target for report in reports for target in report.targets]
    tables = [table for report in reports for table in report.tables]
    # Report the load: other work on the machine affects the figures.
    facts = f"{os.cpu_count()} cores, load {busy:.1f} before, {platform.platform()}, Python {platform.python_version()}"
    print("\n\n".join((f"Measured in {time.monotonic() - began:.0f} s: {facts}.", *tables, target_table(targets))))
    return 0 if all(target.met for target in targets) else 1


def _report_starts(folder: Path) -> Report:
    starts = measure_starts(folder)
    return Report([start_table(starts)], start_targets(starts))


def _report_pictures(folder: Path) -> Report:
    with fake_upstream(picture_bytes=PICTURE_BYTES) as upstream:
        bare = bare_call(upstream)
        home = folder / "sqlite"
        home.mkdir()
        with generating(home, upstream) as proxy:
            generations = measure_generation(SQLITE, proxy, bare=bare)
            served = measure_serving(proxy.image)
        generations += _with_mariadb(folder, upstream)
        bare_loads = measure_bare_loads(bare)
    tables = [generation_table(generations), load_table(generations, bare_loads), serving_table(served)]
    return Report(tables, generation_targets(generations))


def _report_waiting(folder: Path) -> Report:
    measured = measure_waiting(folder)
    return Report([waiting_table(measured)], waiting_targets(measured))


def _report_authentication(folder: Path) -> Report:
    measured = _authentication(SQLITE, folder)
    try:
        with durable_mariadb() as url:
            measured += _authentication("MariaDB", folder, database_url=url)
    except MariaDbError as error:
        print(f"Without MariaDB: {error}", file=sys.stderr)
    return Report([authentication_table(measured)], authentication_targets(measured))


def _authentication(database: str, folder: Path, *, database_url: str | None = None) -> list[Credentials]:
    home = folder / database
    home.mkdir()
    with reading(home, database_url=database_url) as (server, key, call):
        return measure_authentication(database, server, key, call)


def _with_mariadb(folder: Path, upstream: Server) -> list[Door]:
    """Measure the same with MariaDB, if it is installed."""
    home = folder / "mariadb"
    home.mkdir()
    try:
        with durable_mariadb() as url, generating(home, upstream, database_url=url) as proxy:
            return measure_generation("MariaDB", proxy, bare=bare_call(upstream))
    except MariaDbError as error:
        print(f"Without MariaDB: {error}", file=sys.stderr)
        return []


if __name__ == "__main__":
    sys.exit(main())
