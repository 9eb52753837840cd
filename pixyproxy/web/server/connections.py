"""Client connections: stall deadlines, limits per address, and spare connections for ``/healthz``.

uvicorn (0.54) closes connections that are idle between requests. It waits forever for a first request, the rest of
a head or body, and a client that does not read.
"""

import logging
import math
import socket
import struct
import sys
from asyncio import Transport
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from pixyproxy.core.logs import current_request_id
from pixyproxy.web.errors.handler import FRAMEWORK_CODES
from pixyproxy.web.errors.problem import Problem, problem_response
from pixyproxy.web.middleware.request_log import REQUEST_ID_HEADER, request_ids
from pixyproxy.web.middleware.response_headers import CREDENTIAL_HEADERS
from pixyproxy.web.rate_limits.addresses import network_of, parse_address

logger = logging.getLogger(__name__)

SPARE_CONNECTION = "pixyproxy.spare_connection"
"""In the ``state`` of a request's scope: the connection is over a limit and may only request ``/healthz``."""
SHARE = 4
"""One address may hold one in this many connections."""
TCP_INFO_BYTES_ACKED = slice(120, 128)
"""``tcpi_bytes_acked`` in Linux's ``struct tcp_info`` (4.1): bytes that the peer has acknowledged."""
LINGER_NOT = struct.pack("ii", 1, 0)
"""``struct linger``: on, for 0 s."""
TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
NOT_HTTP = ("malformed_request", "The request is not valid HTTP/1.1 (RFC 9112). Correct the client.")


class Debt(Enum):
    """What the client must do before the server can continue."""

    HEAD = "send a request"
    BODY = "send the rest of a body"
    DISCARDED = "send the rest of a refused request"
    READING = "read the response"


@dataclass(frozen=True)
class Deadlines:
    """Deadlines for clients that stall.

    A connection is checked every ``check_seconds``, and closed if the client owes the same thing at two consecutive
    checks and has moved fewer than ``bytes_per_second`` between them. So a client has one to two times
    ``check_seconds``. A head must be complete by then, and so must a body that is discarded.
    """

    check_seconds: float = 15
    spare_seconds: float = 3
    """A connection over a limit is closed after this time unless its request is in progress."""
    bytes_per_second: int = 1024

    def least_bytes(self, debt: Debt) -> float:
        """Return the minimum number of bytes between two checks."""
        if debt in {Debt.BODY, Debt.READING}:
            return self.check_seconds * self.bytes_per_second
        return math.inf


