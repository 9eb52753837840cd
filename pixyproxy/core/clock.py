"""The one source of the time of day, which never goes back while a process lives.

Processes compare what they write down, so the time is the database's where that is a server: it is asked now and then,
and in between the monotonic clock counts on. What expired stays expired, whatever becomes of anybody's clock.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass
class Clock:
    """Seconds since 1970: the machine's, or the database's once that is known; or what they must at least be by now.

    ``offset`` is what the database's time is ahead of the monotonic clock.
    """

    latest: float = field(default_factory=time.time)
    seen_at: float = field(default_factory=time.monotonic)
    offset: float | None = None

    def seconds(self) -> float:
        """The current time in seconds since 1970."""
        # Two threads may race here; each writes a pair that was true a moment ago.
        moment = time.monotonic()
        if self.offset is not None:
            self.latest = max(self.latest, self.offset + moment)
            return self.latest
        self.latest, self.seen_at = max(time.time(), self.latest + moment - self.seen_at), moment
        return self.latest

    def follow(self, told: float, *, told_at: float) -> None:
        """Count on from the time that the database told at this moment of the monotonic clock.

        The first time decides, though this machine's clock is ahead: nothing was compared before.
        """
        if self.offset is None:
            self.latest = told
        # One value, because other threads read meanwhile.
        self.offset = told - told_at


_clock = Clock()


def seconds() -> float:
    """The current time in seconds since 1970."""
    return _clock.seconds()


def follow(told: float, *, told_at: float) -> None:
    """Count on from the time that the database told at this moment of the monotonic clock."""
    _clock.follow(told, told_at=told_at)


def earliest(*moments: datetime | None) -> datetime | None:
    """Return the first of these times, where None is never."""
    return min((moment for moment in moments if moment is not None), default=None)


def now() -> datetime:
    """The current time in UTC, to the second: what the columns of times hold."""
    return datetime.fromtimestamp(int(seconds()), UTC)
