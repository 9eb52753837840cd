"""The ``tenants`` table."""

from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.exceptions import TenantExistsException
from pixyproxy.core.models.budget import MICRO
from pixyproxy.core.models.tenant import Tenant, TenantId
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
    "name",
    "status",
    "default_visibility",
    "images_per_minute",
    "monthly_budget_micro_usd",
    "allowed_models",
    "created_at",
)
SELECT = f"SELECT id, {', '.join(COLUMNS)} FROM tenants"


def to_row(tenant: Tenant) -> Parameters:
    """Return the columns of a tenant, by name; money is in whole micro-dollars."""
    budget = tenant.monthly_budget_usd
    return {
        "guid": tenant.guid,
        "name": tenant.name,
        "status": tenant.status.value,
        "default_visibility": tenant.default_visibility.value,
        "images_per_minute": tenant.images_per_minute,
        "monthly_budget_micro_usd": None if budget is None else int(budget * MICRO),
        "allowed_models": to_names(tenant.allowed_models),
        "created_at": to_timestamp(tenant.created_at),
    }


def from_row(row: Row) -> Tenant:
    """Return the tenant in a row of ``SELECT``."""
    values = dict(row)
    budget = values.pop("monthly_budget_micro_usd")
    return Tenant.model_validate(
        values
        | {
            "monthly_budget_usd": None if budget is None else Decimal(budget) / MICRO,
            "allowed_models": from_names(row["allowed_models"]),
            "created_at": from_timestamp(row["created_at"]),
        }
    )


@dataclass(frozen=True)
class Tenants:
    """The ``tenants`` repository, bound to one connection and its transaction."""

    connection: Connection

    def insert(self, tenant: Tenant) -> Tenant:
        """Add a tenant and return it with its id. Raise ``TenantExistsException`` if the name is taken."""
        try:
            result = self.connection.execute(sql(insert_statement("tenants", COLUMNS)), to_row(tenant))
        except IntegrityError as error:
            raise TenantExistsException from error
        return tenant.model_copy(update={"id": TenantId(result.lastrowid)})

    def lock(self, name_or_guid: str) -> Tenant | None:
        """Return the tenant with this GUID or name, locked until this transaction ends."""
        # Before any SELECT, so that MySQL reads what the last transaction committed.
        statement = "UPDATE tenants SET guid = guid WHERE guid = :value OR name = :value"
        self.connection.execute(sql(statement), {"value": name_or_guid})
        return self.find(name_or_guid)

    def find(self, name_or_guid: str) -> Tenant | None:
        """Return the tenant with this GUID, or else with this name."""
        return self.get_by_guid(name_or_guid.lower()) or self.get_by_name(name_or_guid)

    def update(self, tenant: Tenant) -> None:
        """Update a tenant's changeable columns. Raise ``TenantExistsException`` if the name is taken."""
        statement = """
            UPDATE tenants
               SET name = :name, status = :status, default_visibility = :default_visibility,
                   images_per_minute = :images_per_minute, monthly_budget_micro_usd = :monthly_budget_micro_usd,
                   allowed_models = :allowed_models
             WHERE guid = :guid
        """
        try:
            self.connection.execute(sql(statement), to_row(tenant))
        except IntegrityError as error:
            raise TenantExistsException from error

    def delete(self, tenant_id: TenantId) -> None:
        """Remove a tenant that no longer owns anything."""
        self.connection.execute(sql("DELETE FROM tenants WHERE id = :id"), {"id": tenant_id})

    def get_by_id(self, tenant_id: TenantId) -> Tenant | None:
        """Return the tenant with this internal id."""
        row = self.connection.execute(sql(f"{SELECT} WHERE id = :id"), {"id": tenant_id}).mappings().one_or_none()
        return None if row is None else from_row(row)

    def get_by_guid(self, guid: str) -> Tenant | None:
        """Return the tenant with exactly this GUID."""
        found = self._one("guid", guid)
        return found if found is not None and found.guid == guid else None

    def get_by_name(self, name: str) -> Tenant | None:
        """Return the tenant with exactly this name."""
        # MySQL ignores trailing spaces even in a binary collation, and more in others.
        found = self._one("name", name)
        return found if found is not None and found.name == name else None

    def list_all(self) -> list[Tenant]:
        """Return all tenants, oldest first."""
        return [from_row(row) for row in self.connection.execute(sql(f"{SELECT} ORDER BY id")).mappings()]

    def list_deleting(self) -> list[Tenant]:
        """Return the tenants whose deletion has started but not finished."""
        statement = sql(f"{SELECT} WHERE status = 'deleting' ORDER BY id")
        return [from_row(row) for row in self.connection.execute(statement).mappings()]

    def _one(self, column: str, value: str) -> Tenant | None:
        statement = sql(f"{SELECT} WHERE {column} = :value")
        row = self.connection.execute(statement, {"value": value}).mappings().one_or_none()
        return None if row is None else from_row(row)
