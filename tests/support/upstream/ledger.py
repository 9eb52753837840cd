"""The witness of what was bought: one line for every POST that asked for pictures."""

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LedgerLine:
    """What became of one POST to generations or edits, written before a byte of its answer is sent."""

    request_id: str
    """The answer's `x-request-id`, also where none was ever sent."""
    path: str
    sha256: str
    """Of the body, in hex."""
    prompt: str | None
    model: str | None
    n: int
    bought: bool
    """Whether the client has to pay, be it that nothing ever arrives."""
    status: int | None
    """Of the answer; `None` where none was begun."""
    pictures: int
    """How many pictures were made."""
    usage: Mapping[str, Any] | None
    """The tokens of the whole order; `None` where nothing was bought."""


class Ledger:
    """Lines in the order of writing; `file` gets each as a line of JSON, which is flushed."""

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
        """Return what writes lines among those that there are now.

        Once they are forgotten it writes to the file alone: the late line of a request from an earlier test is not
        among those of a later one.
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
        """Forget all lines; the file keeps them."""
        with self._lock:
            self._lines = []

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
