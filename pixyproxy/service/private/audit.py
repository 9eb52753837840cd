"""The audit log: append entries, list them, and verify that none was altered."""

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
"""Entries read in one transaction of the verification."""
LOWEST_SEQUENCE = -(2**63)
"""The minimum of the column, so that an entry inserted before the first one is found too."""
BEGINNING = ChainLink(sequence=0, previous_sha256=NO_SHA256, entry_sha256=NO_SHA256, actual_sha256=NO_SHA256)


@dataclass(frozen=True)
class AuditPage:
    """One page of the log, newest first; ``next_cursor`` is None on the last page."""

    entries: list[AuditEntry]
    next_cursor: str | None


@dataclass(frozen=True)
class AuditVerdict:
    """The result of a verification: entries verified, the head's digest, and the first problem or None.

    Anyone who can write to the database can rewrite the whole chain, but it then ends in another digest: compare
    ``head_sha256`` with one noted elsewhere.
    """

    entries: int
    head_sha256: str | None
    problem: str | None


@dataclass(frozen=True)
class AuditService:
    """Lists and verifies the audit log, and records entries that have no transaction of their own."""

    database: Database
    cursors: CursorCodec

    async def record(self, entry: NewAuditEntry) -> None:
        """Append an entry of an act that changed nothing else, such as a refusal.

        Administrator actions append within their own transaction.
        """
        await self.database.write(lambda data: data.audit_log.append(entry))

    async def list_entries(self, incoming: AuditFilter, *, limit: int, cursor: str | None) -> AuditPage:
        """Return at most ``limit`` entries, newest first, starting at ``cursor``.

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
        """Recompute every digest up to the current head; entries appended meanwhile are ignored."""
        # Read the last sequence before the head, so that an entry appended in between is not beyond the head.
        last, head = await self.database.read(lambda data: (data.audit_log.last_sequence(), data.audit_log.head()))
        if head is None:
            return AuditVerdict(entries=0, head_sha256=None, problem="the head is missing")
        proven, problem = await self._walk(head)
        if problem is None and proven.entry_sha256 != head.entry_sha256:
            problem = f"the head does not match entry {head.sequence}"
        if problem is None and last > head.sequence:
            problem = f"entries up to {last} lie beyond the head, which is entry {head.sequence}"
        return AuditVerdict(entries=proven.sequence, head_sha256=head.entry_sha256, problem=problem)

    async def _walk(self, head: AuditHead) -> tuple[ChainLink, str | None]:
        """Return the last verified link, and the problem of the next one or None."""
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
    """Return an entry of the current time and request, to be appended in the transaction of the act."""
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
    """Return the operating system's user as the actor of a command."""
    try:
        name = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container may run as a user without a name; Python 3.13 raises OSError
        name = str(os.getuid())
    return Actor(type=SubjectType.COMMAND, subject=name)


def _problem(before: ChainLink, link: ChainLink) -> str | None:
    """Return what is wrong with the link after ``before``, or None."""
    expected = before.sequence + 1
    if link.sequence < expected:
        return f"unexpected entry {link.sequence}"
    if link.sequence > expected:
        return f"entry {expected} is missing"
    if link.actual_sha256 != link.entry_sha256:
        return f"entry {link.sequence} was changed"
    if link.previous_sha256 != before.entry_sha256:
        return f"entry {link.sequence} does not follow the current entry {before.sequence}"
    return None
