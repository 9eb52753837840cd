"""The audit log: writing acts down, listing them, and proving that nobody has altered what was written."""

import getpass
import os
from dataclasses import dataclass

from pixyproxy.core import clock
from pixyproxy.core.logs import current_client_address, current_request_id
from pixyproxy.core.models.audit import AuditAction, AuditEntry, AuditFilter, NewAuditEntry
from pixyproxy.core.models.principal import Actor, SubjectType
from pixyproxy.core.models.tenant import TenantGuid
from pixyproxy.data.database import Database
from pixyproxy.data.repositories.audit_log import NO_SHA256, AuditHead, ChainLink
from pixyproxy.service.cursors import CursorCodec
from pixyproxy.service.revalidation import revalidate

BATCH = 1000
"""Entries that one transaction of the verification reads."""
LOWEST_SEQUENCE = -(2**63)
"""The column's: an entry that somebody slipped in before the first is to be seen too."""
BEGINNING = ChainLink(sequence=0, previous_sha256=NO_SHA256, entry_sha256=NO_SHA256, actual_sha256=NO_SHA256)


@dataclass(frozen=True)
class AuditPage:
    """One page of the log, newest first, and the cursor of the next one while there is more."""

    entries: list[AuditEntry]
    next_cursor: str | None


@dataclass(frozen=True)
class AuditVerdict:
    """What a verification found: entries proven, the head's digest, and the first problem, None where all is well.

    Whoever can write to the database can also write a whole new chain. It ends in another digest: one noted
    elsewhere tells.
    """

    entries: int
    head_sha256: str | None
    problem: str | None


@dataclass(frozen=True)
class AuditService:
    """Lists and verifies the audit log, and records what has no transaction of its own."""

    database: Database
    cursors: CursorCodec

    async def record(self, entry: NewAuditEntry) -> None:
        """Write down what changed nothing else, such as a refusal. Acts append within their own transaction."""
        await self.database.write(lambda data: data.audit_log.append(entry))

    async def list_entries(self, incoming: AuditFilter, *, limit: int, cursor: str | None) -> AuditPage:
        """At most ``limit`` entries, newest first, from where ``cursor`` points.

        Raises ``InvalidCursorException`` for a cursor of another filter.
        """
        wanted = revalidate(incoming)
        before = None if cursor is None else self.cursors.decode(cursor, wanted)
        found = await self.database.read(
            lambda data: data.audit_log.list_entries(wanted, before=before, limit=limit + 1)
        )
        page = found[:limit]
        return AuditPage(page, self.cursors.encode(page[-1].sequence, wanted) if len(found) > limit else None)

    async def verify(self) -> AuditVerdict:
        """Recompute every digest up to the head of this moment; what is appended meanwhile is left out."""
        # In this order: an entry that is appended in between is not beyond the head.
        last, head = await self.database.read(lambda data: (data.audit_log.last_sequence(), data.audit_log.head()))
        if head is None:
            return AuditVerdict(entries=0, head_sha256=None, problem="the head is missing")
        proven, problem = await self._walk(head)
        if problem is None and proven.entry_sha256 != head.entry_sha256:
            problem = f"the head does not match entry {head.sequence}"
        if problem is None and last > head.sequence:
            problem = f"entries up to {last} lie beyond the head, which is {head.sequence}"
        return AuditVerdict(entries=proven.sequence, head_sha256=head.entry_sha256, problem=problem)

    async def _walk(self, head: AuditHead) -> tuple[ChainLink, str | None]:
        """The last link that is proven, and what is wrong with the next one, if anything is."""
        proven, start = BEGINNING, LOWEST_SEQUENCE
        while links := await self._read_from(start):
            for link in links:
                if link.sequence > head.sequence:
                    break
                problem = _problem(proven, link)
                if problem is not None:
                    return proven, problem
                proven = link
            start = links[-1].sequence + 1
            if start > head.sequence:
                break
        missing = f"entry {proven.sequence + 1} is missing" if proven.sequence < head.sequence else None
        return proven, missing

    async def _read_from(self, sequence: int) -> list[ChainLink]:
        return await self.database.read(lambda data: data.audit_log.read_from(sequence, limit=BATCH))


def entry(
    actor: Actor,
    action: AuditAction,
    *,
    tenant_guid: TenantGuid | None = None,
    target: str | None = None,
    details: dict[str, str] | None = None,
) -> NewAuditEntry:
    """An act of this moment and this request, to be appended in the transaction that carries it out."""
    return NewAuditEntry(
        at=clock.now(),
        actor_type=actor.type,
        actor=actor.subject,
        actor_tenant_guid=actor.tenant_guid,
        action=action,
        tenant_guid=tenant_guid,
        target=target,
        address=current_client_address.get(),
        request_id=current_request_id.get(),
        details=details or {},
    )


def command_actor() -> Actor:
    """Who runs a command: the operating system's user."""
    try:
        name = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container may run as a user without a name; Python 3.13 raises OSError
        name = str(os.getuid())
    return Actor(type=SubjectType.COMMAND, subject=name)


def _problem(before: ChainLink, link: ChainLink) -> str | None:
    """What is wrong with the link after ``before``."""
    expected = before.sequence + 1
    if link.sequence < expected:
        return f"entry {link.sequence} is one too many"
    if link.sequence > expected:
        return f"entry {expected} is missing"
    if link.actual_sha256 != link.entry_sha256:
        return f"entry {link.sequence} was changed"
    if link.previous_sha256 != before.entry_sha256:
        return f"entry {link.sequence} does not follow what is entry {before.sequence} now"
    return None
