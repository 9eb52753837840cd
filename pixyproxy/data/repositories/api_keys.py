"""The ``api_keys`` table."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from pixyproxy.core.models.api_key import ApiKeyGuid, StoredApiKey
from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.tenant import TenantId
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
    "key_id",
    "secret_sha256",
    "former_sha256",
    "former_secret_until",
    "name",
    "scopes",
    "allowed_models",
    "images_per_minute",
    "created_at",
    "expires_at",
    "last_used_at",
    "revoked_at",
)
TIMES = ("created_at", "expires_at", "last_used_at", "former_secret_until", "revoked_at")
NAMES = ("scopes", "allowed_models")
SELECT = f"SELECT id, {', '.join(COLUMNS)} FROM api_keys"


def to_row(key: StoredApiKey) -> Parameters:
    """Return the columns of an API key, by name."""
    times = {name: to_timestamp(getattr(key, name)) for name in TIMES}
    return key.model_dump(include=set(COLUMNS)) | times | {name: to_names(getattr(key, name)) for name in NAMES}


def from_row(row: Row) -> StoredApiKey:
    """Return the API key in a row of ``SELECT``."""
    times = {name: from_timestamp(row[name]) for name in TIMES}
    names = {name: from_names(row[name]) for name in NAMES}
    return StoredApiKey.model_validate({name: row[name] for name in COLUMNS} | times | names)


@dataclass(frozen=True)
class ApiKeys:
    """The ``api_keys`` repository, bound to one connection and its transaction."""

    connection: Connection

    def insert(self, key: StoredApiKey) -> None:
        """Add an API key."""
        self.connection.execute(sql(insert_statement("api_keys", COLUMNS)), to_row(key))

    def find_for_authentication(self, key_id: str) -> StoredApiKey | None:
        """Return the key with exactly this public id: the only lookup before the tenant is known."""
        # MySQL ignores trailing spaces.
        found = self._one("key_id = :key_id", {"key_id": key_id})
        return found if found is not None and found.key_id == key_id else None

    def list_of_tenant(self, *, tenant_id: TenantId, after: int, limit: int) -> list[tuple[int, StoredApiKey]]:
        """Return at most ``limit`` of the tenant's keys after the id ``after``, each with its id.

        Oldest first, including revoked ones.
        """
        statement = sql(f"{SELECT} WHERE tenant_id = :tenant_id AND id > :after ORDER BY id LIMIT :limit")
        parameters = {"tenant_id": tenant_id, "after": after, "limit": limit}
        return [(row["id"], from_row(row)) for row in self.connection.execute(statement, parameters).mappings()]

    def count_active(self, *, tenant_id: TenantId, at: datetime) -> int:
        """Return how many of the tenant's keys are neither revoked nor expired."""
        statement = """
            SELECT COUNT(*) FROM api_keys
             WHERE tenant_id = :tenant_id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :at)
        """
        parameters = {"tenant_id": tenant_id, "at": to_timestamp(at)}
        return int(self.connection.execute(sql(statement), parameters).scalar_one())

    def get_own(self, guid: str, *, tenant_id: TenantId) -> StoredApiKey | None:
        """Return the tenant's own key."""
        return self._one("guid = :guid AND tenant_id = :tenant_id", {"guid": guid, "tenant_id": tenant_id})

    def lock_own(self, guid: str, *, tenant_id: TenantId) -> StoredApiKey | None:
        """Return the tenant's own key, locked until this transaction ends."""
        # Before any SELECT, so that MySQL reads what the last transaction committed.
        statement = "UPDATE api_keys SET guid = guid WHERE guid = :guid AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"guid": guid, "tenant_id": tenant_id})
        return self.get_own(guid, tenant_id=tenant_id)

    def rotate(self, key: StoredApiKey, *, tenant_id: TenantId) -> None:
        """Update the digests of the tenant's own key and the validity of the former secret."""
        statement = """
            UPDATE api_keys
               SET secret_sha256 = :secret_sha256, former_sha256 = :former_sha256,
                   former_secret_until = :former_secret_until
             WHERE guid = :guid AND tenant_id = :tenant_id
        """
        self.connection.execute(sql(statement), to_row(key) | {"tenant_id": tenant_id})

    def note_use(self, guid: ApiKeyGuid, *, tenant_id: TenantId, at: datetime, unless_since: datetime) -> None:
        """Record the last use of the tenant's own key, unless one after ``unless_since`` is recorded."""
        statement = """
            UPDATE api_keys SET last_used_at = :at
             WHERE guid = :guid AND tenant_id = :tenant_id AND (last_used_at IS NULL OR last_used_at <= :unless_since)
        """
        times = {"at": to_timestamp(at), "unless_since": to_timestamp(unless_since)}
        self.connection.execute(sql(statement), {"guid": guid, "tenant_id": tenant_id, **times})

    def revoke(self, guid: ApiKeyGuid, *, tenant_id: TenantId, at: datetime) -> None:
        """Revoke the tenant's own key as of ``at``; an earlier revocation is kept."""
        statement = """
            UPDATE api_keys SET revoked_at = :at
             WHERE guid = :guid AND tenant_id = :tenant_id AND revoked_at IS NULL
        """
        parameters = {"guid": guid, "tenant_id": tenant_id, "at": to_timestamp(at)}
        self.connection.execute(sql(statement), parameters)

    def active_administrator_exists(self, *, at: datetime) -> bool:
        """Return whether any key of any tenant can still administer this server; used only by ``bootstrap``."""
        statement = """
            SELECT scopes FROM api_keys
             WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :at)
               AND tenant_id NOT IN (SELECT id FROM tenants WHERE status <> 'active')
        """
        rows = self.connection.execute(sql(statement), {"at": to_timestamp(at)}).scalars()
        return any(Scope.ADMIN in scopes.split() for scopes in rows)

    def delete_of_tenant(self, *, tenant_id: TenantId) -> None:
        """Remove all keys of the tenant."""
        self.connection.execute(sql("DELETE FROM api_keys WHERE tenant_id = :tenant_id"), {"tenant_id": tenant_id})

    def _one(self, condition: str, parameters: Parameters) -> StoredApiKey | None:
        row = self.connection.execute(sql(f"{SELECT} WHERE {condition}"), parameters).mappings().one_or_none()
        return None if row is None else from_row(row)
