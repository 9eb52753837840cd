"""One client's connection: HTTP/1.1 requests read from its socket, and bytes sent without copying."""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass

_PIECE = 65_536


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """A request as it arrived; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    is_last: bool
    """Whether the client wants the connection closed after the response."""


class Connection:
    """A connection that reads and writes in the event loop, so that thousands need no threads."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over an accepted non-blocking socket."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._unread = bytearray()
        self.is_open = True

    async def read_request(self) -> HttpRequest | None:
        """Return the next request, or `None` at the end.

        Raise `ConnectionError` if the connection ends within a request.
        """
        head = await self._read_until(b"\r\n\r\n")
        if not head:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, version = first.split(" ")
        fields = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        if headers.get("expect", "").lower() == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = await self._read_chunks()
        else:
            body = await self._read_exactly(int(headers.get("content-length", 0)))
        is_last = headers.get("connection", "").lower() == "close" or version == "HTTP/1.0"
        return HttpRequest(method=method, path=path, headers=headers, body=body, is_last=is_last)

    async def send(self, *parts: bytes) -> None:
        """Send all parts: small ones joined, large ones uncopied."""
        small: list[bytes] = []
        for part in parts:
            if len(part) < _PIECE:
                small.append(part)
                continue
            await self._flush(small)
            await self._loop.sock_sendall(self._socket, part)
        await self._flush(small)

    def close(self) -> None:
        """Close at once; nothing more is read or sent."""
        if self.is_open:
            self.is_open = False
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    async def _flush(self, small: list[bytes]) -> None:
        if small:
            await self._loop.sock_sendall(self._socket, b"".join(small))
            small.clear()

    async def _read_chunks(self) -> bytes:
        """Return a body in chunked coding (RFC 9112, section 7.1), without its trailers."""
        body = bytearray()
        while size := int((await self._read_until(b"\r\n")).partition(b";")[0], 16):
            body += await self._read_exactly(size)
            await self._read_exactly(2)
        while await self._read_until(b"\r\n"):
            pass
        return bytes(body)

    async def _read_until(self, mark: bytes) -> bytes:
        """Return the bytes before `mark`; empty if the client closes before the first byte."""
        searched = 0
        while (end := self._unread.find(mark, searched)) < 0:
            searched = max(0, len(self._unread) - len(mark) + 1)
            piece = await self._loop.sock_recv(self._socket, _PIECE)
            if not piece and self._unread:
                raise ConnectionResetError
            if not piece:
                return b""
            self._unread += piece
        found = bytes(self._unread[:end])
        del self._unread[: end + len(mark)]
        return found

    async def _read_exactly(self, size: int) -> bytes:
        body = bytearray(size)
        begun = min(size, len(self._unread))
        body[:begun] = self._unread[:begun]
        del self._unread[:begun]
        with memoryview(body) as view:
            while begun < size:
                received = await self._loop.sock_recv_into(self._socket, view[begun:])
                if not received:
                    raise ConnectionResetError
                begun += received
        return bytes(body)
