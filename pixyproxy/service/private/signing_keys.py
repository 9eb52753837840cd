"""The key ring: which key signs, which ones verify and are published, and how they change without a restart.

published   |----- A ------------------------------|
                   |----- B ---------------------------------------|
signs       |--------- A ------|------- B -------------------|
                   ^ rotate    ^ + PUBLISH_AHEAD   ^ + LONGEST_TOKEN_SECONDS: A verifies nothing more
"""

import asyncio
import logging
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.models.signing_key import SigningKey
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.core.settings import Settings
from pixyproxy.data.signing_keys import FileVersion, SigningKeyFile, SigningKeys
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.jwt import VerificationKey, public_jwk, signing_key_from_pem

logger = logging.getLogger(__name__)

PUBLISH_AHEAD = timedelta(seconds=600)
"""How long a new key is published before it signs: longer than any cache keeps the JWKS (``max-age`` 300)."""
LONGEST_TOKEN = timedelta(seconds=LONGEST_TOKEN_SECONDS)
CHECK_SECONDS = 0.5
"""How often the file is looked at: a rotation, or a leaked key's end, holds everywhere within a second."""

PEM = re.compile(r"-----BEGIN (?P<label>[A-Z ]+)-----.+?-----END (?P=label)-----", re.DOTALL)
NOT_A_KEY = "EC PARAMETERS"
"""A block that OpenSSL writes before a key; the key says the same."""
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

USE_THE_SETTING = (
    "The signing keys come from PIXYPROXY_SIGNING_KEYS, so rotate where it is set: put the new key last, restart every "
    "server; once the caches of the key set are over (10 minutes), put it first and restart again; "
    "remove the former key a day later. After a leak, leave the new key alone in it at once."
)
SETTING_UNUSABLE = (
    "PIXYPROXY_SIGNING_KEYS must hold EC P-256 private keys in PEM without a passphrase, one after the other, and "
    "nothing else. Make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`."
)


@dataclass(frozen=True)
class PublishedKey:
    """A key in all its forms, parsed once. From ``retires_at`` on it is as good as unknown; None for never."""

    signing: SigningKey
    verification: VerificationKey
    jwk: dict[str, str]
    retires_at: datetime | None

    def is_published(self, at: datetime) -> bool:
        """Whether tokens that it signed may still be valid."""
        return self.retires_at is None or at < self.retires_at


@dataclass
class LoadedRing:
    """The keys that were read last, and what the file was then."""

    keys: tuple[PublishedKey, ...]
    version: FileVersion | None = None
    problem: str | None = None


@dataclass(frozen=True)
class KeyRing:
    """The signing keys of this installation, the same in all its processes.

    They come from ``file``, or from the setting where that is None. Requests are served from what ``refresh`` read
    last, so that none waits for a disk.
    """

    file: SigningKeyFile | None
    loaded: LoadedRing = field(repr=False)

    def signing_key(self, at: datetime) -> SigningKey:
        """The key that signs at this moment."""
        keys = self.loaded.keys
        ready = [key.signing for key in keys if key.signing.signs_from <= at]
        # A machine whose clock is behind has keys that none may sign with yet; the oldest is known everywhere.
        return ready[-1] if ready else keys[0].signing

    def verification_key(self, kid: str, at: datetime) -> VerificationKey | None:
        """The key of this id, unless it is unknown or retired."""
        found = (key for key in self.loaded.keys if key.signing.kid == kid and key.is_published(at))
        return next((key.verification for key in found), None)

    def jwks(self, at: datetime) -> dict[str, list[dict[str, str]]]:
        """The JSON Web Key Set (RFC 7517 §5): every key that verifies, or signs soon."""
        return {"keys": [dict(key.jwk) for key in self.loaded.keys if key.is_published(at)]}

    def rotate(self, at: datetime, *, at_once: bool = False) -> SigningKey:
        """A new key that signs once every cache has it; with ``at_once`` it signs now, and is the only one.

        ``at_once`` is for a key that leaked: it ends every token issued so far. Blocks. Raises
        ``ConfigurationException`` where the keys come from the setting, or the file cannot be changed.
        """
        if self.file is None:
            raise ConfigurationException(USE_THE_SETTING)
        made: list[SigningKey] = []

        def change(present: SigningKeys) -> SigningKeys:
            # Where the file is gone, what this server knows is better than to end every token by surprise.
            known = _publish(present) if present else self.loaded.keys
            kept = () if at_once else tuple(key.signing for key in known if key.is_published(at))
            # Never before the one ahead of it, even if the clock was set back: their order is the order in the file.
            signs_from = max([at if at_once else at + PUBLISH_AHEAD, *(key.signs_from for key in kept)])
            made.append(_new_key(signs_from))
            return (*kept, made[0])

        keys = self.file.replace(change)
        self.loaded.keys = _publish(keys)
        return made[0]

    async def refresh_forever(self) -> None:
        """Refresh the keys again and again, until cancelled."""
        while self.file is not None:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await run_in_thread(self.refresh)
            except Exception:
                logger.exception("looking for new signing keys met something unforeseen and will go on")

    def refresh(self) -> None:
        """Read the keys again if the file has changed. Blocks.

        A file that cannot be read changes nothing, but is logged once.
        """
        if self.file is None:
            return
        # Before the file is read: a file that is replaced meanwhile is read again rather than missed.
        version = self.file.version()
        if version is None or version != self.loaded.version:
            self._reload(self.file, version)

    def _reload(self, file: SigningKeyFile, version: FileVersion | None) -> None:
        loaded = self.loaded
        try:
            loaded.keys = _publish(_load(file))
        except ConfigurationException as error:
            if error.message != loaded.problem:
                logger.warning("signing keys stay as they were: %s", error.message)
            loaded.problem = error.message
        else:
            loaded.version, loaded.problem = version, None


