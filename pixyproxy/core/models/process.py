"""Processes of the installation, as they announce themselves in the database."""

from datetime import datetime

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.generation import ProcessGuid


class Process(FrozenModel):
    """A process: what it does, and when it was last seen alive."""

    guid: ProcessGuid
    host: str
    pid: int
    serves: bool
    """It answers HTTP requests."""
    executes: bool
    """It calls the upstream."""
    redis: bool
    """It counts request limits in Redis."""
    started_at: datetime
    seen_at: datetime

    def __str__(self) -> str:
        """Return the host and the process id."""
        return f"{self.host} pid {self.pid}"
