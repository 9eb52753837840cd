"""Signing keys, encrypted with the installation's secret, and the verifier of that secret."""

from alembic import op

revision = "0005"
down_revision = "0004"

MYSQL_TABLE = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"
ASCII = "CHARACTER SET ascii COLLATE ascii_bin"

MYSQL = [
    f"""
CREATE TABLE installation (
    id INT NOT NULL PRIMARY KEY,
    secret_salt CHAR(32) {ASCII} NOT NULL,
    secret_verifier CHAR(64) {ASCII} NOT NULL,
    keys_revision BIGINT NOT NULL
) {MYSQL_TABLE}
""",
    f"""
CREATE TABLE signing_keys (
    kid VARCHAR(64) {ASCII} NOT NULL PRIMARY KEY,
    sealed_pem TEXT {ASCII} NULL,
    signs_from DATETIME NOT NULL,
    retires_at DATETIME NULL
) {MYSQL_TABLE}
""",
]

SQLITE = [
    """
CREATE TABLE installation (
    id INTEGER NOT NULL PRIMARY KEY,
    secret_salt CHAR(32) NOT NULL,
    secret_verifier CHAR(64) NOT NULL,
    keys_revision BIGINT NOT NULL
)
""",
    """
CREATE TABLE signing_keys (
    kid VARCHAR(64) NOT NULL PRIMARY KEY,
    sealed_pem TEXT NULL,
    signs_from DATETIME NOT NULL,
    retires_at DATETIME NULL
)
""",
]


def upgrade() -> None:
    """Create the tables."""
    statements = SQLITE if op.get_context().dialect.name == "sqlite" else MYSQL
    for statement in statements:
        op.execute(statement.strip())