def open_key_ring(settings: Settings) -> KeyRing:
    """The key ring of the settings; makes the first key in the data folder where there is none.

    Raises ``ConfigurationException``.
    """
    if settings.signing_keys is not None:
        return KeyRing(file=None, loaded=LoadedRing(_published_forever(settings.signing_keys)))
    file = SigningKeyFile(settings.data_dir)
    return KeyRing(file=file, loaded=LoadedRing(_publish(file.create_first(_new_key(clock.now())))))


def _load(file: SigningKeyFile) -> SigningKeys:
    keys = file.load()
    if keys is None:
        problem = f"{file.path} is gone. Restore it from a backup; a server that starts without it makes new keys."
        raise ConfigurationException(problem)
    return keys


def _new_key(signs_from: datetime) -> SigningKey:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signing_key_from_pem(SecretStr(pem.decode("ascii")), signs_from=signs_from)


def _publish(keys: SigningKeys) -> tuple[PublishedKey, ...]:
    """The keys of a file; each retires when the last token that it signed has run out."""
    retirements = [following.signs_from + LONGEST_TOKEN for _, following in pairwise(keys)]
    return tuple(_published(key, retires_at) for key, retires_at in zip(keys, [*retirements, None], strict=True))


def _published_forever(setting: SecretStr) -> tuple[PublishedKey, ...]:
    """The keys of the setting, the one that signs last: nobody but its operator knows when the others retire."""
    keys = {key.kid: _published(key, None) for key in _keys_of_setting(setting)}
    return tuple(reversed(keys.values()))


def _keys_of_setting(setting: SecretStr) -> SigningKeys:
    # Environment files often hold line ends as backslash and n, which PEM never has.
    text = setting.get_secret_value().replace("\\n", "\n")
    blocks = [SecretStr(block[0]) for block in PEM.finditer(text) if block["label"] != NOT_A_KEY]
    if PEM.sub("", text).strip() or not blocks:
        raise ConfigurationException(SETTING_UNUSABLE)
    try:
        return tuple(signing_key_from_pem(block, signs_from=LONG_AGO) for block in blocks)
    except ValueError as error:
        raise ConfigurationException(SETTING_UNUSABLE) from error


def _published(key: SigningKey, retires_at: datetime | None) -> PublishedKey:
    try:
        sound = signing_key_from_pem(key.private_pem, signs_from=key.signs_from) == key
    except ValueError:
        sound = False
    if not sound:
        problem = "A signing key in the data folder is damaged. Restore the file from a backup, or remove it."
        raise ConfigurationException(problem)
    jwk = public_jwk(key)
    verification = VerificationKey(kid=key.kid, algorithm="ES256", jwk=jwk)
    return PublishedKey(signing=key, verification=verification, jwk=jwk, retires_at=retires_at)
