"""The key ring: the keys that sign, verify and are published, and their rotation without a restart.

published   |----- A ------------------------------|
                   |----- B ---------------------------------------|
signs       |--------- A ------|------- B -------------------|
                   ^ rotate    ^ + PUBLISH_AHEAD   ^ + LONGEST_TOKEN_SECONDS: A no longer verifies
"""

import asyncio
import logging
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import SecretStr

from pixyproxy.core.exceptions import ConfigurationException, DatabaseException, PixyProxyException
from pixyproxy.core.models.audit import NewAuditEntry
from pixyproxy.core.models.signing_key import SigningKey
from pixyproxy.core.settings import Settings
from pixyproxy.data.database import Database
from pixyproxy.data.files.former_signing_keys import FormerSigningKeys
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.identity.installation_secret import open_seal
from pixyproxy.service.private.identity.oauth.jwt import VerificationKey, public_jwk, signing_key_from_pem
from pixyproxy.service.private.identity.oauth.key_vault import DAMAGED, KeyVault

logger = logging.getLogger(__name__)

CHECK_SECONDS = 0.5
"""How often the keys' revision is read, so that a rotation or revocation takes effect everywhere within a second."""
LOOK_UP_SECONDS = 2.0
"""Minimum interval between look-ups of an unknown ``kid``, so that made-up ids do not load the database."""

PEM = re.compile(r"-----BEGIN (?P<label>[A-Z ]+)-----.+?-----END (?P=label)-----", re.DOTALL)
NOT_A_KEY = "EC PARAMETERS"
"""A block that OpenSSL writes before a key; the key contains the same parameters."""
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)

USE_THE_SETTING = (
    "The signing keys come from PIXYPROXY_SIGNING_KEYS, so rotate them there. Add the new key last and restart every "
    "server; when caches of the key set have expired (10 minutes), move it to the front and restart again; "
    "remove the former key a day later. After a leak, leave only the new key in it immediately."
)
SETTING_UNUSABLE = (
    "PIXYPROXY_SIGNING_KEYS must contain only EC P-256 private keys in PEM without a passphrase. "
    "Create one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`."
)


FILE_DAMAGED = "A signing key in {path} is damaged. Restore the file from a backup, or remove it."


@dataclass(frozen=True)
class PublishedKey:
    """A signing key, parsed once into all forms."""

    signing: SigningKey
    verification: VerificationKey
    jwk: dict[str, str]


@dataclass
class LoadedRing:
    """The keys as last read, ordered by retirement, and their revision.

    Of the keys that may sign, the last to retire signs: a key that signs now must outlive a token issued now.
    """

    keys: tuple[PublishedKey, ...]
    revision: int | None = None
    problem: str | None = None
    next_look_up: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)


@dataclass(frozen=True)
class KeyRing:
    """The signing keys of this installation, the same in all its processes.

    They come from ``vault``, or from the setting if ``vault`` is None. Requests use the keys that ``refresh`` last
    read, so that they do not wait for the database.
    """

    vault: KeyVault | None
    loaded: LoadedRing = field(repr=False)

    def signing_key(self, at: datetime) -> SigningKey:
        """Return the key that signs at this time."""
        keys = self.loaded.keys
        ready = [key.signing for key in keys if key.signing.signs_from <= at]
        # If the clock is behind, no key may sign yet; every process knows the oldest.
        return ready[-1] if ready else keys[0].signing

    def verification_key(self, kid: str, at: datetime) -> VerificationKey | None:
        """Return the key with this id, or None if it is unknown or retired."""
        found = (key for key in self.loaded.keys if key.signing.kid == kid and key.signing.is_published(at))
        return next((key.verification for key in found), None)

    async def find_verification_key(self, kid: str, at: datetime) -> VerificationKey | None:
        """Return the key with this id, or None; an unknown id is looked up, since another process may have added it.

        Concurrent callers share one look-up, and the next one follows ``LOOK_UP_SECONDS`` later. Raises
        ``DatabaseException``.
        """
        key = self.verification_key(kid, at)
        if key is not None or self.vault is None:
            return key
        async with self.loaded.lock:
            if time.monotonic() >= self.loaded.next_look_up:
                self.loaded.next_look_up = time.monotonic() + LOOK_UP_SECONDS
                await self._refresh()
        return self.verification_key(kid, at)

    def jwks(self, at: datetime) -> dict[str, list[dict[str, str]]]:
        """Return the JSON Web Key Set (RFC 7517 §5): every key that verifies now or signs soon."""
        return {"keys": [dict(key.jwk) for key in self.loaded.keys if key.signing.is_published(at)]}

    async def rotate(self, at: datetime, *, at_once: bool, entry: NewAuditEntry) -> SigningKey:
        """Return a new key that signs when every cache has it; with ``at_once`` it signs now and replaces all others.

        ``at_once`` is for a leaked key: it invalidates every token issued so far. ``entry`` is appended to the audit
        log in the same transaction. Raises ``ConfigurationException`` if the keys come from the setting.
        """
        if self.vault is None:
            raise ConfigurationException(USE_THE_SETTING)
        key = await self.vault.rotate(at, at_once=at_once, entry=entry)
        await self._try_to_refresh()
        return key

    async def refresh_forever(self) -> None:
        """Refresh the keys repeatedly until cancelled."""
        while self.vault is not None:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self._try_to_refresh()
            except Exception:
                logger.exception("unexpected error while refreshing signing keys; retrying")

    async def refresh(self) -> None:
        """Read the keys again if they have changed. Raises ``DatabaseException``.

        If they cannot be read, keep the current keys and log the problem once.
        """
        async with self.loaded.lock:
            await self._refresh()

    async def load(self) -> None:
        """Read the keys if they have changed. Raises ``ConfigurationException`` and ``DatabaseException``."""
        loaded = self.loaded
        found = None if self.vault is None else await self.vault.load(known_revision=loaded.revision)
        if found is not None:
            loaded.keys, loaded.revision = await run_in_thread(_publish, found.keys, DAMAGED), found.revision
        loaded.problem = None

    async def _try_to_refresh(self) -> None:
        try:
            await self.refresh()
        except DatabaseException as error:
            self._keep_as_they_were(error)

    async def _refresh(self) -> None:
        try:
            await self.load()
        except ConfigurationException as error:
            self._keep_as_they_were(error)

    def _keep_as_they_were(self, error: PixyProxyException) -> None:
        if error.message != self.loaded.problem:
            logger.warning("signing keys not refreshed: %s", error.message)
        self.loaded.problem = error.message


