"""Processes of the installation, as registered in the database."""

from datetime import datetime

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.generation import ProcessGuid


class Process(FrozenModel):
    """A process: its roles, and when it was last known to be alive."""

    guid: ProcessGuid
    host: str
    pid: int
    serves: bool
    """It handles HTTP requests."""
    executes: bool
    """It calls upstreams."""
    redis: bool
    """It counts rate limits in Redis."""
    started_at: datetime
    seen_at: datetime

    def __str__(self) -> str:
        """Return the host and the process id."""
        return f"{self.host} pid {self.pid}"
