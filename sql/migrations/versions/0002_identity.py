"""Users, tokens, the audit log, and what tenants, keys and generations need beside them.

Times are DATETIME in UTC from here on: a TIMESTAMP ends in 2038, before a key may expire.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

MYSQL_TABLE = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"
ASCII = "CHARACTER SET ascii COLLATE ascii_bin"

MYSQL = [
    """
ALTER TABLE tenants
    ADD COLUMN status VARCHAR(16) NOT NULL DEFAULT 'active',
    ADD COLUMN images_per_minute INT NULL,
    ADD COLUMN monthly_budget_micro_usd BIGINT NULL,
    ADD COLUMN allowed_models TEXT NULL
""",
    """
ALTER TABLE api_keys
    MODIFY COLUMN expires_at DATETIME NULL,
    ADD COLUMN allowed_models TEXT NULL,
    ADD COLUMN images_per_minute INT NULL,
    ADD COLUMN last_used_at DATETIME NULL,
    ADD COLUMN former_sha256 CHAR(64) NULL,
    ADD COLUMN former_secret_until DATETIME NULL
""",
    """
ALTER TABLE generations
    ADD COLUMN subject VARCHAR(255) NULL,
    ADD COLUMN resolved_at DATETIME NULL,
    ADD KEY generations_tenant (tenant_id, created_at)
""",
    f"""
CREATE TABLE users (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    username VARCHAR(128) {ASCII} NOT NULL UNIQUE,
    password_hash VARCHAR(255) {ASCII} NOT NULL,
    role VARCHAR(16) NOT NULL,
    status VARCHAR(16) NOT NULL,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    last_sign_in_at DATETIME NULL,
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) {MYSQL_TABLE}
""",
    f"""
CREATE TABLE refresh_tokens (
    id INT AUTO_INCREMENT PRIMARY KEY,
    token_sha256 CHAR(64) {ASCII} NOT NULL UNIQUE,
    session_guid VARCHAR(36) NOT NULL,
    tenant_id INT NOT NULL,
    user_guid VARCHAR(36) NOT NULL,
    client_id VARCHAR(255) {ASCII} NULL,
    scopes VARCHAR(255) NOT NULL,
    created_at DATETIME NOT NULL,
    expires_at DATETIME NOT NULL,
    used_at DATETIME NULL,
    revoked_at DATETIME NULL,
    KEY refresh_tokens_session (session_guid),
    KEY refresh_tokens_user (user_guid),
    KEY refresh_tokens_expiry (expires_at),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) {MYSQL_TABLE}
""",
    f"""
CREATE TABLE revoked_tokens (
    id INT AUTO_INCREMENT PRIMARY KEY,
    token_id VARCHAR(64) {ASCII} NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    expires_at DATETIME NOT NULL,
    revoked_at DATETIME NOT NULL,
    KEY revoked_tokens_expiry (expires_at),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) {MYSQL_TABLE}
""",
    f"""
CREATE TABLE audit_log (
    sequence BIGINT NOT NULL PRIMARY KEY,
    at DATETIME NOT NULL,
    actor_type VARCHAR(16) NOT NULL,
    actor VARCHAR(255) NOT NULL,
    actor_tenant_guid VARCHAR(36) NULL,
    action VARCHAR(32) NOT NULL,
    tenant_guid VARCHAR(36) NULL,
    target VARCHAR(255) NULL,
    address VARCHAR(64) NULL,
    request_id VARCHAR(255) NOT NULL,
    details TEXT NOT NULL,
    previous_sha256 CHAR(64) NOT NULL,
    entry_sha256 CHAR(64) NOT NULL,
    KEY audit_log_tenant (tenant_guid, sequence),
    KEY audit_log_action (action, sequence)
) {MYSQL_TABLE}
""",
    f"""
