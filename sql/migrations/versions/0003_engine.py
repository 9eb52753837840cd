"""What the generation engine needs: orders of several pictures, leases, costs and budgets."""

from alembic import op

revision = "0003"
down_revision = "0002"

MYSQL_TABLE = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"

MYSQL = [
    """
ALTER TABLE generations
    CHANGE COLUMN image_guid image_guids VARCHAR(400) NOT NULL,
    ADD COLUMN terms MEDIUMTEXT NULL,
    ADD COLUMN upstream VARCHAR(64) NULL,
    ADD COLUMN lease_owner VARCHAR(36) NULL,
    ADD COLUMN lease_until DATETIME NULL,
    ADD COLUMN budget_month CHAR(7) NULL,
    ADD COLUMN reserved_micro_usd BIGINT NULL,
    ADD COLUMN cost_micro_usd BIGINT NULL,
    ADD COLUMN image_count INT NOT NULL DEFAULT 1,
    ADD COLUMN answer MEDIUMTEXT NULL,
    ADD COLUMN error TEXT NULL,
    ADD COLUMN finished_at DATETIME NULL
""",
    f"""
CREATE TABLE budgets (
    tenant_id INT NOT NULL,
    month CHAR(7) NOT NULL,
    reserved_micro_usd BIGINT NOT NULL DEFAULT 0,
    spent_micro_usd BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, month),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) {MYSQL_TABLE}
""",
]

SQLITE = [
    "ALTER TABLE generations RENAME COLUMN image_guid TO image_guids",
    "ALTER TABLE generations ADD COLUMN terms TEXT NULL",
    "ALTER TABLE generations ADD COLUMN upstream VARCHAR(64) NULL",
    "ALTER TABLE generations ADD COLUMN lease_owner VARCHAR(36) NULL",
    "ALTER TABLE generations ADD COLUMN lease_until DATETIME NULL",
    "ALTER TABLE generations ADD COLUMN budget_month CHAR(7) NULL",
    "ALTER TABLE generations ADD COLUMN reserved_micro_usd BIGINT NULL",
    "ALTER TABLE generations ADD COLUMN cost_micro_usd BIGINT NULL",
    "ALTER TABLE generations ADD COLUMN image_count INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE generations ADD COLUMN answer TEXT NULL",
    "ALTER TABLE generations ADD COLUMN error TEXT NULL",
    "ALTER TABLE generations ADD COLUMN finished_at DATETIME NULL",
    """
CREATE TABLE budgets (
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    month CHAR(7) NOT NULL,
    reserved_micro_usd BIGINT NOT NULL DEFAULT 0,
    spent_micro_usd BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, month)
)
""",
]


def upgrade() -> None:
    """Alter and create the tables."""
    statements = SQLITE if op.get_context().dialect.name == "sqlite" else MYSQL
    for statement in statements:
        op.execute(statement.strip())
