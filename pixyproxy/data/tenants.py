"""The ``tenants`` table."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.exceptions import TenantExistsException
from pixyproxy.core.models.tenant import Tenant, TenantGuid, TenantId, Visibility
from pixyproxy.data.rows import Parameters, Row, from_timestamp, insert_statement, to_timestamp

COLUMNS = ("guid", "name", "default_visibility", "created_at")
SELECT = f"SELECT id, {', '.join(COLUMNS)} FROM tenants"


def to_row(tenant: Tenant) -> Parameters:
    """The columns of a tenant, by name."""
    return tenant.model_dump(mode="json", include=set(COLUMNS)) | {"created_at": to_timestamp(tenant.created_at)}


def from_row(row: Row) -> Tenant:
    """The tenant in a row of ``SELECT``."""
    return Tenant.model_validate({**row, "created_at": from_timestamp(row["created_at"])})


@dataclass(frozen=True)
class Tenants:
    """The tenants, bound to one connection and its transaction."""

    connection: Connection

    def insert(self, *, guid: TenantGuid, name: str, default_visibility: Visibility, created_at: datetime) -> Tenant:
        """Add a tenant. Raises ``TenantExistsException`` where the name is taken."""
        tenant = Tenant(
            id=TenantId(0), guid=guid, name=name, default_visibility=default_visibility, created_at=created_at
        )
        try:
            result = self.connection.execute(text(insert_statement("tenants", COLUMNS)), to_row(tenant))
        except IntegrityError as error:
            raise TenantExistsException from error
        return tenant.model_copy(update={"id": TenantId(result.lastrowid)})

    def get_by_guid(self, guid: str) -> Tenant | None:
        """The tenant of this GUID."""
        return self._one("guid", guid)

    def get_by_name(self, name: str) -> Tenant | None:
        """The tenant of this name."""
        return self._one("name", name)

    def list_all(self) -> list[Tenant]:
        """Every tenant, oldest first."""
        return [from_row(row) for row in self.connection.execute(text(f"{SELECT} ORDER BY id")).mappings()]

    def _one(self, column: str, value: str) -> Tenant | None:
        statement = text(f"{SELECT} WHERE {column} = :value")
        row = self.connection.execute(statement, {"value": value}).mappings().one_or_none()
        return None if row is None else from_row(row)
