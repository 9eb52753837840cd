"""The ``audit_log`` and ``audit_head`` tables: entries chained by digests, so that every change is detected.

An entry's digest is the SHA-256 of its other columns as one JSON object: keys sorted, no spaces, ASCII, texts as the
database stores them. Each entry contains the digest of the previous one; the head contains the last one's sequence and
digest.
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
"""The maximum lengths, in characters, of columns whose text may come from clients."""
DETAIL_LENGTH = 500
"""The maximum length of one detail, in characters. Twenty details fit the column however JSON escapes them."""
NO_SHA256 = "0" * 64
"""The previous digest in the first entry."""
logger = logging.getLogger(__name__)

HEAD_MISSING = "The row of audit_head is missing, so administrator actions are refused. Restore it."
SELECT = f"SELECT {', '.join(COLUMNS)} FROM audit_log"


@dataclass(frozen=True)
class AuditHead:
    """The end of the chain: the number of entries and the digest of the last one."""

    sequence: int
    entry_sha256: str


@dataclass(frozen=True)
class ChainLink:
    """A link of the chain: the digests stored in an entry's row, and the actual digest of its columns."""

    sequence: int
    previous_sha256: str
    entry_sha256: str
    actual_sha256: str


def to_row(entry: NewAuditEntry) -> Parameters:
    """Return the columns of an entry, by name, truncated to their lengths: exactly what the digest covers."""
    values = entry.model_dump(mode="json")
    details = {_storable(name, DETAIL_LENGTH): _storable(fact, DETAIL_LENGTH) for name, fact in entry.details.items()}
    texts = {name: _storable(values[name], length) for name, length in LENGTHS.items() if values[name] is not None}
    return values | texts | {"at": to_timestamp(entry.at), "details": json.dumps(details, ensure_ascii=False)}


def from_row(row: Row) -> AuditEntry:
    """Return the entry in a row of ``SELECT``."""
    return AuditEntry.model_validate({**row, "at": from_timestamp(row["at"]), "details": json.loads(row["details"])})


def digest(row: Row) -> str:
    """Return the digest of a row's columns, also of a row that no action could have written."""
    covered = {name: row[name] for name in COLUMNS if name != "entry_sha256"}
    # MySQL's driver returns a datetime, whose str() is the stored text.
    written = json.dumps(covered, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(written.encode("ascii")).hexdigest()


@dataclass(frozen=True)
class AuditLog:
    """The audit log, bound to one connection and its transaction."""

    connection: Connection

    def append(self, entry: NewAuditEntry) -> AuditEntry:
        """Append an entry to the chain, in the transaction of its action, so that both are committed or neither.

        The head's row is locked until the transaction ends, so that entries follow without gaps. Append last, so that
        others wait as briefly as possible.
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
        """Return at most ``limit`` entries that match the filter, newest first.

        ``before`` is the sequence of the last entry of the previous page.
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
        """Return at most ``limit`` links of the chain from ``sequence`` on, oldest first."""
        statement = sql(f"{SELECT} WHERE sequence >= :sequence ORDER BY sequence LIMIT :limit")
        rows = self.connection.execute(statement, {"sequence": sequence, "limit": limit}).mappings()
        return [
            ChainLink(row["sequence"], row["previous_sha256"], row["entry_sha256"], actual_sha256=digest(row))
            for row in rows
        ]

    def head(self) -> AuditHead | None:
        """Return the stored end of the chain, or None if its row was removed."""
        statement = sql("SELECT sequence, entry_sha256 FROM audit_head WHERE id = 1")
        row = self.connection.execute(statement).mappings().one_or_none()
        return None if row is None else AuditHead(row["sequence"], row["entry_sha256"])

    def last_sequence(self) -> int:
        """Return the highest sequence, 0 in an empty log. A head read afterwards is at least as high."""
        statement = sql("SELECT COALESCE(MAX(sequence), 0) FROM audit_log")
        return int(self.connection.execute(statement).scalar_one())

    def _advance(self) -> AuditHead:
        """Take the next sequence and return the previous head. Raise ``DatabaseException`` without a head.

        The UPDATE comes first: it waits for concurrent appends, and a later SELECT then returns the row written by this
        transaction, with the last digest, however old MySQL's snapshot is.
        """
        statement = sql("UPDATE audit_head SET sequence = sequence + 1 WHERE id = 1")
        advanced = self.connection.execute(statement).rowcount == 1
        head = self.head() if advanced else None
        if head is None:
            logger.error(HEAD_MISSING)
            raise DatabaseException
        return AuditHead(head.sequence - 1, head.entry_sha256)


def _storable(value: str, length: int) -> str:
    """Return the text as both databases return it: without NUL, lone surrogates and other control characters."""
    return escape(value)[:length]


def _conditions(wanted: AuditFilter) -> tuple[list[str], Parameters]:
    """Return the filter as conditions and their parameters.

    MySQL would ignore case and trailing spaces of actors and targets; comparing the lengths detects the spaces.
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
