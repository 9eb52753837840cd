"""The queue: rows of ``generations`` with the status ``accepted``. Times are seconds since 1970.

Every change to the queue happens while the upstreams' rows are locked (``Upstreams.list_named``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from pixyproxy.core.models.generation import Generation, GenerationError, GenerationGuid, ProcessGuid
from pixyproxy.core.models.image import GenerationId
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.upstream import UpstreamId
from pixyproxy.data.repositories.generations import SELECT, from_row
from pixyproxy.data.rows import Parameters, in_list, sql, to_timestamp


@dataclass(frozen=True)
class QueueHead:
    """The first order of a queue lane: of one tenant, model and exclusion set."""

    tenant_id: TenantId
    model: str
    excluded: frozenset[UpstreamId]
    first_id: GenerationId


@dataclass(frozen=True)
class Waiting:
    """A waiting order, with the fields that determine its queue position."""

    id: GenerationId
    model: str
    excluded: frozenset[UpstreamId]


@dataclass(frozen=True)
class Slot:
    """A slot at an upstream for an order, and the latest time until which the order holds it."""

    upstream_id: UpstreamId
    upstream: str
    lease_owner: ProcessGuid
    started_at: float
    place_until: float
    lease_until: datetime


@dataclass(frozen=True)
class Queue:
    """The queue, bound to one connection and its transaction."""

    connection: Connection

    def heads(self) -> list[QueueHead]:
        """Return the first order of each queue lane: one lane per tenant, model and exclusion set."""
        statement = """
            SELECT tenant_id, model, excluded, MIN(id) FROM generations WHERE status = 'accepted'
             GROUP BY tenant_id, model, excluded
        """
        return [_head(row) for row in self.connection.execute(sql(statement))]

    def is_empty(self) -> bool:
        """Return whether no order waits."""
        return (
            self.connection.execute(sql("SELECT 1 FROM generations WHERE status = 'accepted' LIMIT 1")).first() is None
        )

    def count(self, *, tenant_id: TenantId) -> int:
        """Return how many orders of the tenant wait."""
        statement = "SELECT COUNT(*) FROM generations WHERE status = 'accepted' AND tenant_id = :tenant_id"
        count: int = self.connection.execute(sql(statement), {"tenant_id": tenant_id}).scalar_one()
        return count

    def list_waiting(self, *, tenant_id: TenantId) -> list[Waiting]:
        """Return the waiting orders of the tenant, oldest first."""
        statement = """
            SELECT id, model, excluded FROM generations
             WHERE status = 'accepted' AND tenant_id = :tenant_id ORDER BY id
        """
        return [
            Waiting(GenerationId(row[0]), row[1], _upstreams(row[2]))
            for row in self.connection.execute(sql(statement), {"tenant_id": tenant_id})
        ]

    def count_lines(self) -> list[tuple[QueueHead, int]]:
        """Return the number of waiting orders in each queue lane."""
        statement = """
            SELECT tenant_id, model, excluded, MIN(id), COUNT(*) FROM generations WHERE status = 'accepted'
             GROUP BY tenant_id, model, excluded
        """
        return [(_head(row), row[4]) for row in self.connection.execute(sql(statement))]

    def begin(self, generation_id: GenerationId, slot: Slot) -> Generation:
        """Start a waiting order in a slot, and return its new row."""
        statement = """
            UPDATE generations
               SET status = 'calling', upstream_id = :upstream_id, upstream = :upstream, started_at = :started_at,
                   place_until = :place_until, lease_owner = :owner, lease_until = :lease_until, version = version + 1
             WHERE id = :id AND status = 'accepted'
        """
        parameters: Parameters = {
            "id": generation_id,
            "upstream_id": slot.upstream_id,
            "upstream": slot.upstream,
            "owner": slot.lease_owner,
            "started_at": slot.started_at,
            "place_until": slot.place_until,
            "lease_until": to_timestamp(slot.lease_until),
        }
        self.connection.execute(sql(statement), parameters)
        row = self.connection.execute(sql(f"{SELECT} WHERE id = :id"), {"id": generation_id}).mappings().one()
        return from_row(row)

    def put_back(
        self, generation: Generation, *, excluded: frozenset[UpstreamId], error: GenerationError | None
    ) -> bool:
        """Return an order for which nothing was bought to the queue; return False if this process no longer has it."""
        statement = """
            UPDATE generations
               SET status = 'accepted', upstream_id = NULL, upstream = NULL, started_at = NULL, place_until = NULL,
                   lease_owner = NULL, lease_until = NULL, excluded = :excluded, error = :error, version = version + 1
             WHERE id = :id AND tenant_id = :tenant_id AND status = 'calling' AND lease_owner = :owner
        """
        parameters: Parameters = {
            "id": generation.id,
            "tenant_id": generation.tenant_id,
            "owner": generation.lease_owner,
            "excluded": " ".join(map(str, sorted(excluded))),
            "error": None if error is None else error.model_dump_json(),
        }
        return self.connection.execute(sql(statement), parameters).rowcount == 1

    def list_lost(
        self, owner: ProcessGuid, running: Sequence[GenerationGuid], *, before: float, limit: int
    ) -> list[Generation]:
        """Return orders that a process started before then but does not know: the result of a COMMIT was lost.

        New ones (version 0) are excluded: their claim was reported as failed.
        """
        names, parameters = in_list(running or [""])
        statement = f"""
            {SELECT} WHERE status = 'calling' AND lease_owner = :owner AND started_at < :before AND version > 0
               AND guid NOT IN {names}
             ORDER BY id LIMIT :limit
        """
        values: Parameters = {"owner": owner, "before": before, "limit": limit}
        rows = self.connection.execute(sql(statement), parameters | values).mappings()
        return [from_row(row) for row in rows]

    def list_expired(self, *, created_before: datetime, limit: int) -> list[Generation]:
        """Return the orders that have been waiting since before then, oldest first."""
        statement = f"""
            {SELECT} WHERE status = 'accepted' AND created_at < :before ORDER BY created_at, id LIMIT :limit
        """
        parameters: Parameters = {"before": to_timestamp(created_before), "limit": limit}
        return [from_row(row) for row in self.connection.execute(sql(statement), parameters).mappings()]


def _head(row: Sequence[Any]) -> QueueHead:
    return QueueHead(TenantId(row[0]), row[1], _upstreams(row[2]), GenerationId(row[3]))


def _upstreams(excluded: str) -> frozenset[UpstreamId]:
    return frozenset(UpstreamId(int(each)) for each in excluded.split())
