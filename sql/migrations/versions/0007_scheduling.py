"""The generations table becomes the queue of the whole installation: upstreams, turns of tenants, retries."""

from alembic import op

revision = "0007"
down_revision = "0006"

MYSQL_TABLE = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"

MYSQL = [
    # Names of models differ in case; the queue is read by model.
    """
ALTER TABLE generations
    MODIFY COLUMN model VARCHAR(128) COLLATE utf8mb4_bin NOT NULL,
    ADD COLUMN upstream_id INT NULL,
    ADD COLUMN started_at DOUBLE NULL,
    ADD COLUMN place_until DOUBLE NULL,
    ADD COLUMN excluded VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    ADD COLUMN version INT NOT NULL DEFAULT 0,
    ADD COLUMN content CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD COLUMN follower VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD COLUMN lost_at DOUBLE NULL,
    ADD COLUMN adopted_at DOUBLE NULL,
    ADD KEY generations_queue (status, tenant_id, model, excluded, id),
    ADD KEY generations_place (upstream_id, place_until),
    ADD KEY generations_content (content, id)
""",
    "ALTER TABLE budgets ADD COLUMN decisions BIGINT NOT NULL DEFAULT 0",
    f"""
CREATE TABLE upstreams (
    id INT AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
    revision DOUBLE NOT NULL,
    weight INT NOT NULL,
    concurrency INT NOT NULL,
    requests_per_minute INT NULL,
    share DOUBLE NOT NULL DEFAULT 0,
    paused_until DOUBLE NOT NULL DEFAULT 0,
    failed_at DOUBLE NOT NULL DEFAULT 0,
    failures INT NOT NULL DEFAULT 0,
    unusable INT NOT NULL DEFAULT 0,
    mean_seconds DOUBLE NULL
) {MYSQL_TABLE}
""",
    f"""
CREATE TABLE upstream_starts (
    id BIGINT AUTO_INCREMENT PRIMARY KEY,
    upstream_id INT NOT NULL,
    started_at DOUBLE NOT NULL,
    KEY upstream_starts_time (upstream_id, started_at)
) {MYSQL_TABLE}
""",
    f"""
CREATE TABLE tenant_turns (
    tenant_id INT NOT NULL,
    upstream_id INT NOT NULL,
    began_at DOUBLE NOT NULL,
    PRIMARY KEY (tenant_id, upstream_id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) {MYSQL_TABLE}
""",
]

SQLITE = [
    "ALTER TABLE generations ADD COLUMN upstream_id INTEGER NULL",
    "ALTER TABLE generations ADD COLUMN started_at DOUBLE NULL",
    "ALTER TABLE generations ADD COLUMN place_until DOUBLE NULL",
    "ALTER TABLE generations ADD COLUMN excluded VARCHAR(100) NOT NULL DEFAULT ''",
    "ALTER TABLE generations ADD COLUMN version INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE generations ADD COLUMN content CHAR(64) NULL",
    "ALTER TABLE generations ADD COLUMN follower VARCHAR(36) NULL",
    "ALTER TABLE generations ADD COLUMN lost_at DOUBLE NULL",
    "ALTER TABLE generations ADD COLUMN adopted_at DOUBLE NULL",
    "ALTER TABLE budgets ADD COLUMN decisions BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX generations_queue ON generations (status, tenant_id, model, excluded, id)",
    "CREATE INDEX generations_place ON generations (upstream_id, place_until)",
    "CREATE INDEX generations_content ON generations (content, id)",
    """
CREATE TABLE upstreams (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name VARCHAR(64) NOT NULL UNIQUE,
    revision DOUBLE NOT NULL,
    weight INTEGER NOT NULL,
    concurrency INTEGER NOT NULL,
    requests_per_minute INTEGER NULL,
    share DOUBLE NOT NULL DEFAULT 0,
    paused_until DOUBLE NOT NULL DEFAULT 0,
    failed_at DOUBLE NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    unusable INTEGER NOT NULL DEFAULT 0,
    mean_seconds DOUBLE NULL
)
""",
    """
CREATE TABLE upstream_starts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    upstream_id INTEGER NOT NULL,
    started_at DOUBLE NOT NULL
)
""",
    "CREATE INDEX upstream_starts_time ON upstream_starts (upstream_id, started_at)",
    """
CREATE TABLE tenant_turns (
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    upstream_id INTEGER NOT NULL,
    began_at DOUBLE NOT NULL,
    PRIMARY KEY (tenant_id, upstream_id)
)
""",
]


def upgrade() -> None:
    """Alter and create the tables.

    Orders that wait are executed by whichever process comes first. Those that were at an upstream when the processes
    stopped become ``unknown`` with their lease, as after a crash.
    """
    statements = SQLITE if op.get_context().dialect.name == "sqlite" else MYSQL
    for statement in statements:
        op.execute(statement.strip())
