"""The request log: exactly two lines for every request.

START is written when the request reaches its endpoint (the app-wide dependency ``log_request``), starts to
read its body, or gets a response without either, whichever comes first. END follows the last byte, a disconnect
or a crash. Both name the endpoint's function and line.
"""

import inspect
import logging
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixyproxy.core.logs import current_client_address, current_request_id

logger = logging.getLogger(__name__)

SCOPE_KEY = "pixyproxy.request_log"
REQUEST_ID_HEADER = "X-Request-ID"
HOST = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
MICROSECOND = timedelta(microseconds=1)


class RequestIds:
    """Generate ids of host, date and time, and native thread id; each is later than the last, hence unique."""

    def __init__(self) -> None:
        self._last = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.Lock()

    def new(self) -> str:
        """Return an id such as ``web1-20261121T091502.123456-14023``."""
        with self._lock:
            self._last = moment = max(datetime.now(UTC), self._last + MICROSECOND)
        return f"{HOST}-{moment:%Y%m%dT%H%M%S.%f}-{threading.get_native_id()}"


request_ids = RequestIds()


@dataclass
class RequestLog:
    """The two lines of one request."""

    scope: Scope
    unrouted: Callable[..., Any]
    started: bool = False

    def start(self) -> None:
        """Write START on the first call."""
        if not self.started:
            self.started = True
            self._write("REQUEST START")

    def end(self) -> None:
        """Write END, after START if it is not yet written."""
        self.start()
        self._write("REQUEST END")

    def _write(self, message: str) -> None:
        endpoint = inspect.unwrap(self.scope.get("endpoint") or self.unrouted)
        code = endpoint.__code__
        record = logger.makeRecord(
            logger.name, logging.INFO, code.co_filename, code.co_firstlineno, message, (), None, code.co_name
        )
        if logger.isEnabledFor(logging.INFO):
            logger.handle(record)


async def log_request(request: Request) -> None:
    """Log that the request has reached its endpoint; an app-wide dependency."""
    request.scope[SCOPE_KEY].start()


@dataclass(frozen=True)
class RequestLogMiddleware:
    """Give each request an id and its log; ``unrouted`` replaces the endpoint of a request without one."""

    app: ASGIApp
    unrouted: Callable[..., Any]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on between its two log lines."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_ids.new()
        token = current_request_id.set(request_id)
        client = scope.get("client")
        address = current_client_address.set(client[0] if client else None)
        log = scope[SCOPE_KEY] = RequestLog(scope, self.unrouted)

        async def receive_logged() -> Message:
            log.start()
            return await receive()

        async def send_with_id(message: Message) -> None:
            log.start()
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive_logged, send_with_id)
        finally:
            log.end()
            current_client_address.reset(address)
            current_request_id.reset(token)
