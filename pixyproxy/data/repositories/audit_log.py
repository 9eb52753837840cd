"""The ``audit_log`` table and ``audit_head``: entries chained by their digests, so that no change stays unseen.

An entry's digest is the SHA-256 of its other columns as one JSON object: keys sorted, no spaces, ASCII, texts as the
database holds them. Each entry names the digest of the one before; the head holds the last one's number and digest.
"""

import hashlib
import json
import logging
from dataclasses import dataclass

from sqlalchemy import Connection

from pixyproxy.core.exceptions import DatabaseException
from pixyproxy.core.logs import escape
from pixyproxy.core.models.audit import AuditEntry, AuditFilter, NewAuditEntry
from pixyproxy.data.rows import Parameters, Row, from_timestamp, insert_statement, sql, to_timestamp

COLUMNS = (
    "sequence",
    "at",
    "actor_type",
    "actor",
    "actor_tenant_guid",
    "action",
    "tenant_guid",
    "target",
    "address",
    "request_id",
    "details",
    "previous_sha256",
    "entry_sha256",
)
LENGTHS = {"actor": 255, "target": 255, "address": 64, "request_id": 255}
"""Characters that a column holds of a text which may come from outside."""
DETAIL_LENGTH = 500
"""Characters of one detail. Twenty of them fit the column, however JSON has to write them."""
NO_SHA256 = "0" * 64
"""What the first entry names as the digest before it."""
logger = logging.getLogger(__name__)

HEAD_MISSING = "The row of audit_head is missing. Nothing is done that cannot be audited: put it back."
SELECT = f"SELECT {', '.join(COLUMNS)} FROM audit_log"


@dataclass(frozen=True)
class AuditHead:
    """The end of the chain: how many entries there are, and the digest of the last."""

    sequence: int
    entry_sha256: str


@dataclass(frozen=True)
class ChainLink:
    """What holds an entry in the chain: the digests that stand in its row, and the one its columns really have."""

    sequence: int
    previous_sha256: str
    entry_sha256: str
    actual_sha256: str


def to_row(entry: NewAuditEntry) -> Parameters:
    """The columns of an act, by name, cut to what they hold: what is stored is exactly what the digest covers."""
    values = entry.model_dump(mode="json")
    details = {_storable(name, DETAIL_LENGTH): _storable(fact, DETAIL_LENGTH) for name, fact in entry.details.items()}
    texts = {name: _storable(values[name], length) for name, length in LENGTHS.items() if values[name] is not None}
    return values | texts | {"at": to_timestamp(entry.at), "details": json.dumps(details, ensure_ascii=False)}


def from_row(row: Row) -> AuditEntry:
    """The entry in a row of ``SELECT``."""
    return AuditEntry.model_validate({**row, "at": from_timestamp(row["at"]), "details": json.loads(row["details"])})


def digest(row: Row) -> str:
    """The digest of a row, from its columns as they are: one that no act could have made has a digest too."""
    covered = {name: row[name] for name in COLUMNS if name != "entry_sha256"}
    # MySQL's driver gives a datetime, whose str() is the text that was written.
    written = json.dumps(covered, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(written.encode("ascii")).hexdigest()


@dataclass(frozen=True)
class AuditLog:
    """The audit log, bound to one connection and its transaction."""

    connection: Connection

    def append(self, entry: NewAuditEntry) -> AuditEntry:
        """Add an entry to the end of the chain, in the transaction of the act: neither stays without the other.

        The head's row is locked from here until the transaction ends, so that entries follow each other without
        a gap. Append last, so that others wait for no more than they must.
        """
        previous = self._advance()
        row = to_row(entry) | {"sequence": previous.sequence + 1, "previous_sha256": previous.entry_sha256}
        row |= {"entry_sha256": digest(row)}
        self.connection.execute(sql(insert_statement("audit_log", COLUMNS)), row)
        self.connection.execute(
            sql("UPDATE audit_head SET entry_sha256 = :entry_sha256 WHERE id = 1"),
            {"entry_sha256": row["entry_sha256"]},
        )
        return from_row(row)

    def list_entries(self, wanted: AuditFilter, *, before: int | None, limit: int) -> list[AuditEntry]:
        """At most ``limit`` entries that the filter matches, newest first.

        ``before`` is the sequence of the last entry of the page before this one.
        """
        where, parameters = _conditions(wanted)
        if before is not None:
            where.append("sequence < :before")
            parameters["before"] = before
        conditions = f"WHERE {' AND '.join(where)}" if where else ""
        statement = f"{SELECT} {conditions} ORDER BY sequence DESC LIMIT :limit"
        rows = self.connection.execute(sql(statement), parameters | {"limit": limit}).mappings()
        return [from_row(row) for row in rows]

    def read_from(self, sequence: int, *, limit: int) -> list[ChainLink]:
        """At most ``limit`` links of the chain from ``sequence`` on, oldest first."""
        statement = sql(f"{SELECT} WHERE sequence >= :sequence ORDER BY sequence LIMIT :limit")
        rows = self.connection.execute(statement, {"sequence": sequence, "limit": limit}).mappings()
        return [
            ChainLink(row["sequence"], row["previous_sha256"], row["entry_sha256"], actual_sha256=digest(row))
            for row in rows
        ]

    def head(self) -> AuditHead | None:
        """The end of the chain as it was written down, or None where somebody has removed it."""
        statement = sql("SELECT sequence, entry_sha256 FROM audit_head WHERE id = 1")
        row = self.connection.execute(statement).mappings().one_or_none()
        return None if row is None else AuditHead(row["sequence"], row["entry_sha256"])

    def last_sequence(self) -> int:
        """The highest sequence there is, 0 in an empty log. The head that is read after it is at least as high."""
        statement = sql("SELECT COALESCE(MAX(sequence), 0) FROM audit_log")
        return int(self.connection.execute(statement).scalar_one())

    def _advance(self) -> AuditHead:
        """Take the next sequence, and return the head before it. Raises ``DatabaseException`` without a head.

        The UPDATE comes first: it waits for every append under way, and a SELECT then shows the row that this
        transaction wrote, with the last digest, however old MySQL's snapshot of the rest is.
        """
        statement = sql("UPDATE audit_head SET sequence = sequence + 1 WHERE id = 1")
        advanced = self.connection.execute(statement).rowcount == 1
        head = self.head() if advanced else None
        if head is None:
            logger.error(HEAD_MISSING)
            raise DatabaseException
        return AuditHead(head.sequence - 1, head.entry_sha256)


def _storable(value: str, length: int) -> str:
    """The text as both databases give it back: without NUL, lone surrogates and other control characters."""
    return escape(value)[:length]


def _conditions(wanted: AuditFilter) -> tuple[list[str], Parameters]:
    """Return the filter as conditions and their parameters.

    MySQL would compare actors and targets without regard to case, or to spaces at the end: those show in the length.
    """
    conditions = {
        "action": "action = :action",
        "actor": "actor COLLATE utf8mb4_bin = :actor AND LENGTH(actor) = LENGTH(:actor)",
        "tenant": "tenant_guid = :tenant",
        "target": "target COLLATE utf8mb4_bin = :target AND LENGTH(target) = LENGTH(:target)",
        "since": "at >= :since",
        "until": "at < :until",
    }
    parameters: Parameters = wanted.model_dump(mode="json", exclude_none=True)
    times = {"since": wanted.since, "until": wanted.until}
    parameters |= {name: to_timestamp(moment) for name, moment in times.items() if moment is not None}
    return [conditions[name] for name in parameters], parameters
