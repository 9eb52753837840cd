"""Watch the file operations below a folder, at the functions with which the product calls the operating system."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

WATCHED = ("fsync", "replace", "unlink", "mkdir", "rmdir")


class Step(NamedTuple):
    """One operation on a file or folder; ``source`` is the former path of a file that is renamed to ``path``."""

    name: str
    path: Path
    source: Path | None = None


Watch = Callable[[Step], AbstractContextManager[None]]
"""The context that each operation runs in. If entering it raises ``OSError``, the operation fails with that error."""


class _ShortFile(io.FileIO):
    """A file of which each write takes only the first half, as may happen on a full disk or after a signal."""

    watch: Watch

    def write(self, content: Any) -> int:  # noqa: ANN401  (any buffer)
        """Write the first half, or all of a single byte."""
        with self.watch(Step("write", Path(str(self.name)))), memoryview(content) as view:
            return super().write(view[: max(1, len(view) // 2)])


@contextmanager
def watched_disk(root: Path, watch: Watch) -> Iterator[None]:
    """Run every operation below ``root`` in a context of ``watch``."""
    with pytest.MonkeyPatch.context() as patch:
        for name in WATCHED:
            patch.setattr(os, name, _watched(root, watch, name))
        patch.setattr(io, "open", _opening(root, watch))
        yield


def _watched(root: Path, watch: Watch, name: str) -> Callable[..., Any]:
    original = getattr(os, name)

    def call(path: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  (as the original's)
        step = Step(name, _path_of(path, options.get("dir_fd")))
        if name == "replace":
            step = Step(name, Path(arguments[0]), source=step.path)
        if not step.path.is_relative_to(root):
            return original(path, *arguments, **options)
        with watch(step):
            return original(path, *arguments, **options)

    return call


def _opening(root: Path, watch: Watch) -> Callable[..., Any]:
    original = io.open

    def call(path: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        if buffering == 0 and mode in {"wb", "xb"} and Path(path).is_relative_to(root):
            with watch(Step("open", Path(path))):
                file = _ShortFile(path, mode)
            file.watch = watch
            return file
        return original(path, mode, buffering, *arguments, **options)

    return call


def _path_of(path: Any, folder: int | None) -> Path:  # noqa: ANN401  (any argument of these functions)
    """Return the path of an open file, or of a name in an open folder."""
    if isinstance(path, int):
        return Path(f"/proc/self/fd/{path}").readlink()
    return Path(os.fsdecode(path)) if folder is None else _path_of(folder, None) / os.fsdecode(path)
