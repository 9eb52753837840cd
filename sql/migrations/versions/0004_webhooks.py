"""Webhooks, and what is to be told to them."""

from alembic import op

revision = "0004"
down_revision = "0003"

MYSQL_TABLE = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"

MYSQL = [
    f"""
CREATE TABLE webhooks (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    url VARCHAR(2000) NOT NULL,
    events VARCHAR(255) NOT NULL,
    version INT NOT NULL,
    former_secret_until DATETIME NULL,
    created_at DATETIME NOT NULL,
    disabled_at DATETIME NULL,
    KEY webhooks_tenant (tenant_id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) {MYSQL_TABLE}
""",
    f"""
CREATE TABLE webhook_deliveries (
    id BIGINT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    webhook_guid VARCHAR(36) NOT NULL,
    event VARCHAR(64) NOT NULL,
    payload MEDIUMTEXT NOT NULL,
    status VARCHAR(16) NOT NULL,
    attempts INT NOT NULL,
    next_attempt_at DATETIME NULL,
    response_status INT NULL,
    problem VARCHAR(64) NULL,
    created_at DATETIME NOT NULL,
    finished_at DATETIME NULL,
    KEY webhook_deliveries_due (next_attempt_at, tenant_id),
    KEY webhook_deliveries_tenant (tenant_id, next_attempt_at),
    KEY webhook_deliveries_webhook (webhook_guid),
    KEY webhook_deliveries_age (created_at),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) {MYSQL_TABLE}
""",
]

SQLITE = [
    """
CREATE TABLE webhooks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    url VARCHAR(2000) NOT NULL,
    events VARCHAR(255) NOT NULL,
    version INTEGER NOT NULL,
    former_secret_until DATETIME NULL,
    created_at DATETIME NOT NULL,
    disabled_at DATETIME NULL
)
""",
    "CREATE INDEX webhooks_tenant ON webhooks (tenant_id)",
    """
CREATE TABLE webhook_deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    webhook_guid VARCHAR(36) NOT NULL,
    event VARCHAR(64) NOT NULL,
    payload TEXT NOT NULL,
    status VARCHAR(16) NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at DATETIME NULL,
    response_status INTEGER NULL,
    problem VARCHAR(64) NULL,
    created_at DATETIME NOT NULL,
    finished_at DATETIME NULL
)
""",
    "CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at, tenant_id)",
    "CREATE INDEX webhook_deliveries_tenant ON webhook_deliveries (tenant_id, next_attempt_at)",
    "CREATE INDEX webhook_deliveries_webhook ON webhook_deliveries (webhook_guid)",
    "CREATE INDEX webhook_deliveries_age ON webhook_deliveries (created_at)",
]


def upgrade() -> None:
    """Create the tables."""
    statements = SQLITE if op.get_context().dialect.name == "sqlite" else MYSQL
    for statement in statements:
        op.execute(statement.strip())
