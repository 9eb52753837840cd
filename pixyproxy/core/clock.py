"""The one source of the time of day, which never goes back while a process lives.

What expired stays expired when somebody sets the machine's clock back: from the latest time that was ever seen,
the monotonic clock counts on.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass
class Clock:
    """Seconds since 1970: the machine's, or what they must at least be by now."""

    latest: float = field(default_factory=time.time)
    seen_at: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """The current time in seconds since 1970."""
        # Two threads may race here; each writes a pair that was true a moment ago.
        moment = time.monotonic()
        self.latest, self.seen_at = max(time.time(), self.latest + moment - self.seen_at), moment
        return self.latest


_clock = Clock()


def seconds() -> float:
    """The current time in seconds since 1970."""
    return _clock.seconds()


def earliest(*moments: datetime | None) -> datetime | None:
    """Return the first of these times, where None is never."""
    return min((moment for moment in moments if moment is not None), default=None)


def now() -> datetime:
    """The current time in UTC, to the second: what the columns of times hold."""
    return datetime.fromtimestamp(int(seconds()), UTC)
