"""The ``webhooks`` table."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.webhook import StoredWebhook, WebhookEvent
from pixyproxy.data.rows import (
    Parameters,
    Row,
    from_names,
    from_timestamp,
    insert_statement,
    sql,
    to_names,
    to_timestamp,
)

COLUMNS = (
    "guid",
    "tenant_id",
    "url",
    "events",
    "version",
    "former_secret_until",
    "created_at",
    "disabled_at",
)
TIMES = ("former_secret_until", "created_at", "disabled_at")
SELECT = f"SELECT {', '.join(COLUMNS)} FROM webhooks"


def to_row(webhook: StoredWebhook) -> Parameters:
    """Return the columns of a webhook, by name."""
    times = {name: to_timestamp(getattr(webhook, name)) for name in TIMES}
    return webhook.model_dump(include=set(COLUMNS)) | times | {"events": to_names(webhook.events)}


def from_row(row: Row) -> StoredWebhook:
    """Return the webhook in a row of ``SELECT``."""
    times = {name: from_timestamp(row[name]) for name in TIMES}
    return StoredWebhook.model_validate({**row, **times, "events": from_names(row["events"])})


@dataclass(frozen=True)
class Webhooks:
    """The ``webhooks`` repository, bound to one connection and its transaction."""

    connection: Connection

    def insert(self, webhook: StoredWebhook) -> None:
        """Add a webhook."""
        self.connection.execute(sql(insert_statement("webhooks", COLUMNS)), to_row(webhook))

    def list_of_tenant(self, *, tenant_id: TenantId) -> list[StoredWebhook]:
        """Return the tenant's webhooks, oldest first, including disabled ones."""
        statement = sql(f"{SELECT} WHERE tenant_id = :tenant_id ORDER BY id")
        return [from_row(row) for row in self.connection.execute(statement, {"tenant_id": tenant_id}).mappings()]

    def lock_all(self, *, tenant_id: TenantId) -> list[StoredWebhook]:
        """Return the tenant's webhooks; other callers of this method cannot add any until this transaction ends."""
        # Before any SELECT, so that MySQL reads what the last transaction committed.
        statement = "UPDATE tenants SET guid = guid WHERE id = :tenant_id"
        self.connection.execute(sql(statement), {"tenant_id": tenant_id})
        return self.list_of_tenant(tenant_id=tenant_id)

    def list_subscribed(self, event: WebhookEvent, *, tenant_id: TenantId) -> list[StoredWebhook]:
        """Return the tenant's enabled webhooks for this event."""
        found = self.list_of_tenant(tenant_id=tenant_id)
        return [webhook for webhook in found if event in webhook.events and webhook.disabled_at is None]

    def get_own(self, guid: str, *, tenant_id: TenantId) -> StoredWebhook | None:
        """Return the tenant's own webhook."""
        statement = sql(f"{SELECT} WHERE guid = :guid AND tenant_id = :tenant_id")
        parameters = {"guid": guid, "tenant_id": tenant_id}
        row = self.connection.execute(statement, parameters).mappings().one_or_none()
        return None if row is None else from_row(row)

    def lock_own(self, guid: str, *, tenant_id: TenantId) -> StoredWebhook | None:
        """Return the tenant's own webhook, locked until this transaction ends."""
        # Before any SELECT, as above.
        statement = "UPDATE webhooks SET guid = guid WHERE guid = :guid AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"guid": guid, "tenant_id": tenant_id})
        return self.get_own(guid, tenant_id=tenant_id)

    def rotate(self, webhook: StoredWebhook, *, tenant_id: TenantId) -> None:
        """Update the secret's version of the tenant's own webhook, and how long the former one also signs."""
        statement = """
            UPDATE webhooks SET version = :version, former_secret_until = :former_secret_until
             WHERE guid = :guid AND tenant_id = :tenant_id
        """
        self.connection.execute(sql(statement), to_row(webhook) | {"tenant_id": tenant_id})

    def disable(self, guid: str, *, tenant_id: TenantId, at: datetime) -> bool:
        """Disable the tenant's own webhook; return False if it was disabled already."""
        statement = """
            UPDATE webhooks SET disabled_at = :at
             WHERE guid = :guid AND tenant_id = :tenant_id AND disabled_at IS NULL
        """
        parameters = {"guid": guid, "tenant_id": tenant_id, "at": to_timestamp(at)}
        return self.connection.execute(sql(statement), parameters).rowcount == 1

    def delete(self, guid: str, *, tenant_id: TenantId) -> None:
        """Remove the tenant's own webhook."""
        statement = "DELETE FROM webhooks WHERE guid = :guid AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"guid": guid, "tenant_id": tenant_id})

    def delete_of_tenant(self, *, tenant_id: TenantId) -> None:
        """Remove all webhooks of the tenant."""
        self.connection.execute(sql("DELETE FROM webhooks WHERE tenant_id = :tenant_id"), {"tenant_id": tenant_id})
