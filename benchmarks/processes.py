"""The processes that are measured: PixyProxy's and the upstream's. Each ends with the block that started it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parent.parent
# Not resolved: the environment's python is a link to one outside of it.
PIXYPROXY = Path(sys.executable).parent / "pixyproxy"
START_SECONDS = 30.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.002
LOG_TAIL = 2_000


class BenchmarkError(Exception):
    """Something did not work, so that its figures would mean nothing."""


@dataclass(frozen=True)
class Server:
    """A running process that serves HTTP on loopback."""

    process: "subprocess.Popen[bytes]"
    port: int
    start_seconds: float = 0.0
    """From exec to the first 200 of /healthz."""

    def resident_megabytes(self) -> float:
        """The process's resident memory (VmRSS) in units of 10^6 bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        kibibytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        return kibibytes * 1024 / 1e6


@dataclass(frozen=True)
class Installation:
    """A PixyProxy with a folder and settings of its own; nothing of the caller's environment reaches it."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def bootstrap(self) -> str:
        """Migrate, and return a new administrator's API key."""
        finished = subprocess.run(
            [PIXYPROXY, "bootstrap", "--json"],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            check=False,
            timeout=START_SECONDS,
        )
        if finished.returncode:
            message = f"bootstrap failed: {finished.stderr.decode(errors='replace')[-LOG_TAIL:]}"
            raise BenchmarkError(message)
        return str(json.loads(finished.stdout)["api_key"])

    @contextlib.contextmanager
    def serve(self) -> Iterator[Server]:
        """One serving process, from its first 200 on; its log goes to a file, as a supervisor's would."""
        port = _free_port()
        log = self.folder / "serve.log"
        with log.open("wb") as output:
            began = time.perf_counter()
            process = subprocess.Popen(
                [PIXYPROXY, "serve", "--host", HOST, "--port", str(port)],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        with _ended(process):
            _wait_until_healthy(process, port, log=log)
            yield Server(process, port, start_seconds=time.perf_counter() - began)

    def _environment(self) -> dict[str, str]:
        # An empty folder as cwd has no .env; a short environment has no settings and no HTTP proxy in it.
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "PIXYPROXY_DATA_DIR": str(self.folder / "var"),
            "PIXYPROXY_IMAGES": str(self.folder / "images"),
            **self.settings,
        }


@contextlib.contextmanager
def fake_upstream(*, picture_bytes: int) -> Iterator[Server]:
    """The tests' upstream, which answers at once with one picture in base64."""
    command = [sys.executable, "-m", "tests.support.upstream", "--picture-bytes", str(picture_bytes)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with _ended(process):
        base_url = process.stdout.readline().decode().strip() if process.stdout else ""
        if not base_url:
            message = "the fake upstream did not start"
            raise BenchmarkError(message)
        yield Server(process, int(base_url.removesuffix("/v1").rpartition(":")[2]))


@contextlib.contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End the process with the block: in order if it heeds that, else at once."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _wait_until_healthy(process: "subprocess.Popen[bytes]", port: int, *, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_healthy(port):
        if process.poll() is not None or time.monotonic() > deadline:
            message = f"PixyProxy did not start: {log.read_text(errors='replace')[-LOG_TAIL:]}"
            raise BenchmarkError(message)
        time.sleep(POLL_SECONDS)


def _is_healthy(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=START_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200  # noqa: PLR2004  (HTTP's OK)
    except OSError:
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
