"""The ``refresh_tokens`` table."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.token import RefreshToken, SessionGuid
from pixyproxy.core.models.user import UserGuid
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
    "token_sha256",
    "session_guid",
    "tenant_id",
    "user_guid",
    "client_id",
    "scopes",
    "created_at",
    "expires_at",
    "used_at",
    "revoked_at",
)
TIMES = ("created_at", "expires_at", "used_at", "revoked_at")
SELECT = f"SELECT {', '.join(COLUMNS)} FROM refresh_tokens"


def to_row(token: RefreshToken) -> Parameters:
    """Return the columns of a refresh token, by name."""
    times = {name: to_timestamp(getattr(token, name)) for name in TIMES}
    return token.model_dump() | times | {"scopes": to_names(token.scopes)}


def from_row(row: Row) -> RefreshToken:
    """Return the refresh token in a row of ``SELECT``."""
    times = {name: from_timestamp(row[name]) for name in TIMES}
    return RefreshToken.model_validate({**row, **times, "scopes": from_names(row["scopes"])})


@dataclass(frozen=True)
class RefreshTokens:
    """The ``refresh_tokens`` repository, bound to one connection and its transaction."""

    connection: Connection

    def insert(self, token: RefreshToken) -> None:
        """Add a refresh token."""
        self.connection.execute(sql(insert_statement("refresh_tokens", COLUMNS)), to_row(token))

    def find(self, token_sha256: str) -> RefreshToken | None:
        """Return the refresh token with this digest, of any tenant: the token alone identifies the caller."""
        statement = sql(f"{SELECT} WHERE token_sha256 = :token_sha256")
        row = self.connection.execute(statement, {"token_sha256": token_sha256}).mappings().one_or_none()
        return None if row is None else from_row(row)

    def lock(self, token_sha256: str) -> RefreshToken | None:
        """Return the refresh token with this digest, locked until this transaction ends."""
        # Before any SELECT, so that MySQL reads what the last transaction committed.
        statement = "UPDATE refresh_tokens SET token_sha256 = token_sha256 WHERE token_sha256 = :token_sha256"
        self.connection.execute(sql(statement), {"token_sha256": token_sha256})
        return self.find(token_sha256)

    def use(self, token_sha256: str, *, tenant_id: TenantId, at: datetime) -> bool:
        """Mark a token as used; return True for exactly one caller, ever."""
        statement = """
            UPDATE refresh_tokens SET used_at = :at
             WHERE token_sha256 = :token_sha256 AND tenant_id = :tenant_id AND used_at IS NULL AND revoked_at IS NULL
        """
        parameters = {"at": to_timestamp(at), "token_sha256": token_sha256, "tenant_id": tenant_id}
        return self.connection.execute(sql(statement), parameters).rowcount == 1

    def revoke_session(self, session_guid: SessionGuid, *, tenant_id: TenantId, at: datetime) -> bool:
        """Revoke a sign-in with all its tokens; return False if it was already revoked."""
        return self._revoke("session_guid = :guid", session_guid, tenant_id, at)

    def revoke_sessions_of_user(self, user_guid: UserGuid, *, tenant_id: TenantId, at: datetime) -> None:
        """Revoke all sign-ins of a user."""
        self._revoke("user_guid = :guid", user_guid, tenant_id, at)

    def is_session_revoked(self, session_guid: str, *, tenant_id: TenantId) -> bool:
        """Return whether a sign-in was revoked."""
        statement = """
            SELECT COUNT(*) FROM refresh_tokens
             WHERE session_guid = :guid AND tenant_id = :tenant_id AND revoked_at IS NOT NULL
        """
        parameters = {"guid": session_guid, "tenant_id": tenant_id}
        return bool(self.connection.execute(sql(statement), parameters).scalar_one())

    def delete_expired(self, *, before: datetime) -> None:
        """Remove long-expired tokens of all tenants."""
        statement = "DELETE FROM refresh_tokens WHERE expires_at < :before"
        self.connection.execute(sql(statement), {"before": to_timestamp(before)})

    def delete_of_tenant(self, *, tenant_id: TenantId) -> None:
        """Remove all refresh tokens of the tenant."""
        statement = "DELETE FROM refresh_tokens WHERE tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"tenant_id": tenant_id})

    def _revoke(self, condition: str, guid: str, tenant_id: TenantId, at: datetime) -> bool:
        statement = f"""
            UPDATE refresh_tokens SET revoked_at = :at
             WHERE {condition} AND tenant_id = :tenant_id AND revoked_at IS NULL
        """
        parameters = {"at": to_timestamp(at), "guid": guid, "tenant_id": tenant_id}
        return self.connection.execute(sql(statement), parameters).rowcount > 0
