"""The HTTP server around the application."""

import contextlib
import functools
import logging
import math
import resource
import signal
import socket
from ipaddress import IPv4Network, ip_network
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from pixyproxy.core.settings import Settings
from pixyproxy.web.app import create_app
from pixyproxy.web.server.connections import Connections
from pixyproxy.web.server.worker import create_worker_app, create_worker_protocol

logger = logging.getLogger(__name__)

ANY_ADDRESS = {"", "0.0.0.0", "::"}  # noqa: S104  (compared, not bound)
MOST_HEAD_BYTES = 64 * 1024
"""Of an incomplete request line and headers."""
FILES_OF_CONNECTION = 2
"""The client's connection, and the upstream's for its request."""
OTHER_FILES = 768
"""Databases, pictures, logs and spare connections."""


def server_config(
    settings: Settings, *, host: str, port: int, workers: int = 1, executes: bool = True
) -> uvicorn.Config:
    """Return uvicorn's configuration for a known port.

    ``h11`` limits headers, where httptools accepted 8 MB (uvicorn 0.54), and ``BoundedProtocol`` limits how long
    clients may stall. Each of several workers creates its own application and connections. Forwarded addresses are
    only accepted from ``trusted_proxies``; the last address that is not a trusted proxy counts.
    """
    url = local_url(host, port)
    # uvicorn expects a class and calls it for each connection.
    protocol: Any = connections_of(settings) if workers == 1 else create_worker_protocol
    return uvicorn.Config(
        create_app(settings, local_url=url, executes=executes)
        if workers == 1
        else functools.partial(create_worker_app, url, executes=executes),
        factory=workers > 1,
        host=host,
        port=port,
        workers=workers,
        http=protocol,
        h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=_as_connected(settings.trusted_proxies),
        timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
        timeout_keep_alive=75,
    )


def connections_of(settings: Settings) -> Connections:
    """Return the connections of this process, which create uvicorn's protocols."""
    most = _most_connections(settings.max_connections)
    return Connections(most, trusted=tuple(map(ip_network, settings.trusted_proxies)))


def serve_http(settings: Settings, *, host: str, port: int, workers: int, executes: bool = True) -> None:
    """Serve until a signal stops the process; running requests are finished first.

    Exit with a non-zero status if the address cannot be bound or the application fails.
    """
    _allow_files(settings.max_connections)
    listening = uvicorn.Config("", host=host, port=port, log_config=None).bind_socket()
    # asyncio only does this for its own sockets. Without it a response in two pieces takes 40 ms: the second waits
    # until the client acknowledges the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = server_config(settings, host=host, port=listening.getsockname()[1], workers=workers, executes=executes)
    if workers > 1:
        Multiprocess(config, sockets=[listening]).run()
        return
    # uvicorn raises the stop signal again after shutdown; a requested stop is not a failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    if server.lifespan.should_exit:
        raise SystemExit(1)


def local_url(host: str, port: int) -> str:
    """Return the URL of a server bound to this host, as reachable from this machine."""
    if host in ANY_ADDRESS:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _allow_files(most_connections: int) -> None:
    """Raise the limit on open files to what this many connections need, up to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most_connections * FILES_OF_CONNECTION + OTHER_FILES
    if soft < wanted:
        possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))


def _most_connections(wanted: int) -> int:
    """Return the wanted number of connections, or fewer if the limit on open files is too low."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = max(1, (files - OTHER_FILES) // FILES_OF_CONNECTION)
    if possible < wanted:
        logger.warning("the limit of %d open files allows only %d connections; raise it (ulimit -n)", files, possible)
    return min(wanted, possible)


def _as_connected(networks: tuple[str, ...]) -> list[str]:
    """Return the networks, and IPv4 networks as a dual-stack socket shows them: ``::ffff:10.0.0.0/104``."""
    four = [network for network in map(ip_network, networks) if isinstance(network, IPv4Network)]
    return [*networks, *(f"::ffff:{network.network_address}/{96 + network.prefixlen}" for network in four)]
