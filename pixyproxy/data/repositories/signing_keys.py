"""The ``signing_keys`` table, and ``installation``, whose only row serves as the writers' lock."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.models.signing_key import Installation, StoredSigningKey
from pixyproxy.data.rows import Parameters, Row, from_timestamp, insert_statement, sql, to_timestamp

COLUMNS = ("kid", "sealed_pem", "signs_from", "retires_at")
TIMES = ("signs_from", "retires_at")
SELECT = f"SELECT {', '.join(COLUMNS)} FROM signing_keys"
INSTALLATION_COLUMNS = ("secret_salt", "secret_verifier", "keys_revision")
SELECT_INSTALLATION = f"SELECT {', '.join(INSTALLATION_COLUMNS)} FROM installation WHERE id = 1"
INSERT_INSTALLATION = insert_statement("installation", ("id", *INSTALLATION_COLUMNS))


def to_row(key: StoredSigningKey) -> Parameters:
    """Return the columns of a key, by name."""
    return key.model_dump() | {name: to_timestamp(getattr(key, name)) for name in TIMES}


def from_row(row: Row) -> StoredSigningKey:
    """Return the key in a row of ``SELECT``."""
    return StoredSigningKey.model_validate({**row, **{name: from_timestamp(row[name]) for name in TIMES}})


@dataclass(frozen=True)
class SigningKeys:
    """The ``signing_keys`` repository, bound to one connection and its transaction. Call ``lock`` before any change."""

    connection: Connection

    def installation(self) -> Installation | None:
        """Return the installation; None before the first start."""
        row = self.connection.execute(sql(SELECT_INSTALLATION)).mappings().one_or_none()
        return None if row is None else Installation.model_validate(dict(row))

    def create_installation(self, installation: Installation) -> bool:
        """Add the only row; return False if another process was first."""
        try:
            self.connection.execute(sql(INSERT_INSTALLATION), {"id": 1, **installation.model_dump()})
        except IntegrityError:
            return False
        return True

    def lock(self, verifier: str) -> bool:
        """Lock out other writers until this transaction ends and count the change; return False if the secret differs.

        It is a real write, because Galera compares the writes of two nodes and not their locks. It precedes any SELECT,
        because at REPEATABLE READ the first one starts the snapshot.
        """
        statement = """
            UPDATE installation SET keys_revision = keys_revision + 1 WHERE id = 1 AND secret_verifier = :verifier
        """
        return self.connection.execute(sql(statement), {"verifier": verifier}).rowcount == 1

    def change_secret(self, *, salt: str, verifier: str) -> None:
        """Replace the verifier of the secret."""
        statement = "UPDATE installation SET secret_salt = :salt, secret_verifier = :verifier WHERE id = 1"
        self.connection.execute(sql(statement), {"salt": salt, "verifier": verifier})

    def list_all(self) -> list[StoredSigningKey]:
        """Return all keys, including erased ones."""
        return [from_row(row) for row in self.connection.execute(sql(SELECT)).mappings()]

    def insert(self, key: StoredSigningKey) -> None:
        """Add a key."""
        self.connection.execute(sql(insert_statement("signing_keys", COLUMNS)), to_row(key))

    def replace_sealed(self, key: StoredSigningKey) -> None:
        """Replace the encrypted private key."""
        statement = "UPDATE signing_keys SET sealed_pem = :sealed_pem WHERE kid = :kid"
        self.connection.execute(sql(statement), {"kid": key.kid, "sealed_pem": key.sealed_pem})

    def retire(self, *, at: datetime) -> None:
        """Set the retirement of keys that have none."""
        statement = "UPDATE signing_keys SET retires_at = :at WHERE retires_at IS NULL"
        self.connection.execute(sql(statement), {"at": to_timestamp(at)})

    def retire_all(self, *, at: datetime) -> None:
        """Retire all keys at this time or earlier."""
        statement = "UPDATE signing_keys SET retires_at = :at WHERE retires_at IS NULL OR retires_at > :at"
        self.connection.execute(sql(statement), {"at": to_timestamp(at)})

    def erase_retired(self, *, at: datetime) -> None:
        """Erase the private halves of keys retired by then."""
        statement = "UPDATE signing_keys SET sealed_pem = NULL WHERE retires_at <= :at"
        self.connection.execute(sql(statement), {"at": to_timestamp(at)})
