"""The ``webhook_deliveries`` table: pending and finished deliveries to webhooks.

A delivery is due from ``next_attempt_at`` on, which is NULL once it is finished. A claim moves that time past the end
of the attempt, so that another process takes over if this one dies.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.webhook import StoredDelivery, WebhookGuid
from pixyproxy.data.rows import Parameters, Row, from_timestamp, insert_statement, sql, to_timestamp

COLUMNS = (
    "guid",
    "tenant_id",
    "webhook_guid",
    "event",
    "payload",
    "status",
    "attempts",
    "next_attempt_at",
    "response_status",
    "problem",
    "created_at",
    "finished_at",
)
TIMES = ("next_attempt_at", "created_at", "finished_at")
SELECT = f"SELECT {', '.join(COLUMNS)} FROM webhook_deliveries"


def to_row(delivery: StoredDelivery) -> Parameters:
    """Return the columns of a delivery, by name."""
    times = {name: to_timestamp(getattr(delivery, name)) for name in TIMES}
    return delivery.model_dump(mode="json", include=set(COLUMNS)) | times


def from_row(row: Row) -> StoredDelivery:
    """Return the delivery in a row of ``SELECT``."""
    times = {name: from_timestamp(row[name]) for name in TIMES}
    return StoredDelivery.model_validate({**row, **times})


@dataclass(frozen=True)
class WebhookDeliveries:
    """The ``webhook_deliveries`` repository, bound to one connection and its transaction."""

    connection: Connection

    def insert(self, delivery: StoredDelivery) -> None:
        """Add a delivery. Its webhook may be deleted concurrently, so there is no foreign key."""
        self.connection.execute(sql(insert_statement("webhook_deliveries", COLUMNS)), to_row(delivery))

    def list_of_webhook(self, webhook_guid: str, *, tenant_id: TenantId, limit: int) -> list[StoredDelivery]:
        """Return the newest deliveries to the tenant's own webhook, newest first."""
        where = "webhook_guid = :webhook_guid AND tenant_id = :tenant_id ORDER BY id DESC LIMIT :limit"
        return self._list(where, {"webhook_guid": webhook_guid, "tenant_id": tenant_id, "limit": limit})

    def list_due_tenants(self, *, at: datetime) -> list[TenantId]:
        """Return the active tenants with deliveries due at this time."""
        statement = """
            SELECT id FROM tenants
             WHERE status = 'active'
               AND id IN (SELECT tenant_id FROM webhook_deliveries WHERE next_attempt_at <= :at)
             ORDER BY id
        """
        return list(self.connection.execute(sql(statement), {"at": to_timestamp(at)}).scalars())

    def list_due(self, *, tenant_id: TenantId, at: datetime, limit: int) -> list[StoredDelivery]:
        """Return the tenant's deliveries that have been due longest."""
        where = "tenant_id = :tenant_id AND next_attempt_at <= :at ORDER BY next_attempt_at, id LIMIT :limit"
        return self._list(where, {"tenant_id": tenant_id, "at": to_timestamp(at), "limit": limit})

    def claim(self, delivery: StoredDelivery, *, tenant_id: TenantId, until: datetime) -> bool:
        """Claim the next attempt of the tenant's own delivery; return True for exactly one concurrent caller.

        It is due again at ``until``, unless the outcome of the attempt is recorded before.
        """
        statement = """
            UPDATE webhook_deliveries SET attempts = attempts + 1, next_attempt_at = :until
             WHERE guid = :guid AND tenant_id = :tenant_id AND status = 'pending'
               AND attempts = :attempts AND next_attempt_at = :next_attempt_at
        """
        parameters = to_row(delivery) | {"tenant_id": tenant_id, "until": to_timestamp(until)}
        return self.connection.execute(sql(statement), parameters).rowcount == 1

    def record(self, delivery: StoredDelivery, *, tenant_id: TenantId) -> None:
        """Record the outcome of the last attempt counted in ``attempts``.

        If another attempt has started since, only a success counts: the other's outcome is still to come. The payload
        of a finished delivery is erased, because it is no longer sent and contains a prompt.
        """
        statement = """
            UPDATE webhook_deliveries
               SET payload = CASE WHEN :status = 'pending' THEN payload ELSE '' END, status = :status,
                   next_attempt_at = :next_attempt_at, response_status = :response_status, problem = :problem,
                   finished_at = :finished_at
             WHERE guid = :guid AND tenant_id = :tenant_id AND status = 'pending'
               AND (attempts = :attempts OR :status = 'delivered')
        """
        self.connection.execute(sql(statement), to_row(delivery) | {"tenant_id": tenant_id})

    def fail_pending(self, webhook_guid: WebhookGuid, *, tenant_id: TenantId, problem: str, at: datetime) -> None:
        """Fail all pending deliveries of the tenant's own webhook."""
        statement = """
            UPDATE webhook_deliveries
               SET payload = '', status = 'failed', next_attempt_at = NULL, problem = :problem, finished_at = :at
             WHERE webhook_guid = :webhook_guid AND tenant_id = :tenant_id AND status = 'pending'
        """
        parameters = {"webhook_guid": webhook_guid, "tenant_id": tenant_id, "problem": problem, "at": to_timestamp(at)}
        self.connection.execute(sql(statement), parameters)

    def list_pending(self, generation: GenerationGuid, *, tenant_id: TenantId) -> list[StoredDelivery]:
        """Return the tenant's unfinished deliveries about a generation."""
        where = "tenant_id = :tenant_id AND next_attempt_at IS NOT NULL AND INSTR(payload, :generation) > 0"
        return self._list(where, {"tenant_id": tenant_id, "generation": generation})

    def replace_payload(self, delivery: StoredDelivery, payload: str, *, tenant_id: TenantId) -> None:
        """Replace the payload of later attempts of the tenant's own delivery."""
        statement = """
            UPDATE webhook_deliveries SET payload = :payload
             WHERE guid = :guid AND tenant_id = :tenant_id AND status = 'pending'
        """
        parameters: Parameters = {"guid": delivery.guid, "tenant_id": tenant_id, "payload": payload}
        self.connection.execute(sql(statement), parameters)

    def delete_of_webhook(self, webhook_guid: str, *, tenant_id: TenantId) -> None:
        """Remove all deliveries to the tenant's own webhook."""
        statement = "DELETE FROM webhook_deliveries WHERE webhook_guid = :webhook_guid AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"webhook_guid": webhook_guid, "tenant_id": tenant_id})

    def delete_of_tenant(self, *, tenant_id: TenantId) -> None:
        """Remove all deliveries of the tenant."""
        statement = "DELETE FROM webhook_deliveries WHERE tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"tenant_id": tenant_id})

    def delete_old(self, *, before: datetime) -> None:
        """Remove deliveries created before this time, of all tenants."""
        statement = "DELETE FROM webhook_deliveries WHERE created_at < :before"
        self.connection.execute(sql(statement), {"before": to_timestamp(before)})

    def _list(self, where: str, parameters: Parameters) -> list[StoredDelivery]:
        statement = sql(f"{SELECT} WHERE {where}")
        return [from_row(row) for row in self.connection.execute(statement, parameters).mappings()]