CREATE TABLE audit_head (
    id INT NOT NULL PRIMARY KEY,
    sequence BIGINT NOT NULL,
    entry_sha256 CHAR(64) NOT NULL
) {MYSQL_TABLE}
""",
    f"INSERT INTO audit_head (id, sequence, entry_sha256) VALUES (1, 0, '{'0' * 64}')",
]

SQLITE = [
    "ALTER TABLE tenants ADD COLUMN status VARCHAR(16) NOT NULL DEFAULT 'active'",
    "ALTER TABLE tenants ADD COLUMN images_per_minute INTEGER NULL",
    "ALTER TABLE tenants ADD COLUMN monthly_budget_micro_usd BIGINT NULL",
    "ALTER TABLE tenants ADD COLUMN allowed_models TEXT NULL",
    "ALTER TABLE api_keys ADD COLUMN allowed_models TEXT NULL",
    "ALTER TABLE api_keys ADD COLUMN images_per_minute INTEGER NULL",
    "ALTER TABLE api_keys ADD COLUMN last_used_at DATETIME NULL",
    "ALTER TABLE api_keys ADD COLUMN former_sha256 CHAR(64) NULL",
    "ALTER TABLE api_keys ADD COLUMN former_secret_until DATETIME NULL",
    "ALTER TABLE generations ADD COLUMN subject VARCHAR(255) NULL",
    "ALTER TABLE generations ADD COLUMN resolved_at DATETIME NULL",
    "CREATE INDEX generations_tenant ON generations (tenant_id, created_at)",
    """
CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    username VARCHAR(128) NOT NULL UNIQUE,
    password_hash VARCHAR(255) NOT NULL,
    role VARCHAR(16) NOT NULL,
    status VARCHAR(16) NOT NULL,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    last_sign_in_at DATETIME NULL
)
""",
    """
CREATE TABLE refresh_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_sha256 CHAR(64) NOT NULL UNIQUE,
    session_guid VARCHAR(36) NOT NULL,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    user_guid VARCHAR(36) NOT NULL,
    client_id VARCHAR(255) NULL,
    scopes VARCHAR(255) NOT NULL,
    created_at DATETIME NOT NULL,
    expires_at DATETIME NOT NULL,
    used_at DATETIME NULL,
    revoked_at DATETIME NULL
)
""",
    "CREATE INDEX refresh_tokens_session ON refresh_tokens (session_guid)",
    "CREATE INDEX refresh_tokens_user ON refresh_tokens (user_guid)",
    "CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at)",
    """
CREATE TABLE revoked_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_id VARCHAR(64) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    expires_at DATETIME NOT NULL,
    revoked_at DATETIME NOT NULL
)
""",
    "CREATE INDEX revoked_tokens_expiry ON revoked_tokens (expires_at)",
    """
CREATE TABLE audit_log (
    sequence INTEGER NOT NULL PRIMARY KEY,
    at DATETIME NOT NULL,
    actor_type VARCHAR(16) NOT NULL,
    actor VARCHAR(255) NOT NULL,
    actor_tenant_guid VARCHAR(36) NULL,
    action VARCHAR(32) NOT NULL,
    tenant_guid VARCHAR(36) NULL,
    target VARCHAR(255) NULL,
    address VARCHAR(64) NULL,
    request_id VARCHAR(255) NOT NULL,
    details TEXT NOT NULL,
    previous_sha256 CHAR(64) NOT NULL,
    entry_sha256 CHAR(64) NOT NULL
)
""",
    "CREATE INDEX audit_log_tenant ON audit_log (tenant_guid, sequence)",
    "CREATE INDEX audit_log_action ON audit_log (action, sequence)",
    """
CREATE TABLE audit_head (
    id INTEGER NOT NULL PRIMARY KEY,
    sequence BIGINT NOT NULL,
    entry_sha256 CHAR(64) NOT NULL
)
""",
    f"INSERT INTO audit_head (id, sequence, entry_sha256) VALUES (1, 0, '{'0' * 64}')",
]


def upgrade() -> None:
    """Alter and create the tables."""
    statements = SQLITE if op.get_context().dialect.name == "sqlite" else MYSQL
    for statement in statements:
        op.execute(statement.strip())
