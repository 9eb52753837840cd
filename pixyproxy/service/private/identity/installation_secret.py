"""The secret shared by all processes of an installation, and the key that encrypts the signing keys in the database.

One slow, salted hash (scrypt) stretches the secret, so that a copy of the database is of little use for guessing a weak
one. HKDF derives one key for each use from it: the verifier, which the database stores, and the key that encrypts the
signing keys. Cursors and webhook secrets are derived elsewhere (``CursorCodec``, ``WebhookSecrets``).
"""

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.models.signing_key import Installation
from pixyproxy.core.settings import Settings
from pixyproxy.data.database import Database
from pixyproxy.data.files.secrets import load_or_create_secret
from pixyproxy.data.threads import run_in_thread

SCRYPT_COST = 2**14
"""With blocks of 8: 16 MiB and 0.05 s, once in each process. A secret of 32 characters needs no higher cost."""
SCRYPT_BLOCK = 8
KEY_BYTES = 32
NONCE_BYTES = 12
VERIFIER_LABEL = b"pixyproxy: verifier of the secret"
SIGNING_KEYS_LABEL = b"pixyproxy: signing keys"

MISMATCH = (
    "This process has another secret than this installation. Set PIXYPROXY_SECRET_KEY to the secret of the other "
    "processes (by default in the file secret_key of their data folder), or change it for all processes with "
    "`pixyproxy keys reseal`."
)


@dataclass(frozen=True)
class Seal:
    """Encrypts the private keys of one installation with AES-256-GCM."""

    verifier: str
    cipher: AESGCM = field(repr=False)

    def seal(self, private_pem: SecretStr, *, kid: str) -> str:
        """Return the encrypted key as base64 of nonce, ciphertext and tag, bound to ``kid``."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self.cipher.encrypt(nonce, private_pem.get_secret_value().encode(), kid.encode())
        return base64.b64encode(nonce + sealed).decode("ascii")

    def open(self, sealed: str, *, kid: str) -> SecretStr:
        """Return the decrypted key. Raises ``ValueError`` if it was sealed with another secret or ``kid``."""
        try:
            content = base64.b64decode(sealed, validate=True)
            opened = self.cipher.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], kid.encode())
        except (InvalidTag, ValueError) as error:
            problem = "not sealed with this secret"
            raise ValueError(problem) from error
        return SecretStr(opened.decode())


def installation_secret(settings: Settings) -> SecretStr:
    """Return the secret from the settings or the data folder, where it is created if missing. Blocks."""
    return settings.secret_key or load_or_create_secret(settings.data_dir, "secret_key")


@lru_cache(maxsize=8)
def derive_seal(secret: SecretStr, salt: str) -> Seal:
    """Return the seal of a secret and a hexadecimal salt. Blocks for 0.05 s, once for each pair."""
    stretched = hashlib.scrypt(
        secret.get_secret_value().encode(),
        salt=bytes.fromhex(salt),
        n=SCRYPT_COST,
        r=SCRYPT_BLOCK,
        p=1,
        dklen=KEY_BYTES,
    )
    return Seal(
        verifier=_derive(stretched, VERIFIER_LABEL).hex(), cipher=AESGCM(_derive(stretched, SIGNING_KEYS_LABEL))
    )


def new_salt() -> str:
    """Return a random salt in hexadecimal."""
    return secrets.token_hex(16)


async def open_seal(database: Database, secret: SecretStr) -> Seal:
    """Return the seal of this installation; the first process sets it up with its secret.

    Raises ``ConfigurationException`` if the installation has another secret.
    """
    while (installation := await database.read(lambda data: data.signing_keys.installation())) is None:
        await _set_up(database, secret)
    seal = await seal_of(installation, secret)
    if seal is None:
        raise ConfigurationException(MISMATCH)
    return seal


async def seal_of(installation: Installation, secret: SecretStr) -> Seal | None:
    """Return the seal of the secret, or None if the installation has another secret."""
    seal = await run_in_thread(derive_seal, secret, installation.secret_salt)
    return seal if hmac.compare_digest(seal.verifier, installation.secret_verifier) else None


async def _set_up(database: Database, secret: SecretStr) -> None:
    """Store the verifier, unless a process that starts concurrently did so first."""
    salt = new_salt()
    seal = await run_in_thread(derive_seal, secret, salt)
    installation = Installation(secret_salt=salt, secret_verifier=seal.verifier, keys_revision=0)
    await database.write(lambda data: data.signing_keys.create_installation(installation))


def _derive(stretched: bytes, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=label).derive(stretched)