async def open_key_ring(settings: Settings, database: Database, secret: SecretStr) -> KeyRing:
    """Return the key ring of the installation with this secret; create the first key if there is none.

    The key file of an earlier release is imported and removed: it is not encrypted, and nothing reads it afterwards.
    Raises ``ConfigurationException`` and ``DatabaseException``.
    """
    seal = await open_seal(database, secret)
    if settings.signing_keys is not None:
        return KeyRing(vault=None, loaded=LoadedRing(_published_forever(settings.signing_keys)))
    vault, file = KeyVault(database, seal), FormerSigningKeys(settings.data_dir)
    former = await run_in_thread(_load_former, file)
    ring = KeyRing(vault=vault, loaded=LoadedRing(()))
    await ring.load()
    if former or not ring.loaded.keys:
        await vault.take_in(former)
        await ring.load()
    if former:
        await run_in_thread(file.remove)
        logger.info("signing keys moved from %s to the database", file.path)
    return ring


def _load_former(file: FormerSigningKeys) -> tuple[SigningKey, ...]:
    """Return the keys of a file. Raises ``ConfigurationException`` if one is damaged."""
    keys = file.load()
    _publish(keys, FILE_DAMAGED.format(path=file.path))
    return keys


def _publish(keys: Iterable[SigningKey], damaged: str) -> tuple[PublishedKey, ...]:
    """Return the keys ordered by retirement. Raises ``ConfigurationException`` if one is damaged."""
    ordered = sorted(keys, key=lambda key: (key.retires_at or NEVER, key.signs_from, key.kid))
    return tuple(_published(key, damaged) for key in ordered)


def _published_forever(setting: SecretStr) -> tuple[PublishedKey, ...]:
    """Return the keys of the setting, the signing key last; the others stay valid until the operator removes them."""
    keys = {key.kid: _published(key, SETTING_UNUSABLE) for key in _keys_of_setting(setting)}
    return tuple(reversed(keys.values()))


def _keys_of_setting(setting: SecretStr) -> tuple[SigningKey, ...]:
    # Environment files often contain line ends as backslash and n, which PEM never contains.
    text = setting.get_secret_value().replace("\\n", "\n")
    blocks = [SecretStr(block[0]) for block in PEM.finditer(text) if block["label"] != NOT_A_KEY]
    if PEM.sub("", text).strip() or not blocks:
        raise ConfigurationException(SETTING_UNUSABLE)
    try:
        return tuple(signing_key_from_pem(block, signs_from=LONG_AGO) for block in blocks)
    except ValueError as error:
        raise ConfigurationException(SETTING_UNUSABLE) from error


def _published(key: SigningKey, damaged: str) -> PublishedKey:
    try:
        sound = signing_key_from_pem(key.private_pem, signs_from=key.signs_from).kid == key.kid
    except ValueError:
        sound = False
    if not sound:
        raise ConfigurationException(damaged)
    jwk = public_jwk(key)
    return PublishedKey(signing=key, verification=VerificationKey(kid=key.kid, algorithm="ES256", jwk=jwk), jwk=jwk)
