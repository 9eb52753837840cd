"""The one source of the time of day."""

from datetime import UTC, datetime


def now() -> datetime:
    """The current time in UTC, to the second: what the TIMESTAMP columns hold."""
    return datetime.now(UTC).replace(microsecond=0)
