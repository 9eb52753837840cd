"""The HTTP server around the application."""

import contextlib
import math
import signal

import uvicorn
from uvicorn.supervisors import Multiprocess

from pixyproxy.core.settings import Settings
from pixyproxy.web.app import create_app


def server_config(settings: Settings, *, host: str, port: int, workers: int = 1) -> uvicorn.Config:
    """How uvicorn runs PixyProxy.

    ``h11`` bounds headers to 64 KB, where httptools took 8 MB and kept a half-sent header open (uvicorn
    0.54). Several workers load the application by name, each for itself.
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
    Multiprocess(config, sockets=[config.bind_socket()]).run()
