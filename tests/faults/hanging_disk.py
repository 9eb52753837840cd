"""A disk that hangs: file system calls of the product wait until it is released."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest

OPERATIONS = (
    "access", "fsync", "link", "listdir", "lstat", "mkdir", "open", "replace", "rmdir", "scandir", "stat", "statvfs",
    "unlink",
)  # fmt: skip


@dataclass
class HangingDisk:
    """Every file operation below ``root`` waits while the disk hangs."""

    root: Path
    answers: Event = field(default_factory=Event)
    waiting: int = 0
    """The number of operations that wait, or have waited."""

    def hang(self) -> None:
        """Block all operations from now on."""
        self.answers.clear()

    def pass_through(self, path: object) -> None:
        """Block an operation on a path while the disk hangs."""
        if not self.answers.is_set() and str(path).startswith(str(self.root)):
            self.waiting += 1
            self.answers.wait(60)


@contextmanager
def hanging_disk(root: Path, patch: pytest.MonkeyPatch) -> Iterator[HangingDisk]:
    """Yield the disk beneath ``root``.

    It patches the operating system's functions, because there is no other seam below the product.
    """
    disk = HangingDisk(root)
    disk.answers.set()
    for name in OPERATIONS:
        patch.setattr(os, name, _waiting(disk, getattr(os, name)))
    patch.setattr(io, "open", _waiting(disk, io.open))
    yield disk
    disk.answers.set()
    patch.undo()


def _waiting(disk: HangingDisk, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: object = ".", *arguments: object, **options: object) -> Any:  # noqa: ANN401  (the original's result)
        disk.pass_through(path)
        return original(path, *arguments, **options)

    return call