@dataclass
class Connections:
    """The connections of one process: ``most`` in total, and a quarter of that for one address.

    IPv6 addresses count by /64, as for rate limits. Clients behind a proxy share its address, so the per-address limit
    does not apply to ``trusted`` networks. Connections over a limit are spare: they may only request ``/healthz``.
    There are at most ``most_spare`` of them; a new one replaces the oldest.
    """

    most: int
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()
    most_spare: int = 256
    deadlines: Deadlines = field(default_factory=Deadlines)
    held: dict["BoundedProtocol", str | None] = field(default_factory=dict)
    held_of: Counter[str] = field(default_factory=Counter)
    spare: dict["BoundedProtocol", None] = field(default_factory=dict)

    def __call__(self, **of_uvicorn: Any) -> "BoundedProtocol":  # noqa: ANN401  (uvicorn's own arguments)
        """Return the protocol for a new connection; called by uvicorn."""
        return BoundedProtocol(self, **of_uvicorn)

    def admit(self, connection: "BoundedProtocol", host: str | None) -> bool:
        """Count a new connection; return whether it is within the limits."""
        network = None if host is None or self._is_trusted(host) else network_of(host)
        within_share = network is None or self.held_of[network] < max(1, self.most // SHARE)
        if len(self.held) < self.most and within_share:
            self.held[connection] = network
            if network is not None:
                self.held_of[network] += 1
            return True
        self.spare[connection] = None
        if len(self.spare) > self.most_spare:
            next(iter(self.spare)).transport.abort()
        return False

    def release(self, connection: "BoundedProtocol") -> None:
        """Remove a closed connection."""
        self.spare.pop(connection, None)
        network = self.held.pop(connection, None)
        if network is not None:
            self.held_of[network] -= 1
            if not self.held_of[network]:
                del self.held_of[network]

    def _is_trusted(self, host: str) -> bool:
        address = parse_address(host)
        return address is not None and any(address in network for network in self.trusted)


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with client deadlines and connection counts."""

    def __init__(self, connections: Connections, **of_uvicorn: Any) -> None:  # noqa: ANN401  (uvicorn's own arguments)
        super().__init__(**of_uvicorn)
        self.account = connections
        self.is_spare = False
        self.is_discarding = False
        """The client got its last response; further input is discarded."""
        self.received_bytes = 0
        self.last_check: tuple[Debt | None, object, int] = (None, None, 0)

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """Count the connection and start to check it."""
        super().connection_made(transport)
        self.is_spare = not self.account.admit(self, self.client[0] if self.client else None)
        if self.is_spare:
            self.app_state = {**self.app_state, SPARE_CONNECTION: True}
        self.check_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection."""
        self.check_timer.cancel()
        self.account.release(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count received bytes."""
        self.received_bytes += len(data)
        if not self.is_discarding:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's message, which it has logged)
        """Respond to invalid HTTP with problem JSON and a request id that is also logged."""
        if self.cycle is not None:
            # Stop the request whose body is malformed.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            # A started response cannot be replaced.
            self.transport.close()
            return
        request_id = request_ids.new()
        token = current_request_id.set(request_id)
        problem = self._problem(sys.exception())
        logger.warning("responded with %d %s", problem.status, problem.code)
        answer = problem_response(problem)
        current_request_id.reset(token)
        own = [
            (REQUEST_ID_HEADER.encode(), request_id.encode()),
            (b"connection", b"close"),
            (b"cache-control", b"no-store"),
            (b"vary", CREDENTIAL_HEADERS.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        headers = [*self.server_state.default_headers, *answer.raw_headers, *own]
        reason = HTTPStatus(problem.status).phrase.encode()
        for event in (
            h11.Response(status_code=problem.status, headers=headers, reason=reason),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        # Closing with unread input would reset the connection, and the client might not get the response.
        self.transport.write_eof()
        self.is_discarding = True

    def _problem(self, error: BaseException | None) -> Problem:
        """Return the problem for a request that h11 could not parse."""
        if not isinstance(error, h11.RemoteProtocolError) or error.error_status_hint != TOO_LARGE:
            return Problem(HTTPStatus.BAD_REQUEST, *NOT_HTTP, {}, {})
        head, _ = self.conn.trailing_data
        line_is_most = len(head.partition(b"\n")[0]) > len(head) / 2
        status = HTTPStatus.REQUEST_URI_TOO_LONG if line_is_most else TOO_LARGE
        return Problem(status, *FRAMEWORK_CODES[status], {}, {})

    def check_later(self) -> None:
        """Schedule the next check."""
        deadlines = self.account.deadlines
        seconds = deadlines.spare_seconds if self.is_spare else deadlines.check_seconds
        self.check_timer = self.loop.call_later(seconds, self.check)

    def check(self) -> None:
        """Close the connection if the client stalls."""
        debt = self._debt()
        moved = self._acknowledged_bytes() if debt is Debt.READING else self.received_bytes
        before = self.last_check
        self.last_check = debt, self.cycle, moved
        if debt is not None and (
            self.is_spare
            or (before[:2] == (debt, self.cycle) and moved - before[2] < self.account.deadlines.least_bytes(debt))
        ):
            logger.info("closed a connection whose client did not %s", debt.value)
            if debt is Debt.READING:
                self._forget_what_is_unread()
            self.transport.abort()
        else:
            self.check_later()

    def _debt(self) -> Debt | None:
        """Return what the client must do, or None if it is the server's turn."""
        if self.transport.get_write_buffer_size():
            return Debt.READING
        if self.is_discarding:
            return Debt.DISCARDED
        if self.conn.their_state is h11.SEND_BODY:
            if self.conn.our_state is h11.DONE:
                return Debt.DISCARDED
            waits_for_us = self.flow.read_paused or self.cycle.waiting_for_100_continue or self.cycle.body
            return None if waits_for_us else Debt.BODY
        if self.conn.their_state is h11.IDLE and not self._is_kept_alive():
            return Debt.HEAD
        return None

    def _is_kept_alive(self) -> bool:
        """Return whether the connection is idle between two requests, within uvicorn's keep-alive timer."""
        head_begun = bool(self.conn.trailing_data[0])
        return self.cycle is not None and not head_begun and self.timeout_keep_alive_task is not None

    def _forget_what_is_unread(self) -> None:
        """Make the kernel reset the connection instead of holding megabytes for minutes and offering them."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)

    def _acknowledged_bytes(self) -> int:
        """Return the bytes the client has acknowledged, or the unsent bytes as a negative number without TCP_INFO.

        The kernel frees its buffer in steps of up to a megabyte, which take a slow client minutes.
        """
        connection = self.transport.get_extra_info("socket")
        try:
            found = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES_ACKED.stop)
        except (AttributeError, OSError):
            found = b""
        return int.from_bytes(found[TCP_INFO_BYTES_ACKED], sys.byteorder) or -self.transport.get_write_buffer_size()
