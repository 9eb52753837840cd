"""A proxy to MariaDB that loses the response to a COMMIT, so that its sender cannot know whether it took effect."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PIECE_BYTES = 65536
COMMIT = b"\x03commit"
"""MySQL's command for a query, and its text (protocol, COM_QUERY)."""


@dataclass
class CommitThief:
    """Forwards connections. ``steal`` selects the COMMIT whose response is lost together with its connection.

    With ``blocks`` the proxy then refuses all connections until ``unblock``.
    """

    listening: socket.socket
    database: tuple[str, int]
    stolen: threading.Event = field(default_factory=threading.Event)
    _statement: bytes | None = None
    _blocks: bool = False
    _blocked: bool = False
    _open: list[socket.socket] = field(default_factory=list)
    _deaf: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.listening.getsockname()[1])

    def steal(self, statement: bytes, *, blocks: bool = False) -> None:
        """Lose the response to the next COMMIT of a transaction that contains a statement with these words."""
        with self._lock:
            self.stolen.clear()
            self._statement, self._blocks = statement, blocks

    def unblock(self) -> None:
        """Let connections through again."""
        self._blocked = False

    def serve(self) -> None:
        """Forward until the port is closed."""
        with suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                if self._blocked:
                    client.close()
                    continue
                server = socket.create_connection(self.database)
                self._open += [client, server]
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._return, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        sent = b""
        with suppress(OSError):
            while piece := client.recv(PIECE_BYTES):
                sent += piece
                if COMMIT in piece.lower():
                    if self._is_to_be_stolen(sent):
                        self._deaf.add(server)
                    sent = b""
                server.sendall(piece)
        _close(client, server)

    def _return(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            # A COMMIT has taken effect once it has a response.
            while (piece := server.recv(PIECE_BYTES)) and server not in self._deaf:
                client.sendall(piece)
        if server in self._deaf and self._blocks:
            self._blocked = True
            _close(*self._open)
        _close(client, server)

    def _is_to_be_stolen(self, sent: bytes) -> bool:
        with self._lock:
            if self._statement is None or self._statement not in sent:
                return False
            self._statement = None
            self.stolen.set()
            return True


@contextmanager
def commit_thief(url: str) -> Iterator[tuple[CommitThief, str]]:
    """Yield a thief in front of the database of a URL, and the URL that leads through it."""
    parts = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thief = CommitThief(listening, (str(parts.hostname), parts.port or 3306))
        threading.Thread(target=thief.serve, daemon=True).start()
        user, _, _ = parts.netloc.rpartition("@")
        yield thief, parts._replace(netloc=f"{user}@127.0.0.1:{thief.port}").geturl()
        listening.shutdown(socket.SHUT_RDWR)


def _close(*connections: socket.socket) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
