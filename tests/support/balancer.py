"""A real load balancer in front of several servers: HAProxy, round robin."""

import os
import shutil
import subprocess
from collections.abc import Sequence

import httpx2

from tests.support.debian import find_or_install
from tests.support.private_server import PrivateServer, free_port, log_of

START_SECONDS = 60.0
_DEBIAN_PACKAGE = "haproxy"
CONFIGURATION = """
global
    maxconn 4000
defaults
    mode http
    balance roundrobin
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout check 2s
    # A request goes to another server only if no connection could be made.
    retries 3
    option redispatch
    option forwardfor
    option httpchk GET /healthz
    default-server check inter 250ms fall 2 rise 1
"""
LISTENER = """
listen {name}
    bind 127.0.0.1:{port}
{options}
{servers}
"""


class BalancerError(Exception):
    """HAProxy is missing or does not start. The message says how to fix it."""


class LoadBalancer(PrivateServer):
    """HAProxy with two addresses for the same servers.

    ``url`` has ``option abortonclose``: when a client hangs up, HAProxy closes its connection to the server too. Behind
    ``patient_url`` the server does not notice, and responds to no client.
    """

    error = BalancerError

    def __init__(self, servers: Sequence[str]) -> None:
        """Balance over the servers with these URLs."""
        super().__init__()
        self.servers = servers
        self.patient_port = free_port()

    @property
    def url(self) -> str:
        """The address that passes a client's hang-up to the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def patient_url(self) -> str:
        """The address that hides a client's hang-up from the server."""
        return f"http://127.0.0.1:{self.patient_port}"

    def start(self) -> None:
        """Start, and wait until both addresses forward requests."""
        self.close()
        folder = self._make_folder()
        configuration = folder / "haproxy.cfg"
        configuration.write_text(self._configuration())
        with log_of(folder).open("ab") as log:
            process = subprocess.Popen(
                [ensure_haproxy(), "-db", "-f", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._run(process, folder, answers=self._answers, seconds=START_SECONDS)

    def _configuration(self) -> str:
        lines = [f"    server s{index} {url.removeprefix('http://')}" for index, url in enumerate(self.servers)]
        servers = "\n".join(lines)
        both = [("aborting", self.port, "    option abortonclose"), ("patient", self.patient_port, "")]
        listeners = [
            LISTENER.format(name=name, port=port, options=options, servers=servers) for name, port, options in both
        ]
        return "".join([CONFIGURATION, *listeners])

    def _answers(self) -> bool:
        try:
            return all(httpx2.get(f"{url}/healthz").is_success for url in (self.url, self.patient_url))
        except httpx2.TransportError:
            return False


def ensure_haproxy() -> str:
    """Return the path of HAProxy, installing Debian's package if needed and allowed.

    Raise ``BalancerError`` with install instructions if it cannot be found or installed.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    program = find_or_install(_DEBIAN_PACKAGE, lambda: shutil.which("haproxy", path=path))
    if program is None:
        message = f"HAProxy is not installed: install {_DEBIAN_PACKAGE} (Debian, Ubuntu)."
        raise BalancerError(message)
    return program
