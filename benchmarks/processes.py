"""The measured processes: PixyProxy, a peer and the upstream. Each is stopped at the end of its block."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parent.parent
# Do not resolve the link: the environment's python links to one outside of it.
PIXYPROXY = Path(sys.executable).parent / "pixyproxy"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.002
LOG_TAIL = 2_000


class BenchmarkError(Exception):
    """A step failed, so its figures would be meaningless."""


@dataclass(frozen=True)
class Server:
    """A running process that serves HTTP on loopback."""

    process: "subprocess.Popen[bytes]"
    port: int
    start_seconds: float = 0.0
    """Seconds from exec to the first 200 of its health check."""

    def resident_megabytes(self) -> float:
        """Return the process's resident memory (VmRSS) in units of 10^6 bytes."""
        return self._megabytes("VmRSS:")

    def peak_megabytes(self) -> float:
        """Return the process's peak resident memory (VmHWM) in units of 10^6 bytes."""
        return self._megabytes("VmHWM:")

    def _megabytes(self, name: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        kibibytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name))
        return kibibytes * 1024 / 1e6


@dataclass(frozen=True)
class Installation:
    """A PixyProxy with its own folder and settings, isolated from the caller's environment."""

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
        """Serve in one process, from its first 200 on; its log goes to a file, as under a supervisor."""
        command = [str(PIXYPROXY), "serve", "--host", HOST]
        with serving(command, self.folder, self._environment(), health="/healthz") as server:
            yield server

    def _environment(self) -> dict[str, str]:
        return {
            **bare_environment(self.folder),
            "PIXYPROXY_DATA_DIR": str(self.folder / "var"),
            "PIXYPROXY_IMAGES": str(self.folder / "images"),
            **self.settings,
        }


def bare_environment(home: Path) -> dict[str, str]:
    """Return the environment of a process whose working directory is ``home``.

    An empty working directory has no .env; a short environment has no settings and no HTTP proxy.
    """
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home)}


@contextlib.contextmanager
def serving(command: Sequence[str], folder: Path, environment: Mapping[str, str], *, health: str) -> Iterator[Server]:
    """Run the command with a free ``--port``, from the first 200 of its path ``health`` on."""
    port = _free_port()
    log = folder / "serve.log"
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    with _ended(process):
        _wait_until_healthy(process, port, path=health, log=log)
        yield Server(process, port, start_seconds=time.perf_counter() - began)


@contextlib.contextmanager
def fake_upstream(*, picture_bytes: int, delay_seconds: float = 0.0) -> Iterator[Server]:
    """Serve the tests' upstream, which returns one picture in base64 after ``delay_seconds``."""
    command = [sys.executable, "-m", "tests.support.upstream", "--picture-bytes", str(picture_bytes)]
    command += ["--delay", str(delay_seconds)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with _ended(process):
        base_url = process.stdout.readline().decode().strip() if process.stdout else ""
        if not base_url:
            message = "The fake upstream did not start."
            raise BenchmarkError(message)
        yield Server(process, int(base_url.removesuffix("/v1").rpartition(":")[2]))


@contextlib.contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Stop the process at the end of the block: by SIGTERM, then by SIGKILL if it does not stop in time."""
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


def _wait_until_healthy(process: "subprocess.Popen[bytes]", port: int, *, path: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_healthy(port, path):
        if process.poll() is not None or time.monotonic() > deadline:
            message = f"The process did not become healthy: {log.read_text(errors='replace')[-LOG_TAIL:]}"
            raise BenchmarkError(message)
        time.sleep(POLL_SECONDS)


def _is_healthy(port: int, path: str) -> bool:
    connection = HTTPConnection(HOST, port, timeout=START_SECONDS)
    try:
        connection.request("GET", path)
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
