"""The ``budgets`` table: what each tenant has reserved and spent in each month."""

from dataclasses import dataclass

from sqlalchemy import Connection

from pixyproxy.core.models.budget import Spending
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.rows import Row, sql

COLUMNS = ("month", "reserved_micro_usd", "spent_micro_usd")
OTHERWISE = {"mysql": "ON DUPLICATE KEY UPDATE month = VALUES(month)", "sqlite": "ON CONFLICT DO NOTHING"}
"""What an INSERT does where the row is there already, by dialect."""
SELECT = f"SELECT {', '.join(COLUMNS)} FROM budgets"


def from_row(row: Row) -> Spending:
    """The spending in a row of ``SELECT``."""
    return Spending.model_validate(dict(row))


@dataclass(frozen=True)
class Budgets:
    """The budgets, bound to one connection and its transaction. Amounts are micro-dollars."""

    connection: Connection

    def lock(self, month: str, *, tenant_id: TenantId) -> None:
        """Have nobody else reserve or settle in the tenant's month before this transaction ends.

        A tenant that was removed has no budget, and nothing is locked. What is decided under this lock also writes the
        row: in a cluster a lock holds on one node alone.
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
        """Hold an amount of the month's budget; False where less than that is left. Without a limit it always fits.

        The month's row is there once it was locked. One statement compares and adds, so that no number of orders at
        once can overrun the limit.
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
        """Give back what was held and note what was spent of it, or of nothing, where no bound had been known.

        The month's row is there once it was locked.
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
        """What the tenant has reserved and spent in a month."""
        statement = sql(f"{SELECT} WHERE tenant_id = :tenant_id AND month = :month")
        parameters = {"tenant_id": tenant_id, "month": month}
        row = self.connection.execute(statement, parameters).mappings().one_or_none()
        return Spending(month=month) if row is None else from_row(row)

    def delete_all(self, *, tenant_id: TenantId) -> None:
        """Forget the tenant's budgets."""
        self.connection.execute(sql("DELETE FROM budgets WHERE tenant_id = :tenant_id"), {"tenant_id": tenant_id})
