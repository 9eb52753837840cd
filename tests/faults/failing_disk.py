"""A disk whose Nth operation fails."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from tests.faults.watched_disk import Step, watched_disk


@dataclass
class FailingDisk:
    """Counts operations from ``fail`` until ``mend``, and fails them only in between."""

    operations: list[str] = field(default_factory=list)
    _number: int = 0
    _lasts: bool = False
    _code: int = 0
    _lock: Lock = field(default_factory=Lock)

    def fail(self, number: int, code: int, *, lasts: bool) -> None:
        """Make the operation with this number fail, 1 for the next one, and all after it if it ``lasts``."""
        with self._lock:
            self.operations.clear()
            self._number, self._code, self._lasts = number, code, lasts

    @property
    def has_failed(self) -> bool:
        """Return whether an operation has failed since ``fail``."""
        with self._lock:
            return 0 < self._number <= len(self.operations)

    def mend(self) -> None:
        """Stop all failures."""
        with self._lock:
            self._number = 0

    @contextmanager
    def watch(self, step: Step) -> Iterator[None]:
        """Count an operation, or raise ``OSError`` if it has to fail."""
        with self._lock:
            if self._number:
                self.operations.append(step.name)
            count = len(self.operations)
            fails = self._number and (count == self._number or (self._lasts and count > self._number))
        if fails:
            raise OSError(self._code, os.strerror(self._code))
        yield


@contextmanager
def failing_disk(root: Path) -> Iterator[FailingDisk]:
    """Yield the disk beneath ``root``."""
    disk = FailingDisk()
    with watched_disk(root, disk.watch):
        yield disk
