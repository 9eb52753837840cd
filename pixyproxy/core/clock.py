"""The only source of the time of day. It never goes back while the process runs.

Processes compare stored times, so a database server's time is used where there is one: it is queried now and then, and
the monotonic clock counts on in between. What has expired stays expired, whatever happens to a machine's clock.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass
class Clock:
    """The current time: the database's once known, else the machine's; never less than before.

    ``latest`` is in seconds since 1970. ``offset`` is the database's time minus the monotonic clock.
    """

    latest: float = field(default_factory=time.time)
    seen_at: float = field(default_factory=time.monotonic)
    offset: float | None = None

    def seconds(self) -> float:
        """Return the current time in seconds since 1970."""
        # Two threads may race here; each writes a pair that was true a moment ago.
        moment = time.monotonic()
        if self.offset is not None:
            self.latest = max(self.latest, self.offset + moment)
            return self.latest
        self.latest, self.seen_at = max(time.time(), self.latest + moment - self.seen_at), moment
        return self.latest

    def follow(self, read: float, *, read_at: float) -> None:
        """Continue from the database's time ``read``, read when the monotonic clock showed ``read_at``.

        The first such time replaces the machine's, even if that is ahead: nothing was compared before.
        """
        if self.offset is None:
            self.latest = read
        # A single assignment, because other threads read it concurrently.
        self.offset = read - read_at


_clock = Clock()


def seconds() -> float:
    """Return the current time in seconds since 1970."""
    return _clock.seconds()


def follow(read: float, *, read_at: float) -> None:
    """Continue from the database's time ``read``, read when the monotonic clock showed ``read_at``."""
    _clock.follow(read, read_at=read_at)


def earliest(*moments: datetime | None) -> datetime | None:
    """Return the earliest of these times; None means never."""
    return min((moment for moment in moments if moment is not None), default=None)


def now() -> datetime:
    """Return the current time in UTC, in whole seconds, as the time columns store it."""
    return datetime.fromtimestamp(int(seconds()), UTC)
