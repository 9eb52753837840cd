"""The application of a worker process. This module imports nothing else, so that workers respond quickly."""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pixyproxy.web.server.connections import BoundedProtocol, Connections


def create_worker_app(local_url: str, *, executes: bool = True) -> "FastAPI":
    """Return the application of a process that serves at ``local_url``, with settings from its environment.

    The supervisor takes a process for dead if it does not respond within 5 s of its start (uvicorn 0.54). It responds
    once this function is loaded; on a busy machine the modules below take longer than that to load.
    """
    from pixyproxy.core.logs import configure_logging  # noqa: PLC0415  (see above)
    from pixyproxy.core.settings import Settings  # noqa: PLC0415  (likewise)
    from pixyproxy.web.app import create_app  # noqa: PLC0415  (likewise)

    settings = Settings.from_environment()
    configure_logging(log_format=settings.log_format, level=settings.log_level)
    return create_app(settings, local_url=local_url, executes=executes)


def create_worker_protocol(**of_uvicorn: Any) -> "BoundedProtocol":  # noqa: ANN401  (uvicorn's own arguments)
    """Return the protocol for a new connection of this process."""
    return _connections()(**of_uvicorn)


@cache
def _connections() -> "Connections":
    from pixyproxy.core.settings import Settings  # noqa: PLC0415  (see above)
    from pixyproxy.web.server.uvicorn_server import connections_of  # noqa: PLC0415  (likewise)

    return connections_of(Settings.from_environment())
