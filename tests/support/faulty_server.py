"""A real `pixyproxy serve` that dies or fails at a fault point chosen by a file.

The product has no switch for faults: this program arms the fault points and then runs the command. Its process is
forked from one that has already loaded all modules, because starting is the slowest part of a kill test.

A server can also freeze within a transaction: ``freeze_after`` names an SQL statement, after which the process gets
SIGSTOP while it holds the locks of the statement.
"""

import json
import os
import re
import signal
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from sqlalchemy import Engine, event

from pixyproxy.cli import app
from pixyproxy.core import fault_points
from pixyproxy.core.fault_points import FaultPoint
from tests.support.forked import forking
from tests.support.process import LISTENING, OURS, wait_until

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Loading the system's certificate authorities takes 20 ms of a core, for a client that never needs them."""
PLAN = "plan.json"
"""The file's name, in the server's working folder."""


FREEZE = "freeze-after"
"""The name of the file, in the same folder, with the pattern of the statement after which the process freezes."""


class FaultError(Exception):
    """The error of a failing fault point: a type unknown to the product."""


class LoopEndError(BaseException):
    """An error that ends even a loop that continues after every exception."""


class Act(StrEnum):
    """The action at a fault point."""

    KILL = "kill"
    """End the process as SIGKILL does."""
    RAISE = "raise"
    """Raise a ``FaultError``."""
    END_LOOP = "end loop"
    """Raise a ``LoopEndError``."""


@dataclass(frozen=True)
class Fault:
    """An action to run once, at the ``occurrence``-th passing of a point since the plan was written.

    A plan is deleted once its failure was raised.
    """

    point: FaultPoint
    act: Act = Act.KILL
    occurrence: int = 1

    def write(self, folder: Path) -> None:
        """Make this the plan of the server, running or not, in a folder."""
        staged = folder / f"{PLAN}.new"
        staged.write_text(json.dumps(asdict(self)))
        staged.replace(folder / PLAN)


def has_plan(folder: Path) -> bool:
    """Return whether the server of a folder has a plan."""
    return (folder / PLAN).exists()


def clear_plan(folder: Path) -> None:
    """Delete the plan of a folder's server."""
    (folder / PLAN).unlink(missing_ok=True)


def freeze_after(pattern: str, folder: Path) -> None:
    """Freeze the server of a folder once, after the next statement that matches, ignoring case.

    ``has_frozen`` returns whether it froze.
    """
    staged = folder / f"{FREEZE}.new"
    staged.write_text(pattern)
    staged.replace(folder / FREEZE)


def has_frozen(folder: Path) -> bool:
    """Return whether the server of a folder froze after ``freeze_after``."""
    return not (folder / FREEZE).exists()


@dataclass(frozen=True)
class PlannedFreeze:
    """An SQLAlchemy listener that freezes the process after the statement described by the file in a folder."""

    file: Path

    def __call__(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        """Check the statement that was just executed."""
        try:
            pattern = self.file.read_text()
        except FileNotFoundError:
            return
        if re.search(pattern, statement, re.IGNORECASE | re.DOTALL):
            self.file.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)


@dataclass
class PlannedActs:
    """Runs the plan in a folder. Each plan is a new file, whose passings are counted from 1."""

    plan: Path
    _file: int | None = None
    _passed: int = 0

    async def __call__(self, point: FaultPoint) -> None:
        """Pass a fault point."""
        fault = self._read()
        if fault is None or fault.point != point:
            return
        self._passed += 1
        if self._passed != fault.occurrence:
            return
        if fault.act is Act.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        self.plan.unlink()
        raise LoopEndError if fault.act is Act.END_LOOP else FaultError

    def _read(self) -> Fault | None:
        try:
            with self.plan.open() as file:
                number, values = os.fstat(file.fileno()).st_mtime_ns, json.load(file)
        except FileNotFoundError:
            return None
        if number != self._file:
            self._file, self._passed = number, 0
        return Fault(FaultPoint(values["point"]), Act(values["act"]), values["occurrence"])


@dataclass
class FaultyServer:
    """A server in a folder, restarted after each death; ``url`` changes with every start.

    ``arguments`` are those of the command ``pixyproxy``.
    """

    folder: Path
    environment: Mapping[str, str]
    url: str = ""
    arguments: Sequence[str] = ("serve", "--port", "0")
    logs: list[Path] = field(default_factory=list)
    _process: "ForkServerProcess | None" = None

    @property
    def process_id(self) -> int:
        """The id of the running process."""
        process_id = self._require().pid
        assert process_id is not None
        return process_id

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the process without waiting for the server."""
        log = self.folder / f"server-{len(self.logs)}.log"
        log.write_bytes(b"")
        self.logs.append(log)
        self._process = forking().Process(
            target=serve_armed, args=(self.folder, log, dict(self.environment), self.arguments), daemon=True
        )
        self._process.start()

    def wait_until_listening(self, *, seconds: float = 30) -> None:
        """Return once the server responds."""

        def listens() -> bool:
            assert self._require().is_alive(), self.logs[-1].read_text()
            found = LISTENING.search(self.logs[-1].read_text())
            self.url = found[1] if found else self.url
            return found is not None and self._answers()

        wait_until(listens, seconds=seconds, what="the start of the server")

    def wait_until_dead(self, *, seconds: float = 30) -> int | None:
        """Return its exit code, negative for a signal; None if it is still alive."""
        self._require().join(seconds)
        return self._require().exitcode

    def kill(self) -> None:
        """Kill the process with SIGKILL if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def freeze(self) -> None:
        """Freeze the process with SIGSTOP."""
        os.kill(self.process_id, signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the process with SIGCONT."""
        os.kill(self.process_id, signal.SIGCONT)

    def client(self, api_key: str | None = None, *, timeout: float = 60) -> httpx2.Client:
        """Return an HTTP client of the running process."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=timeout, verify=NO_AUTHORITIES)

    def _answers(self) -> bool:
        with self.client() as client:
            return client.get("/healthz").is_success

    def _require(self) -> "ForkServerProcess":
        assert self._process is not None, "the server was never started"
        return self._process


@contextmanager
def faulty_server(folder: Path, environment: Mapping[str, str]) -> Iterator[FaultyServer]:
    """Yield a listening server, and leave no process behind."""
    server = FaultyServer(folder, environment)
    try:
        server.start()
        server.wait_until_listening()
        yield server
    finally:
        server.kill()


def serve_armed(folder: Path, log: Path, environment: Mapping[str, str], arguments: Sequence[str]) -> None:
    """Run the server in the forked process."""
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(folder)
    fault_points.arm(PlannedActs(folder / PLAN))
    event.listen(Engine, "after_cursor_execute", PlannedFreeze(folder / FREEZE))
    app(arguments)
