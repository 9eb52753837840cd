"""The ``users`` table."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.exceptions import UserExistsException
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.user import StoredUser, UserGuid
from pixyproxy.data.rows import Parameters, Row, from_timestamp, insert_statement, sql, to_timestamp

COLUMNS = (
    "guid",
    "tenant_id",
    "username",
    "password_hash",
    "role",
    "status",
    "created_at",
    "updated_at",
    "last_sign_in_at",
)
TIMES = ("created_at", "updated_at", "last_sign_in_at")
SELECT = f"SELECT id, {', '.join(COLUMNS)} FROM users"


def to_row(user: StoredUser) -> Parameters:
    """Return the columns of a user, by name."""
    times = {name: to_timestamp(getattr(user, name)) for name in TIMES}
    return user.model_dump(mode="json") | times | {"password_hash": user.password_hash.get_secret_value()}


def from_row(row: Row) -> StoredUser:
    """Return the user in a row of ``SELECT``."""
    times = {name: from_timestamp(row[name]) for name in TIMES}
    return StoredUser.model_validate({name: row[name] for name in COLUMNS} | times)


@dataclass(frozen=True)
class Users:
    """The ``users`` repository, bound to one connection and its transaction."""

    connection: Connection

    def insert(self, user: StoredUser) -> None:
        """Add a user. Raise ``UserExistsException`` if the name is taken, in any tenant."""
        try:
            self.connection.execute(sql(insert_statement("users", COLUMNS)), to_row(user))
        except IntegrityError as error:
            raise UserExistsException from error

    def find_for_sign_in(self, username: str) -> StoredUser | None:
        """Return the user with exactly this name: people sign in before their tenant is known."""
        # MySQL cannot compare an ASCII column with non-ASCII text, and ignores trailing spaces.
        found = self._one("username = :username", {"username": username}) if username.isascii() else None
        return found if found is not None and found.username == username else None

    def get_own(self, guid: str, *, tenant_id: TenantId) -> StoredUser | None:
        """Return the tenant's own user."""
        return self._one("guid = :guid AND tenant_id = :tenant_id", {"guid": guid, "tenant_id": tenant_id})

    def lock_own(self, guid: str, *, tenant_id: TenantId) -> StoredUser | None:
        """Return the tenant's own user, locked until this transaction ends."""
        # Before any SELECT, so that MySQL reads what the last transaction committed.
        parameters = {"guid": guid, "tenant_id": tenant_id}
        statement = "UPDATE users SET guid = guid WHERE guid = :guid AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), parameters)
        return self.get_own(guid, tenant_id=tenant_id)

    def list_of_tenant(self, *, tenant_id: TenantId, after: int, limit: int) -> list[tuple[int, StoredUser]]:
        """Return at most ``limit`` of the tenant's users after the id ``after``, oldest first, each with its id."""
        statement = sql(f"{SELECT} WHERE tenant_id = :tenant_id AND id > :after ORDER BY id LIMIT :limit")
        parameters = {"tenant_id": tenant_id, "after": after, "limit": limit}
        return [(row["id"], from_row(row)) for row in self.connection.execute(statement, parameters).mappings()]

    def count(self, *, tenant_id: TenantId) -> int:
        """Return how many users the tenant has."""
        statement = sql("SELECT COUNT(*) FROM users WHERE tenant_id = :tenant_id")
        return int(self.connection.execute(statement, {"tenant_id": tenant_id}).scalar_one())

    def update(self, user: StoredUser, *, tenant_id: TenantId) -> None:
        """Update the password, role and status of the tenant's own user."""
        statement = """
            UPDATE users SET password_hash = :password_hash, role = :role, status = :status, updated_at = :updated_at
             WHERE guid = :guid AND tenant_id = :tenant_id
        """
        self.connection.execute(sql(statement), to_row(user) | {"tenant_id": tenant_id})

    def note_sign_in(self, guid: UserGuid, *, tenant_id: TenantId, at: datetime) -> None:
        """Record the last sign-in of the tenant's own user."""
        statement = "UPDATE users SET last_sign_in_at = :at WHERE guid = :guid AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"at": to_timestamp(at), "guid": guid, "tenant_id": tenant_id})

    def delete(self, guid: UserGuid, *, tenant_id: TenantId) -> None:
        """Remove the tenant's own user."""
        statement = "DELETE FROM users WHERE guid = :guid AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"guid": guid, "tenant_id": tenant_id})

    def delete_of_tenant(self, *, tenant_id: TenantId) -> None:
        """Remove all users of the tenant."""
        self.connection.execute(sql("DELETE FROM users WHERE tenant_id = :tenant_id"), {"tenant_id": tenant_id})

    def _one(self, condition: str, parameters: Parameters) -> StoredUser | None:
        row = self.connection.execute(sql(f"{SELECT} WHERE {condition}"), parameters).mappings().one_or_none()
        return None if row is None else from_row(row)
