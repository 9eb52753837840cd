"""The ``revoked_tokens`` table: ids of access tokens that were revoked before their expiry."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.token import RevokedToken
from pixyproxy.data.rows import Parameters, Row, from_timestamp, insert_statement, sql, to_timestamp

COLUMNS = ("token_id", "tenant_id", "expires_at", "revoked_at")
TIMES = ("expires_at", "revoked_at")
SELECT = f"SELECT {', '.join(COLUMNS)} FROM revoked_tokens"


def to_row(token: RevokedToken) -> Parameters:
    """Return the columns of a revoked token, by name."""
    return token.model_dump() | {name: to_timestamp(getattr(token, name)) for name in TIMES}


def from_row(row: Row) -> RevokedToken:
    """Return the revoked token in a row of ``SELECT``."""
    return RevokedToken.model_validate({**row, **{name: from_timestamp(row[name]) for name in TIMES}})


@dataclass(frozen=True)
class RevokedTokens:
    """The ``revoked_tokens`` repository, bound to one connection and its transaction."""

    connection: Connection

    def find(self, token_id: str, *, tenant_id: TenantId) -> RevokedToken | None:
        """Return the revocation of this token of the tenant, if any."""
        statement = sql(f"{SELECT} WHERE token_id = :token_id AND tenant_id = :tenant_id")
        parameters = {"token_id": token_id, "tenant_id": tenant_id}
        # MySQL cannot compare an ASCII column with non-ASCII text, and ignores trailing spaces.
        row = self.connection.execute(statement, parameters).mappings().one_or_none() if token_id.isascii() else None
        return from_row(row) if row is not None and row["token_id"] == token_id else None

    def insert(self, token: RevokedToken) -> bool:
        """Add a revocation; return False if one exists."""
        try:
            self.connection.execute(sql(insert_statement("revoked_tokens", COLUMNS)), to_row(token))
        except IntegrityError:
            return False
        return True

    def delete_expired(self, *, before: datetime) -> None:
        """Remove revocations of long-expired tokens of all tenants; these are now refused for their expiry."""
        statement = "DELETE FROM revoked_tokens WHERE expires_at < :before"
        self.connection.execute(sql(statement), {"before": to_timestamp(before)})

    def delete_of_tenant(self, *, tenant_id: TenantId) -> None:
        """Remove all revocations of the tenant."""
        statement = "DELETE FROM revoked_tokens WHERE tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"tenant_id": tenant_id})
