"""A disk that records its operations, so that a test can assert the order in which they become durable."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.watched_disk import Step, watched_disk


@dataclass
class RecordedDisk:
    """The operations below ``root``, in order of completion.

    ``mounted`` are folders that behave as separate file systems, so that no file can be renamed into or out of them.
    """

    root: Path
    mounted: tuple[Path, ...] = ()
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def watch(self, step: Step) -> Iterator[None]:
        """Record a successful operation. Raise ``OSError`` for a rename across file systems."""
        if step.source is not None and self._file_system(step.source) != self._file_system(step.path):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        yield
        self.steps.append(step)

    def source_of(self, path: Path) -> Path:
        """Return the temporary path that was renamed to ``path``.

        Assert that nothing was written to ``path`` directly.
        """
        assert Step("write", path) not in self.steps
        (source,) = [step.source for step in self.steps if step.path == path and step.source is not None]
        return source

    def assert_order(self, *expected: tuple[str, Path]) -> None:
        """Assert that each operation took place, and never before its predecessor in ``expected``.

        An fsync alone may also have taken place earlier: the first one after the preceding operation counts.
        """
        assert expected
        last = -1
        for name, path in expected:
            found = [at for at, step in enumerate(self.steps) if (step.name, step.path) == (name, path)]
            if name == "fsync":
                found = [at for at in found if at > last][:1]
            assert found, f"no {name} of {path.relative_to(self.root)} after step {last} of:\n{self}"
            assert found[0] > last, f"step {found[0]} is too early, before step {last} of:\n{self}"
            last = found[-1]

    def _file_system(self, path: Path) -> Path:
        return next((folder for folder in self.mounted if path.is_relative_to(folder)), self.root)

    def __str__(self) -> str:
        """Return one numbered line for each operation."""
        lines = [f"{at} {step.name} {step.path.relative_to(self.root)}" for at, step in enumerate(self.steps)]
        return "\n".join(lines)


@contextmanager
def recorded_disk(root: Path) -> Iterator[RecordedDisk]:
    """Yield the disk beneath ``root``, as one file system."""
    disk = RecordedDisk(root)
    with watched_disk(root, disk.watch):
        yield disk
