"""The HTTP server around the application."""

import contextlib
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
from pixyproxy.web.connections import Connections

logger = logging.getLogger(__name__)

MOST_HEAD_BYTES = 64 * 1024
"""Of a request line and headers that are not complete yet."""
FILES_OF_CONNECTION = 2
"""The client's, and the upstream's for a request that waits for it."""
OTHER_FILES = 768
"""Databases, pictures, logs, and spare connections."""


def server_config(settings: Settings, *, host: str, port: int, workers: int = 1) -> uvicorn.Config:
    """How uvicorn runs PixyProxy.

    ``h11`` bounds headers, where httptools took 8 MB (uvicorn 0.54), and ``BoundedProtocol`` bounds how long clients
    may stall. Several workers load the application by name, each for itself. What a client writes of its own address
    is believed of nobody but ``trusted_proxies``, of whom the last one that is none of them counts.
    """
    # For uvicorn it is a class, which it calls for each connection.
    protocols: Any = connections_of(settings) if workers == 1 else "pixyproxy.main:connections"
    return uvicorn.Config(
        create_app(settings) if workers == 1 else "pixyproxy.main:app",
        host=host,
        port=port,
        workers=workers,
        http=protocols,
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
    """Return what makes uvicorn's protocols, and counts the connections of this process."""
    most = _most_connections(settings.max_connections)
    return Connections(most, trusted=tuple(map(ip_network, settings.trusted_proxies)))


def serve_http(settings: Settings, *, host: str, port: int, workers: int) -> None:
    """Serve until a signal stops it; what is under way is finished first."""
    _allow_files(settings.max_connections)
    config = server_config(settings, host=host, port=port, workers=workers)
    if workers == 1:
        # uvicorn raises the signal that stopped it once more when all is done; a stop that was asked for is no failure.
        signal.signal(signal.SIGTERM, lambda *_: None)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run()
        return
    listening = config.bind_socket()
    # asyncio sees to that for sockets of its own only. Without it an answer in two pieces takes 40 ms: the second
    # waits until the client acknowledges the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Multiprocess(config, sockets=[listening]).run()


def _allow_files(most_connections: int) -> None:
    """Raise this process's limit of open files to what so many connections need, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most_connections * FILES_OF_CONNECTION + OTHER_FILES
    if soft < wanted:
        possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))


def _most_connections(wanted: int) -> int:
    """Return as many connections as open files are allowed for, at most those wanted."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = max(1, (files - OTHER_FILES) // FILES_OF_CONNECTION)
    if possible < wanted:
        logger.warning("%d open files are allowed: only %d connections are held (ulimit -n)", files, possible)
    return min(wanted, possible)


def _as_connected(networks: tuple[str, ...]) -> list[str]:
    """The networks, and those of IPv4 as a socket for both kinds of address shows them: ``::ffff:10.0.0.0/104``."""
    four = [network for network in map(ip_network, networks) if isinstance(network, IPv4Network)]
    return [*networks, *(f"::ffff:{network.network_address}/{96 + network.prefixlen}" for network in four)]
