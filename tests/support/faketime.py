"""A wall clock that a test sets for a server in a separate process: libfaketime, found or installed."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.debian import find_or_install

_DEBIAN_PACKAGE = "libfaketime"
_LIBRARY = "faketime/libfaketimeMT.so.1"


class FakeTimeError(Exception):
    """libfaketime is missing. The message says how to install it."""


@dataclass(frozen=True)
class WallClock:
    """The wall-clock time of every process that is started with ``environment``."""

    file: Path
    library: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that put a process under this clock."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            # Read the file again at every query of the time.
            "FAKETIME_NO_CACHE": "1",
            # Setting a clock changes the wall clock alone: the monotonic clock and file times stay as they are.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, seconds: int) -> None:
        """Set the clock to this many seconds from the true time, at once."""
        written = self.file.with_suffix(".new")
        written.write_text(f"{seconds:+d}\n")
        # Replace the file atomically: a process ignores a change of which it reads only a part.
        written.replace(self.file)


def true_wall_clock(folder: Path) -> WallClock:
    """Return a clock that is correct until it is set.

    Raise ``FakeTimeError`` if libfaketime cannot be found or installed.
    """
    clock = WallClock(folder / "faketime", ensure_library())
    clock.set(0)
    return clock


def wrong_clock(seconds: int) -> dict[str, str]:
    """Return the environment of a process whose wall clock is off by this many seconds from its start.

    Raise ``FakeTimeError`` if libfaketime cannot be found or installed. This is much faster than a ``WallClock``, which
    is read again at every query of the time.
    """
    return {
        "LD_PRELOAD": str(ensure_library()),
        "FAKETIME": f"{seconds:+d}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def ensure_library() -> Path:
    """Return the path of libfaketime, installing Debian's package if needed and allowed."""
    library = find_or_install(_DEBIAN_PACKAGE, _find)
    if library is None:
        message = f"libfaketime is not installed: install {_DEBIAN_PACKAGE} (Debian, Ubuntu) or faketime."
        raise FakeTimeError(message)
    return library


def _find() -> Path | None:
    places = (found for pattern in ("lib*", "lib*/*") for found in Path("/usr").glob(f"{pattern}/{_LIBRARY}"))
    return next(places, None)
