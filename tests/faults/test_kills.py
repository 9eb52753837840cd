"""A server is killed at every step of a generation, and at any moment: nothing is lost or bought twice.

``KILLS`` in the environment sets the total number of kills, each of which must be recovered from in time. Without it
there is one kill of each kind, and recovery only has to finish.
"""

import json
import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pixyproxy.core.fault_points import FaultPoint
from tests.faults.kills.orders import new_orders
from tests.faults.kills.site import Site, open_site
from tests.faults.kills.witness import RECOVERY_SECONDS, Findings, examine, spooled
from tests.support.faulty_server import Act, Fault, clear_plan, has_plan
from tests.support.mariadb import MySqlDatabases
from tests.support.process import wait_until

SEED = 20261121
MEMORY = Path("/dev/shm")  # noqa: S108  (a separate file system is needed)
LONGEST_SECONDS = 0.8
"""Of a random moment: about when the last of the orders finishes."""
TIMES = {FaultPoint.REFUSED: 2, FaultPoint.SETTLED: 2} | dict.fromkeys(
    (FaultPoint.ANSWERED, FaultPoint.SPOOLED, FaultPoint.MOVED, FaultPoint.RECORDED, FaultPoint.CLEANED), 6
)
"""How often the orders of one kind certainly pass a point; others pass it with all eight orders."""


@dataclass(frozen=True)
class Way:
    """A kind of kill: at a point of a generation or a random moment, and then optionally at a point of recovery.

    If the point ``fails``, an unforeseen error happens there, and the kill comes after that.
    """

    point: FaultPoint | None
    then: FaultPoint | None = None
    backend: str = "sqlite"
    elsewhere: bool = False
    fails: bool = False

    def __str__(self) -> str:
        """Return its name in reports."""
        name = "any moment" if self.point is None else self.point.value
        then = f", then in recovery at {self.then}" if self.then else ""
        return (
            name
            + (" fails" if self.fails else "")
            + then
            + (", store elsewhere" if self.elsewhere else "")
            + f" ({self.backend})"
        )


GENERATION = [point for point in FaultPoint if point is not FaultPoint.RECOVERING]
RECOVERY = [FaultPoint.RECOVERING, FaultPoint.MOVED, FaultPoint.RECORDED, FaultPoint.CLEANED]
FAILING = [FaultPoint.ANSWERED, FaultPoint.MOVED, FaultPoint.RECORDED, FaultPoint.CLEANED]
WAYS = [
    *(Way(point) for point in GENERATION),
    Way(None),
    *(Way(FaultPoint.SPOOLED, then=point) for point in RECOVERY),
    *(Way(point, fails=True) for point in FAILING),
    Way(FaultPoint.MOVED, elsewhere=True),
    Way(None, elsewhere=True),
    Way(FaultPoint.RECORDED, backend="mysql"),
    Way(FaultPoint.SPOOLED, then=FaultPoint.RECOVERING, backend="mysql"),
    Way(None, backend="mysql"),
]
KILLS = int(os.environ.get("KILLS", "0"))


@dataclass(frozen=True)
class Sites:
    """One site for each database and location of the pictures, opened on first use."""

    folder: Path
    servers: MySqlDatabases
    held: ExitStack
    opened: dict[tuple[str, bool], Site] = field(default_factory=dict)

    def get(self, way: Way) -> Site:
        """Return the site for a kind of kill, with its server alive."""
        name = (way.backend, way.elsewhere)
        if name not in self.opened:
            self.opened[name] = self._open(way)
        site = self.opened[name]
        if not site.server.is_alive:
            restart(site)
        return site

    def _open(self, way: Way) -> Site:
        url, images = None, None
        if way.backend == "mysql":
            url = self.servers.create_database()
            self.held.callback(self.servers.drop_database, url)
        if way.elsewhere:
            images = Path(self.held.enter_context(TemporaryDirectory(dir=MEMORY))) / "images"
        folder = self.folder / str(len(self.opened))
        folder.mkdir()
        return self.held.enter_context(open_site(folder, database_url=url, images=images))


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, mysql_server: MySqlDatabases) -> Iterator[Sites]:
    """Yield sites shared by the tests of this module: each kill brings its own orders."""
    with ExitStack() as held:
        yield Sites(tmp_path_factory.mktemp("kills"), mysql_server, held)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_kill_loses_nothing_and_buys_nothing_twice(
    way: Way, sites: Sites, record_property: Callable[[str, object], None]
) -> None:
    if way.elsewhere and not MEMORY.is_dir():
        pytest.skip(f"{MEMORY} does not exist on this machine")
    findings, dice = Findings(), random.Random(f"{SEED} {way}")
    site = sites.get(way)
    try:
        for _ in range(max(1, round(KILLS / len(WAYS)))):
            kill_and_recover(site, way, dice, findings)
    finally:
        record_property("kills", json.dumps([str(way), findings.as_dict()]))
    findings.assert_none()
    # The few kills of an ordinary run share the machine with other tests, so they are not timed.
    assert findings.slowest_seconds < (RECOVERY_SECONDS if KILLS else math.inf)


def kill_and_recover(site: Site, way: Way, dice: random.Random, findings: Findings) -> None:
    """Kill the server while it works on orders of every kind, restart it, and examine the orders."""
    orders = new_orders(after_failures=way.fails)
    dice.shuffle(orders)
    if way.point is not None:
        occurrence = dice.randint(1, TIMES.get(way.point, len(orders)))
        Fault(way.point, Act.RAISE if way.fails else Act.KILL, occurrence).write(site.folder)
    with ThreadPoolExecutor(len(orders)) as pool:
        asked = [pool.submit(order.carry_out, site) for order in orders]
        if way.point is None:
            time.sleep(dice.uniform(0, LONGEST_SECONDS))
            site.server.kill()
        if way.fails:
            wait_until(lambda: not has_plan(site.folder), seconds=30, what="the failure")
            site.server.kill()
        safe = take_death(site, findings)
        if way.then is not None:
            Fault(way.then).write(site.folder)
            site.server.start()
            safe |= take_death(site, findings)
        restart(site)
        since = time.monotonic()
        for future in asked:
            future.result()
    examine(site, orders, safe=safe, since=since, findings=findings)


def take_death(site: Site, findings: Findings) -> set[str]:
    """Wait until the server was killed; return the generations whose pictures are durable in its spool."""
    assert site.server.wait_until_dead() == -signal.SIGKILL, site.server.logs[-1].read_text()
    findings.kills += 1
    clear_plan(site.folder)
    return spooled(site)


def restart(site: Site) -> None:
    """Restart the server without a plan."""
    clear_plan(site.folder)
    site.server.start()
    site.server.wait_until_listening()
