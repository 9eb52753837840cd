"""The signing keys in the database: read, rotate and import them, each in one transaction under one lock."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.models.audit import AuditAction, NewAuditEntry
from pixyproxy.core.models.principal import Actor
from pixyproxy.core.models.signing_key import SigningKey, StoredSigningKey
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private import audit
from pixyproxy.service.private.identity.installation_secret import Seal, derive_seal, new_salt, seal_of
from pixyproxy.service.private.identity.oauth.jwt import signing_key_from_pem

PUBLISH_AHEAD = timedelta(seconds=600)
"""How long a new key is published before it signs; longer than caches keep the JWKS (``max-age`` 300)."""
LONGEST_TOKEN = timedelta(seconds=LONGEST_TOKEN_SECONDS)

DAMAGED = (
    "A key in the table signing_keys is damaged. Restore the table from a backup, or replace all keys with "
    "`pixyproxy keys reseal --lost`, which invalidates the tokens that they signed."
)
SECRET_CHANGED = "The secret of this installation has changed. Restart this process with the new one."  # noqa: S105
NOT_THE_FORMER = "The former secret is not the secret of this installation. If it is lost, pass --lost."
NOTHING_SEALED = "This database has no secret yet, so there is nothing to reseal. Start the server with the new secret."


@dataclass(frozen=True)
class VaultContent:
    """The usable keys and their revision."""

    revision: int
    keys: tuple[SigningKey, ...]


@dataclass(frozen=True)
class KeyVault:
    """The signing keys of an installation. Every method raises ``ConfigurationException`` if its secret changed."""

    database: Database
    seal: Seal

    async def load(self, *, known_revision: int | None = None) -> VaultContent | None:
        """Return the keys, or None if ``known_revision`` is current.

        Raises ``ConfigurationException`` for a damaged key.
        """

        def read(data: Repositories) -> tuple[int, list[StoredSigningKey]] | None:
            installation = data.signing_keys.installation()
            if installation is None or installation.secret_verifier != self.seal.verifier:
                raise ConfigurationException(SECRET_CHANGED)
            if installation.keys_revision == known_revision:
                return None
            return installation.keys_revision, data.signing_keys.list_all()

        found = await self.database.read(read)
        if found is None:
            return None
        revision, stored = found
        keys = await run_in_thread(_opened, stored, self.seal)
        return VaultContent(revision, keys)

    async def take_in(self, former: tuple[SigningKey, ...]) -> None:
        """Add the keys of a file unless their ``kid`` is known; create the first key if there is none then.

        If the database has keys already, those of a file only verify: tokens that they signed stay valid, and no
        cached key set lacks a key that signs. An erased key is not added again.
        """
        moment = clock.now()

        def insert(data: Repositories) -> None:
            stored = self._lock(data)
            known = {key.kid for key in stored}
            new = [key for key in former if key.kid not in known and key.is_published(moment)]
            if any(key.sealed_pem is not None for key in stored):
                end = moment + LONGEST_TOKEN
                new = [key.model_copy(update={"retires_at": min(key.retires_at or end, end)}) for key in new]
            elif not new:
                new = [new_signing_key(moment)]
            for key in new:
                data.signing_keys.insert(_sealed(key, self.seal))

        await self.database.write(insert)

    async def rotate(self, at: datetime, *, at_once: bool, entry: NewAuditEntry) -> SigningKey:
        """Add a key that signs when every cache has it; with ``at_once`` it signs now, and all others are erased."""

        def rotate(data: Repositories) -> SigningKey:
            usable = [key for key in self._lock(data) if key.sealed_pem is not None]
            if at_once:
                data.signing_keys.retire_all(at=at)
                key = new_signing_key(at)
            else:
                # Not before its predecessor, even if the clock was set back.
                key = new_signing_key(max([at + PUBLISH_AHEAD, *(each.signs_from for each in usable)]))
                data.signing_keys.retire(at=key.signs_from + LONGEST_TOKEN)
            data.signing_keys.erase_retired(at=at)
            data.signing_keys.insert(_sealed(key, self.seal))
            data.audit_log.append(entry)
            return key

        return await self.database.write(rotate)

    def _lock(self, data: Repositories) -> list[StoredSigningKey]:
        if not data.signing_keys.lock(self.seal.verifier):
            raise ConfigurationException(SECRET_CHANGED)
        return data.signing_keys.list_all()


async def reseal(database: Database, *, former: SecretStr | None, new: SecretStr, actor: Actor) -> None:
    """Encrypt every private key with another secret and store its verifier, in one transaction.

    ``former`` None means it is lost: the keys are erased and a new one is created. Raises ``ConfigurationException``
    if ``former`` is not the secret of this installation.
    """
    installation = await database.read(lambda data: data.signing_keys.installation())
    if installation is None:
        raise ConfigurationException(NOTHING_SEALED)
    opening = None if former is None else await seal_of(installation, former)
    if former is not None and opening is None:
        raise ConfigurationException(NOT_THE_FORMER)
    salt, moment = new_salt(), clock.now()
    sealing = await run_in_thread(derive_seal, new, salt)
    details = {"keys": "replaced" if opening is None else "kept"}
    entry = audit.entry(actor, AuditAction.SIGNING_KEYS_RESEALED, details=details)

    def change(data: Repositories) -> None:
        if not data.signing_keys.lock(installation.secret_verifier):
            raise ConfigurationException(SECRET_CHANGED)
        if opening is None:
            data.signing_keys.retire_all(at=moment)
            data.signing_keys.erase_retired(at=moment)
            data.signing_keys.insert(_sealed(new_signing_key(moment), sealing))
        else:
            for key in _opened(data.signing_keys.list_all(), opening):
                data.signing_keys.replace_sealed(_sealed(key, sealing))
        data.signing_keys.change_secret(salt=salt, verifier=sealing.verifier)
        data.audit_log.append(entry)

    await database.write(change)


def new_signing_key(signs_from: datetime) -> SigningKey:
    """Create a signing key."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signing_key_from_pem(SecretStr(pem.decode("ascii")), signs_from=signs_from)


def _sealed(key: SigningKey, seal: Seal) -> StoredSigningKey:
    return StoredSigningKey(
        kid=key.kid,
        sealed_pem=seal.seal(key.private_pem, kid=key.kid),
        signs_from=key.signs_from,
        retires_at=key.retires_at,
    )


def _opened(stored: Iterable[StoredSigningKey], seal: Seal) -> tuple[SigningKey, ...]:
    """Return the keys that are not erased. Raises ``ConfigurationException`` if one is damaged."""
    try:
        return tuple(
            SigningKey(
                kid=key.kid,
                private_pem=seal.open(key.sealed_pem, kid=key.kid),
                signs_from=key.signs_from,
                retires_at=key.retires_at,
            )
            for key in stored
            if key.sealed_pem is not None
        )
    except ValueError as error:
        raise ConfigurationException(DAMAGED) from error
