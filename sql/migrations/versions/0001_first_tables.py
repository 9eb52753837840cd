"""Tenants, API keys, generations and images.

``images`` is the table that PixyProxy was asked for, column for column, with what tenancy and serving need.
One of its types is wider: ``prompt`` is a MEDIUMTEXT, since a TEXT holds 65,535 bytes and a prompt of
32,000 characters takes up to 128,000.
"""

from alembic import op

revision = "0001"
down_revision = None

MYSQL_TABLE = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"

MYSQL = [
    f"""
CREATE TABLE tenants (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    name VARCHAR(255) COLLATE utf8mb4_bin NOT NULL UNIQUE,
    default_visibility VARCHAR(16) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
) {MYSQL_TABLE}
""",
    f"""
CREATE TABLE api_keys (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    key_id VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
    secret_sha256 CHAR(64) NOT NULL,
    name VARCHAR(255) NOT NULL,
    scopes VARCHAR(255) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    expires_at TIMESTAMP NULL,
    revoked_at TIMESTAMP NULL,
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) {MYSQL_TABLE}
""",
    f"""
CREATE TABLE generations (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    idempotency_key VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NULL,
    fingerprint CHAR(64) NOT NULL,
    status VARCHAR(16) NOT NULL,
    image_guid VARCHAR(36) NOT NULL,
    prompt MEDIUMTEXT NOT NULL,
    filename VARCHAR(255) NULL,
    visibility VARCHAR(16) NOT NULL,
    model VARCHAR(128) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    UNIQUE KEY generations_idempotency (tenant_id, idempotency_key),
    KEY generations_status (status, created_at),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) {MYSQL_TABLE}
""",
    f"""
CREATE TABLE images (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    filename VARCHAR(255) NOT NULL,
    prompt MEDIUMTEXT NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    tenant_id INT NOT NULL,
    generation_id INT NOT NULL,
    visibility VARCHAR(16) NOT NULL,
    media_type VARCHAR(64) NOT NULL,
    byte_size BIGINT NOT NULL,
    sha256 CHAR(64) NOT NULL,
    width INT NOT NULL,
    height INT NOT NULL,
    model VARCHAR(128) NOT NULL,
    KEY images_tenant (tenant_id, id),
    KEY images_visibility (visibility, id),
    KEY images_generation (generation_id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    FOREIGN KEY (generation_id) REFERENCES generations (id)
) {MYSQL_TABLE}
""",
]

SQLITE = [
    """
CREATE TABLE tenants (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    name VARCHAR(255) NOT NULL UNIQUE,
    default_visibility VARCHAR(16) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
)
""",
    """
CREATE TABLE api_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    key_id VARCHAR(16) NOT NULL UNIQUE,
    secret_sha256 CHAR(64) NOT NULL,
    name VARCHAR(255) NOT NULL,
    scopes VARCHAR(255) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    expires_at TIMESTAMP NULL,
    revoked_at TIMESTAMP NULL
)
""",
    """
CREATE TABLE generations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    idempotency_key VARCHAR(255) NULL,
    fingerprint CHAR(64) NOT NULL,
    status VARCHAR(16) NOT NULL,
    image_guid VARCHAR(36) NOT NULL,
    prompt TEXT NOT NULL,
    filename VARCHAR(255) NULL,
    visibility VARCHAR(16) NOT NULL,
    model VARCHAR(128) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (tenant_id, idempotency_key)
)
""",
    "CREATE INDEX generations_status ON generations (status, created_at)",
    """
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    filename VARCHAR(255) NOT NULL,
    prompt TEXT NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    generation_id INTEGER NOT NULL REFERENCES generations (id),
    visibility VARCHAR(16) NOT NULL,
    media_type VARCHAR(64) NOT NULL,
    byte_size BIGINT NOT NULL,
    sha256 CHAR(64) NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    model VARCHAR(128) NOT NULL
)
""",
    "CREATE INDEX images_tenant ON images (tenant_id, id)",
    "CREATE INDEX images_visibility ON images (visibility, id)",
    "CREATE INDEX images_generation ON images (generation_id)",
]


def upgrade() -> None:
    """Create the tables."""
    statements = SQLITE if op.get_context().dialect.name == "sqlite" else MYSQL
    for statement in statements:
        op.execute(statement.strip())
