"""The processes of the installation."""

from alembic import op

revision = "0006"
down_revision = "0005"

MYSQL = """
CREATE TABLE processes (
    guid VARCHAR(36) NOT NULL PRIMARY KEY,
    host VARCHAR(255) NOT NULL,
    pid INT NOT NULL,
    serves BOOLEAN NOT NULL,
    executes BOOLEAN NOT NULL,
    redis BOOLEAN NOT NULL,
    started_at DATETIME NOT NULL,
    seen_at DATETIME NOT NULL,
    KEY processes_seen (seen_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci
"""

SQLITE = [
    """
CREATE TABLE processes (
    guid VARCHAR(36) NOT NULL PRIMARY KEY,
    host VARCHAR(255) NOT NULL,
    pid INTEGER NOT NULL,
    serves BOOLEAN NOT NULL,
    executes BOOLEAN NOT NULL,
    redis BOOLEAN NOT NULL,
    started_at DATETIME NOT NULL,
    seen_at DATETIME NOT NULL
)
""",
    "CREATE INDEX processes_seen ON processes (seen_at)",
]


def upgrade() -> None:
    """Create the table."""
    statements = SQLITE if op.get_context().dialect.name == "sqlite" else [MYSQL]
    for statement in statements:
        op.execute(statement.strip())
