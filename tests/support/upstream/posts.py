"""The times at which the fake upstream worked on each order, for tests of limits over time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Post:
    """One POST to generations or edits. Times are in seconds of the monotonic clock.

    ``key`` is its Idempotency-Key. ``ended`` is None while the request is in progress. ``delivered`` says whether the
    response contained pictures and was sent completely.
    """

    prompt: str
    model: str | None
    key: str | None
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    delivered: bool = False


def most_at_once(posts: Sequence[Post]) -> int:
    """Return the largest number of posts in progress at one moment."""
    changes = [(post.started, 1) for post in posts]
    # At equal times, ends come before starts.
    changes += [(post.ended, -1) for post in posts if post.ended is not None]
    most = running = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def most_started_within(posts: Sequence[Post], seconds: float) -> int:
    """Return the largest number of posts that started in any period of this many seconds."""
    starts = sorted(post.started for post in posts)
    first = most = 0
    for last, start in enumerate(starts):
        while start - starts[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
