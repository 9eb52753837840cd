"""The record of purchases: one line for every POST that requested pictures."""

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LedgerLine:
    """The outcome of one POST to generations or edits, written before a byte of its response is sent."""

    request_id: str
    """The response's `x-request-id`, even if none was ever sent."""
    path: str
    sha256: str
    """Of the body, in hex."""
    prompt: str | None
    model: str | None
    n: int
    bought: bool
    """Whether the client has to pay, even if nothing ever arrives."""
    status: int | None
    """Of the response; `None` if none was started."""
    pictures: int
    """How many pictures were made."""
    usage: Mapping[str, Any] | None
    """The tokens of the whole order; `None` if nothing was bought."""


class Ledger:
    """Lines in the order of writing. Each is also written to `file` as a line of JSON and flushed."""

    def __init__(self, file: Path | None = None, *, remember: bool = True) -> None:
        """Append to `file`; a ledger that does not `remember` only writes there."""
        self._remember = remember
        self._lock = threading.Lock()
        self._lines: list[LedgerLine] = []
        self._file = file.open("a", encoding="utf-8") if file else None

    @property
    def lines(self) -> list[LedgerLine]:
        """A copy of all lines."""
        with self._lock:
            return list(self._lines)

    def pen(self) -> Callable[[LedgerLine], None]:
        """Return a function that appends to the current lines.

        After `clear` it writes to the file alone, so a late line of an earlier test's request does not appear in a
        later test.
        """
        lines = self._lines

        def write(line: LedgerLine) -> None:
            with self._lock:
                if self._remember:
                    lines.append(line)
                if self._file:
                    self._file.write(json.dumps(dataclasses.asdict(line)) + "\n")
                    self._file.flush()

        return write

    def clear(self) -> None:
        """Delete all lines from memory; the file keeps them."""
        with self._lock:
            self._lines = []

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
