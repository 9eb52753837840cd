"""A wall clock that a test sets, for a server in a process of its own: libfaketime, found or installed."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.debian import find_or_install

_DEBIAN_PACKAGE = "libfaketime"
_LIBRARY = "faketime/libfaketimeMT.so.1"


class FakeTimeError(Exception):
    """libfaketime is missing; the message says what to do."""


@dataclass(frozen=True)
class WallClock:
    """The time of day of every process that is started with ``environment``."""

    file: Path
    library: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables that put a process under this clock."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            # The file is read again whenever the time is asked for.
            "FAKETIME_NO_CACHE": "1",
            # Who sets a clock sets the wall clock alone: the monotonic one and the times of files stay as they are.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, seconds: int) -> None:
        """Set it to so many seconds from the true time, at once."""
        written = self.file.with_suffix(".new")
        written.write_text(f"{seconds:+d}\n")
        # In one step: a process would take half a file for no change at all.
        written.replace(self.file)


def true_wall_clock(folder: Path) -> WallClock:
    """A clock that is right until it is set. Raises ``FakeTimeError`` where libfaketime cannot be had."""
    clock = WallClock(folder / "faketime", ensure_library())
    clock.set(0)
    return clock


def wrong_clock(seconds: int) -> dict[str, str]:
    """Return the environment of a process whose time of day is wrong by so many seconds from its start on.

    Raise ``FakeTimeError`` where libfaketime cannot be had. It is much faster than a ``WallClock``, which is read anew
    whenever the time is asked for.
    """
    return {
        "LD_PRELOAD": str(ensure_library()),
        "FAKETIME": f"{seconds:+d}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def ensure_library() -> Path:
    """Find libfaketime, or install Debian's package of it where that is allowed."""
    library = find_or_install(_DEBIAN_PACKAGE, _find)
    if library is None:
        message = f"No libfaketime here: install {_DEBIAN_PACKAGE} (Debian, Ubuntu) or faketime."
        raise FakeTimeError(message)
    return library


def _find() -> Path | None:
    places = (found for pattern in ("lib*", "lib*/*") for found in Path("/usr").glob(f"{pattern}/{_LIBRARY}"))
    return next(places, None)
