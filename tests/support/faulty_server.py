"""A real `pixyproxy serve` that dies or fails at a fault point, as a file tells it to.

The product has no switch for that: this program arms the fault points and then runs the command. Its process is forked
off one that has loaded all modules already, for a start is what most of a kill takes.

A server can also be told to freeze within a transaction: ``freeze_after`` names an SQL statement, after which the
process gets SIGSTOP while it holds the locks that the statement took.
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
"""Loading those of the system takes 20 ms of a core, for a client that never needs them."""
PLAN = "plan.json"
"""The file's name, in the folder that the server runs in."""


FREEZE = "freeze-after"
"""The name of the file, in the same folder, with the pattern of the statement after which the process freezes."""


class FaultError(Exception):
    """What a fault point that is to fail raises: nothing that the product knows."""


class LoopEndError(BaseException):
    """What not even a loop that goes on after every error survives."""


class Act(StrEnum):
    """What happens at a fault point."""

    KILL = "kill"
    """The process ends as by SIGKILL."""
    RAISE = "raise"
    """A ``FaultError``."""
    END_LOOP = "end loop"
    """A ``LoopEndError``."""


@dataclass(frozen=True)
class Fault:
    """What is to happen when a point is passed for the ``occurrence``-th time since the plan was written, once.

    A plan that was carried out by a failure is gone.
    """

    point: FaultPoint
    act: Act = Act.KILL
    occurrence: int = 1

    def write(self, folder: Path) -> None:
        """Make it the plan of the server that runs, or is to run, in a folder."""
        staged = folder / f"{PLAN}.new"
        staged.write_text(json.dumps(asdict(self)))
        staged.replace(folder / PLAN)


def has_plan(folder: Path) -> bool:
    """Whether something is to happen to the server of a folder."""
    return (folder / PLAN).exists()


def clear_plan(folder: Path) -> None:
    """Nothing is to happen (any more) to the server of a folder."""
    (folder / PLAN).unlink(missing_ok=True)


def freeze_after(pattern: str, folder: Path) -> None:
    """Have the server of a folder freeze after the next statement that matches, ignoring case, once.

    ``has_frozen`` says whether it did.
    """
    staged = folder / f"{FREEZE}.new"
    staged.write_text(pattern)
    staged.replace(folder / FREEZE)


def has_frozen(folder: Path) -> bool:
    """Whether the server of a folder froze as ``freeze_after`` told it to."""
    return not (folder / FREEZE).exists()


@dataclass(frozen=True)
class PlannedFreeze:
    """A listener of SQLAlchemy that freezes the process after the statement that the file in a folder describes."""

    file: Path

    def __call__(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        """Look at a statement that was executed just now."""
        try:
            pattern = self.file.read_text()
        except FileNotFoundError:
            return
        if re.search(pattern, statement, re.IGNORECASE | re.DOTALL):
            self.file.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)


@dataclass
class PlannedActs:
    """Does what the plan in a folder says; each plan is a new file, and its passings are counted from 1."""

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
    """A server in a folder, started anew after each of its deaths; ``url`` changes with every start.

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
        """Whether it runs."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start it without waiting for more than the process."""
        log = self.folder / f"server-{len(self.logs)}.log"
        log.write_bytes(b"")
        self.logs.append(log)
        self._process = forking().Process(
            target=serve_armed, args=(self.folder, log, dict(self.environment), self.arguments), daemon=True
        )
        self._process.start()

    def wait_until_listening(self, *, seconds: float = 30) -> None:
        """Return once it answers."""

        def listens() -> bool:
            assert self._require().is_alive(), self.logs[-1].read_text()
            found = LISTENING.search(self.logs[-1].read_text())
            self.url = found[1] if found else self.url
            return found is not None and self._answers()

        wait_until(listens, seconds=seconds, what="the start of the server")

    def wait_until_dead(self, *, seconds: float = 30) -> int | None:
        """Return its exit code, which is negative for a signal's number; None where it lives on."""
        self._require().join(seconds)
        return self._require().exitcode

    def kill(self) -> None:
        """End it at once (SIGKILL), if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def freeze(self) -> None:
        """Halt it (SIGSTOP)."""
        os.kill(self.process_id, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.process_id, signal.SIGCONT)

    def client(self, api_key: str | None = None, *, timeout: float = 60) -> httpx2.Client:
        """An HTTP client of the process that runs now."""
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
    """A server that listens, of which no process is left in the end."""
    server = FaultyServer(folder, environment)
    try:
        server.start()
        server.wait_until_listening()
        yield server
    finally:
        server.kill()


def serve_armed(folder: Path, log: Path, environment: Mapping[str, str], arguments: Sequence[str]) -> None:
    """Be the server: what runs in the process of its own."""
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
