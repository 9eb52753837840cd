"""The ``processes`` table: the installation's processes, with the database's time of their last heartbeat."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from pixyproxy.core.models.generation import ProcessGuid
from pixyproxy.core.models.process import Process
from pixyproxy.data.rows import Parameters, Row, from_timestamp, insert_statement, sql, to_timestamp

COLUMNS = ("guid", "host", "pid", "serves", "executes", "redis", "started_at", "seen_at")
TIMES = ("started_at", "seen_at")
SELECT = f"SELECT {', '.join(COLUMNS)} FROM processes"


def to_row(process: Process) -> Parameters:
    """Return the columns of a process, by name."""
    return process.model_dump() | {name: to_timestamp(getattr(process, name)) for name in TIMES}


def from_row(row: Row) -> Process:
    """Return the process in a row of ``SELECT``."""
    return Process.model_validate({**row, **{name: from_timestamp(row[name]) for name in TIMES}})


@dataclass(frozen=True)
class Processes:
    """The ``processes`` repository, bound to one connection and its transaction."""

    connection: Connection

    def now(self) -> datetime:
        """Return the database's time in UTC, because the clocks of machines may differ."""
        moment = from_timestamp(self.connection.execute(sql("SELECT CURRENT_TIMESTAMP")).scalar_one())
        assert moment is not None  # noqa: S101  (for mypy: the value is never NULL)
        return moment

    def insert(self, process: Process) -> None:
        """Add a process."""
        self.connection.execute(sql(insert_statement("processes", COLUMNS)), to_row(process))

    def touch(self, guid: ProcessGuid, *, seen_at: datetime) -> bool:
        """Set the time of the last heartbeat; return False if there is no such process."""
        statement = sql("UPDATE processes SET seen_at = :seen_at WHERE guid = :guid")
        return self.connection.execute(statement, {"guid": guid, "seen_at": to_timestamp(seen_at)}).rowcount == 1

    def list_seen(self, *, since: datetime) -> list[Process]:
        """Return the processes seen at ``since`` or later, oldest first."""
        statement = sql(f"{SELECT} WHERE seen_at >= :since ORDER BY started_at, guid")
        rows = self.connection.execute(statement, {"since": to_timestamp(since)}).mappings()
        return [from_row(row) for row in rows]

    def delete(self, guid: ProcessGuid) -> None:
        """Remove a process."""
        self.connection.execute(sql("DELETE FROM processes WHERE guid = :guid"), {"guid": guid})

    def delete_unseen(self, *, before: datetime) -> None:
        """Remove the processes last seen before then."""
        self.connection.execute(sql("DELETE FROM processes WHERE seen_at < :before"), {"before": to_timestamp(before)})
