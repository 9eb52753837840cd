"""The ``budgets`` table: each tenant's reserved and spent amounts per month."""

from dataclasses import dataclass

from sqlalchemy import Connection

from pixyproxy.core.models.budget import Spending
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.rows import Row, sql

COLUMNS = ("month", "reserved_micro_usd", "spent_micro_usd")
OTHERWISE = {"mysql": "ON DUPLICATE KEY UPDATE month = VALUES(month)", "sqlite": "ON CONFLICT DO NOTHING"}
"""The clause of an INSERT for an existing row, by dialect."""
SELECT = f"SELECT {', '.join(COLUMNS)} FROM budgets"


def from_row(row: Row) -> Spending:
    """Return the spending in a row of ``SELECT``."""
    return Spending.model_validate(dict(row))


@dataclass(frozen=True)
class Budgets:
    """The ``budgets`` repository, bound to one connection and its transaction. Amounts are micro-dollars."""

    connection: Connection

    def lock(self, month: str, *, tenant_id: TenantId) -> None:
        """Lock the tenant's month against other reservations and settlements until this transaction ends.

        A deleted tenant has no budget, and nothing is locked. Decisions under this lock also write the row, because in
        a cluster a lock holds on one node only.
        """
        statement = sql("UPDATE budgets SET decisions = decisions + 1 WHERE tenant_id = :tenant_id AND month = :month")
        parameters = {"tenant_id": tenant_id, "month": month}
        if not self.connection.execute(statement, parameters).rowcount:
            otherwise = OTHERWISE[self.connection.dialect.name]
            begin = f"""
                INSERT INTO budgets (tenant_id, month) SELECT id, :month FROM tenants WHERE id = :tenant_id {otherwise}
            """
            self.connection.execute(sql(begin), parameters)
            self.connection.execute(statement, parameters)

    def reserve(self, month: str, amount: int, *, tenant_id: TenantId) -> bool:
        """Reserve an amount of the month's budget; return False if less is left. Without a limit it always fits.

        The month's row exists once it was locked. A single statement compares and adds, so that concurrent orders
        cannot exceed the limit.
        """
        statement = """
            UPDATE budgets
               SET reserved_micro_usd = reserved_micro_usd + :amount
             WHERE tenant_id = :tenant_id AND month = :month
               AND reserved_micro_usd + spent_micro_usd + :amount <= COALESCE(
                   (SELECT monthly_budget_micro_usd FROM tenants WHERE id = :tenant_id), 9223372036854775807)
        """
        parameters = {"tenant_id": tenant_id, "month": month, "amount": amount}
        return self.connection.execute(sql(statement), parameters).rowcount == 1

    def settle(self, month: str, *, released: int, spent: int, tenant_id: TenantId) -> None:
        """Release a reservation and record the amount spent, which may be more than zero without a reservation.

        The month's row exists once it was locked.
        """
        statement = """
            UPDATE budgets
               SET reserved_micro_usd = reserved_micro_usd - :released,
                   spent_micro_usd = spent_micro_usd + :spent
             WHERE tenant_id = :tenant_id AND month = :month
        """
        parameters = {"tenant_id": tenant_id, "month": month, "released": released, "spent": spent}
        self.connection.execute(sql(statement), parameters)

    def get(self, month: str, *, tenant_id: TenantId) -> Spending:
        """Return the tenant's reserved and spent amounts of a month."""
        statement = sql(f"{SELECT} WHERE tenant_id = :tenant_id AND month = :month")
        parameters = {"tenant_id": tenant_id, "month": month}
        row = self.connection.execute(statement, parameters).mappings().one_or_none()
        return Spending(month=month) if row is None else from_row(row)

    def delete_all(self, *, tenant_id: TenantId) -> None:
        """Remove all budgets of the tenant."""
        self.connection.execute(sql("DELETE FROM budgets WHERE tenant_id = :tenant_id"), {"tenant_id": tenant_id})
