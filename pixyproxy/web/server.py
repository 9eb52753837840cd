"""The HTTP server around the application."""

import contextlib
import functools
import math
import signal
import socket
from ipaddress import IPv4Network, ip_network

import uvicorn
from uvicorn.supervisors import Multiprocess

from pixyproxy.core.settings import Settings
from pixyproxy.web.app import create_app
from pixyproxy.web.worker import create_worker_app

ANY_ADDRESS = {"", "0.0.0.0", "::"}  # noqa: S104  (they are recognized, not listened on)


def server_config(settings: Settings, *, host: str, port: int, workers: int = 1) -> uvicorn.Config:
    """How uvicorn runs PixyProxy at a port that is known.

    ``h11`` bounds headers to 64 KB, where httptools took 8 MB and kept a half-sent header open (uvicorn
    0.54). Several workers make the application each for itself. What a client writes of its own address is
    believed of nobody but ``trusted_proxies``, of whom the last one that is none of them counts.
    """
    url = local_url(host, port)
    return uvicorn.Config(
        create_app(settings, local_url=url) if workers == 1 else functools.partial(create_worker_app, url),
        factory=workers > 1,
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
    """Serve until a signal stops it; what is under way is finished first.

    Exits with a status that is not 0 if the address cannot be used, or if the application has failed.
    """
    listening = uvicorn.Config("", host=host, port=port, log_config=None).bind_socket()
    # asyncio does this for its own sockets only. Without it an answer in two pieces takes 40 ms: the second waits until
    # the client acknowledges the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = server_config(settings, host=host, port=listening.getsockname()[1], workers=workers)
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


def _as_connected(networks: tuple[str, ...]) -> list[str]:
    """The networks, and those of IPv4 as a socket for both kinds of address shows them: ``::ffff:10.0.0.0/104``."""
    four = [network for network in map(ip_network, networks) if isinstance(network, IPv4Network)]
    return [*networks, *(f"::ffff:{network.network_address}/{96 + network.prefixlen}" for network in four)]
