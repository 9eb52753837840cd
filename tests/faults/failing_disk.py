"""A disk whose Nth operation fails: what the product asks of the file system, counted and made to fail."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import pytest


@dataclass
class FailingDisk:
    """Counts the operations below ``root`` from ``fail`` on; none fails before that."""

    root: Path
    operations: list[str] = field(default_factory=list)
    _number: int = 0
    _lasts: bool = False
    _code: int = 0
    _lock: Lock = field(default_factory=Lock)

    def fail(self, number: int, code: int, *, lasts: bool) -> None:
        """Have the operation of this number fail, 1 for the next, and all after it if it ``lasts``."""
        with self._lock:
            self.operations.clear()
            self._number, self._code, self._lasts = number, code, lasts

    @property
    def has_failed(self) -> bool:
        """Whether an operation has failed since."""
        with self._lock:
            return 0 < self._number <= len(self.operations)

    def mend(self) -> None:
        """Let nothing fail any more."""
        with self._lock:
            self._number = 0

    def pass_through(self, name: str, path: object) -> None:
        """Count an operation on a path or an open file. Raises ``OSError`` where it is to fail."""
        place = Path(f"/proc/self/fd/{path}").readlink() if isinstance(path, int) else path
        if not str(place).startswith(str(self.root)):
            return
        with self._lock:
            if not self._number:
                return
            self.operations.append(name)
            count = len(self.operations)
        if count == self._number or (self._lasts and count > self._number):
            raise OSError(self._code, os.strerror(self._code))


class _ShortFile(io.FileIO):
    """A file that takes half of what it is given at first, as a full disk or a signal may have it."""

    disk: FailingDisk

    def write(self, content: Any) -> int:  # noqa: ANN401  (any buffer)
        """Write the first half, or all of what has but one byte."""
        self.disk.pass_through("write", self.fileno())
        with memoryview(content) as view:
            return super().write(view[: max(1, len(view) // 2)])


@contextmanager
def failing_disk(root: Path, patch: pytest.MonkeyPatch) -> Iterator[FailingDisk]:
    """The disk beneath ``root``: there is no other seam below the product than the operating system's own functions."""
    disk = FailingDisk(root)
    for name in ("fsync", "replace", "unlink", "mkdir", "rmdir"):
        patch.setattr(os, name, _counted(disk, name, getattr(os, name)))
    patch.setattr(io, "open", _opening(disk, io.open))
    yield disk
    patch.undo()


def _counted(disk: FailingDisk, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: object, *arguments: object, **options: object) -> Any:  # noqa: ANN401  (whatever it returns)
        if "dir_fd" not in options:
            disk.pass_through(name, path)
        return original(path, *arguments, **options)

    return call


def _opening(disk: FailingDisk, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: Any, mode: str = "r", buffering: int = -1, *arguments: object, **options: object) -> Any:  # noqa: ANN401
        if buffering == 0 and mode in {"wb", "xb"} and str(path).startswith(str(disk.root)):
            disk.pass_through("open", path)
            file = _ShortFile(path, mode)
            file.disk = disk
            return file
        return original(path, mode, buffering, *arguments, **options)

    return call
