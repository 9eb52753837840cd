"""A disk that does not answer: what the product asks of the file system waits until it is let go on."""

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
    """Everything that is done below ``root`` with files waits while it hangs."""

    root: Path
    answers: Event = field(default_factory=Event)
    waiting: int = 0
    """How many operations wait, or have waited."""

    def hang(self) -> None:
        """Answer nothing from now on."""
        self.answers.clear()

    def pass_through(self, path: object) -> None:
        """Wait with an operation on a path for as long as the disk hangs."""
        if not self.answers.is_set() and str(path).startswith(str(self.root)):
            self.waiting += 1
            self.answers.wait(60)


@contextmanager
def hanging_disk(root: Path, patch: pytest.MonkeyPatch) -> Iterator[HangingDisk]:
    """The disk beneath ``root``: there is no other seam below the product than the operating system's own functions."""
    disk = HangingDisk(root)
    disk.answers.set()
    for name in OPERATIONS:
        patch.setattr(os, name, _waiting(disk, getattr(os, name)))
    patch.setattr(io, "open", _waiting(disk, io.open))
    yield disk
    disk.answers.set()
    patch.undo()


def _waiting(disk: HangingDisk, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: object = ".", *arguments: object, **options: object) -> Any:  # noqa: ANN401  (whatever it returns)
        disk.pass_through(path)
        return original(path, *arguments, **options)

    return call
