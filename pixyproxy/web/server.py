"""The HTTP server around the application."""

import contextlib
import math
import signal
import socket
from ipaddress import IPv4Network, ip_network

import uvicorn
from uvicorn.supervisors import Multiprocess

from pixyproxy.core.settings import Settings
from pixyproxy.web.app import create_app


def server_config(settings: Settings, *, host: str, port: int, workers: int = 1) -> uvicorn.Config:
    """How uvicorn runs PixyProxy.

    ``h11`` bounds headers to 64 KB, where httptools took 8 MB and kept a half-sent header open (uvicorn
    0.54). Several workers load the application by name, each for itself. What a client writes of its own address is
    believed of nobody but ``trusted_proxies``, of whom the last one that is none of them counts.
    """
    return uvicorn.Config(
        create_app(settings) if workers == 1 else "pixyproxy.main:app",
        host=host,
        port=port,
        workers=workers,
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=_as_connected(settings.trusted_proxies),
        limit_concurrency=settings.max_connections,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
        timeout_keep_alive=75,
    )


def serve_http(settings: Settings, *, host: str, port: int, workers: int) -> None:
    """Serve until a signal stops it; what is under way is finished first."""
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


def _as_connected(networks: tuple[str, ...]) -> list[str]:
    """The networks, and those of IPv4 as a socket for both kinds of address shows them: ``::ffff:10.0.0.0/104``."""
    four = [network for network in map(ip_network, networks) if isinstance(network, IPv4Network)]
    return [*networks, *(f"::ffff:{network.network_address}/{96 + network.prefixlen}" for network in four)]
