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

ANY_ADDRESS = {"", "0.0.0.0", "::"}  # noqa: S104  (they are recognized, not listened on)
MOST_HEAD_BYTES = 64 * 1024
"""Of a request line and headers that are not complete yet."""
FILES_OF_CONNECTION = 2
"""The client's, and the upstream's for a request that waits for it."""
OTHER_FILES = 768
"""Databases, pictures, logs, and spare connections."""


def server_config(
    settings: Settings, *, host: str, port: int, workers: int = 1, executes: bool = True
) -> uvicorn.Config:
    """How uvicorn runs PixyProxy at a port that is known.

    ``h11`` bounds headers, where httptools took 8 MB (uvicorn 0.54), and ``BoundedProtocol`` bounds how long clients
    may stall. Several workers make application and connections each for itself. What a client writes of its own
    address is believed of nobody but ``trusted_proxies``, of whom the last one that is none of them counts.
    """
    url = local_url(host, port)
    # For uvicorn it is a class, which it calls for each connection.
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
    """Return what makes uvicorn's protocols, and counts the connections of this process."""
    most = _most_connections(settings.max_connections)
    return Connections(most, trusted=tuple(map(ip_network, settings.trusted_proxies)))


def serve_http(settings: Settings, *, host: str, port: int, workers: int, executes: bool = True) -> None:
    """Serve until a signal stops it; what is under way is finished first.

    Exits with a status that is not 0 if the address cannot be used, or if the application has failed.
    """
    _allow_files(settings.max_connections)
    listening = uvicorn.Config("", host=host, port=port, log_config=None).bind_socket()
    # asyncio does this for its own sockets only. Without it an answer in two pieces takes 40 ms: the second waits until
    # the client acknowledges the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = server_config(settings, host=host, port=listening.getsockname()[1], workers=workers, executes=executes)
    if workers > 1:
        Multiprocess(config, sockets=[listening]).run()
        return
    # uvicorn raises the signal that stopped it once more when all is done; a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    if server.lifespan.should_exit:
        raise SystemExit(1)


def local_url(host: str, port: int) -> str:
    """Return the URL of a server that listens there, as this machine reaches it."""
    if host in ANY_ADDRESS:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
