"""The ``api_keys`` table."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from pixyproxy.core.models.tenant import ApiKeyGuid, Scope, StoredApiKey, Tenant, TenantId
from pixyproxy.data import tenants
from pixyproxy.data.rows import Parameters, Row, from_timestamp, insert_statement, to_timestamp

COLUMNS = (
    "guid",
    "tenant_id",
    "key_id",
    "secret_sha256",
    "name",
    "scopes",
    "created_at",
    "expires_at",
    "revoked_at",
)
TIMES = ("created_at", "expires_at", "revoked_at")
SELECT = f"SELECT {', '.join(COLUMNS)} FROM api_keys"


def to_row(key: StoredApiKey) -> Parameters:
    """The columns of an API key, by name; scopes are one text, separated by spaces as in RFC 6749 §3.3."""
    times = {name: to_timestamp(getattr(key, name)) for name in TIMES}
    return key.model_dump(include=set(COLUMNS)) | times | {"scopes": " ".join(sorted(key.scopes))}


def from_row(row: Row) -> StoredApiKey:
    """The API key in a row of ``SELECT``."""
    times = {name: from_timestamp(row[name]) for name in TIMES}
    return StoredApiKey.model_validate({**row, **times, "scopes": row["scopes"].split()})


@dataclass(frozen=True)
class ApiKeys:
    """The API keys, bound to one connection and its transaction."""

    connection: Connection

    def insert(self, key: StoredApiKey) -> None:
        """Add an API key."""
        self.connection.execute(text(insert_statement("api_keys", COLUMNS)), to_row(key))

    def find_for_authentication(self, key_id: str) -> tuple[StoredApiKey, Tenant] | None:
        """The key of this public id with its tenant: the one look-up that comes before the tenant is known."""
        key_columns = ", ".join(f"k.{name} AS key_{name}" for name in COLUMNS)
        tenant_columns = ", ".join(f"t.{name}" for name in ("id", *tenants.COLUMNS))
        statement = f"""
            SELECT {key_columns}, {tenant_columns}
              FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
             WHERE k.key_id = :key_id
        """
        row = self.connection.execute(text(statement), {"key_id": key_id}).mappings().one_or_none()
        if row is None:
            return None
        key = from_row({name: row[f"key_{name}"] for name in COLUMNS})
        return key, tenants.from_row({name: row[name] for name in ("id", *tenants.COLUMNS)})

    def list_of_tenant(self, *, tenant_id: TenantId) -> list[StoredApiKey]:
        """The tenant's keys, oldest first, revoked ones too."""
        statement = text(f"{SELECT} WHERE tenant_id = :tenant_id ORDER BY id")
        return [from_row(row) for row in self.connection.execute(statement, {"tenant_id": tenant_id}).mappings()]

    def get_own(self, guid: ApiKeyGuid, *, tenant_id: TenantId) -> StoredApiKey | None:
        """The key if it is the tenant's own."""
        statement = text(f"{SELECT} WHERE guid = :guid AND tenant_id = :tenant_id")
        row = self.connection.execute(statement, {"guid": guid, "tenant_id": tenant_id}).mappings().one_or_none()
        return None if row is None else from_row(row)

    def revoke(self, guid: ApiKeyGuid, *, tenant_id: TenantId, at: datetime) -> None:
        """Revoke the tenant's own key from ``at`` on; an earlier revocation stands."""
        statement = """
            UPDATE api_keys SET revoked_at = :at
             WHERE guid = :guid AND tenant_id = :tenant_id AND revoked_at IS NULL
        """
        parameters = {"guid": guid, "tenant_id": tenant_id, "at": to_timestamp(at)}
        self.connection.execute(text(statement), parameters)

    def active_administrator_exists(self, *, at: datetime) -> bool:
        """Whether any key of any tenant can still administer this server; only ``bootstrap`` asks."""
        statement = """
            SELECT scopes FROM api_keys
             WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :at)
        """
        rows = self.connection.execute(text(statement), {"at": to_timestamp(at)}).scalars()
        return any(Scope.ADMIN in scopes.split() for scopes in rows)
