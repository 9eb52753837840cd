"""The key ring: which keys sign and verify when, and how running servers notice changes."""

import asyncio
import logging
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from sqlalchemy import text

from pixyproxy.core import clock
from pixyproxy.core.exceptions import ConfigurationException, DatabaseUnavailableException
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.data.database import Database
from pixyproxy.service.private.identity.oauth.jwt import sign_token, verify_signature
from pixyproxy.service.private.identity.oauth.key_vault import PUBLISH_AHEAD, KeyVault, VaultContent
from pixyproxy.service.private.identity.oauth.signing_keys import LOOK_UP_SECONDS, KeyRing
from tests.support.keys import open_ring, published, rotate

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]
LONGEST = timedelta(seconds=LONGEST_TOKEN_SECONDS)
SECOND = timedelta(seconds=1)
AWAY = "The database cannot be reached at the moment. Nothing was changed. Try again shortly."


@pytest.fixture
def now() -> datetime:
    return clock.now()


@pytest.fixture
async def ring(database: Database, tmp_path: Path) -> KeyRing:
    """Provide the ring of one process; ``other`` is another's."""
    return await open_ring(database, tmp_path)


@pytest.fixture
async def other(database: Database, tmp_path: Path, ring: KeyRing) -> KeyRing:
    """Provide the ring of another process with the same key; it does not refresh by itself."""
    another = await open_ring(database, tmp_path)
    assert another.loaded.keys == ring.loaded.keys
    return another


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None, passphrase: bytes = b"") -> str:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    made = key or ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


async def test_first_key_signs_and_is_published(ring: KeyRing, now: datetime) -> None:
    kid = ring.signing_key(now).kid
    assert published(ring, now) == [kid]
    assert ring.verification_key(kid, now) is not None


async def test_token_of_the_ring_verifies_here_and_with_another_library(ring: KeyRing, now: datetime) -> None:
    token = sign_token({"sub": "a"}, ring.signing_key(now))
    key = ring.verification_key(ring.signing_key(now).kid, now)
    assert key is not None
    assert verify_signature(token, key) == b'{"sub":"a"}'
    keys = KeySet.import_key_set({"keys": [dict(jwk) for jwk in ring.jwks(now)["keys"]]})
    assert joserfc_jwt.decode(token, keys, algorithms=["ES256"]).claims == {"sub": "a"}


async def test_key_set_contains_no_private_members(ring: KeyRing, now: datetime) -> None:
    await rotate(ring, now)
    members = [set(jwk) for jwk in ring.jwks(now)["keys"]]
    assert members == [{"kty", "crv", "x", "y", "use", "alg", "kid"}] * 2


async def test_restart_keeps_the_key(ring: KeyRing, other: KeyRing, now: datetime) -> None:
    assert other.signing_key(now) == ring.signing_key(now)


async def test_oldest_key_signs_if_the_clock_is_behind(ring: KeyRing, now: datetime) -> None:
    await rotate(ring, now)
    assert ring.signing_key(now - timedelta(days=1)).kid == published(ring, now)[0]


async def test_keys_are_parsed_once(ring: KeyRing, now: datetime) -> None:
    kid = ring.signing_key(now).kid
    assert ring.verification_key(kid, now) is ring.verification_key(kid, now)
    assert ring.signing_key(now) is ring.signing_key(now)


async def test_new_key_is_published_before_it_signs(ring: KeyRing, now: datetime) -> None:
    old = ring.signing_key(now).kid
    new = (await rotate(ring, now)).kid
    assert published(ring, now) == [old, new]
    assert ring.signing_key(now + PUBLISH_AHEAD - SECOND).kid == old
    assert ring.signing_key(now + PUBLISH_AHEAD).kid == new


async def test_former_key_verifies_until_its_last_token_expires(ring: KeyRing, now: datetime) -> None:
    old = ring.signing_key(now).kid
    new = (await rotate(ring, now)).kid
    end = now + PUBLISH_AHEAD + LONGEST
    assert ring.verification_key(old, end - SECOND) is not None
    assert published(ring, end - SECOND) == [old, new]
    assert ring.verification_key(old, end) is None
    assert published(ring, end) == [new]


async def test_second_rotation_keeps_the_signing_key(ring: KeyRing, now: datetime) -> None:
    old = ring.signing_key(now).kid
    first, second = [(await rotate(ring, at)).kid for at in (now, now + SECOND)]
    assert published(ring, now) == [old, first, second]
    assert ring.signing_key(now).kid == old
    assert ring.signing_key(now + PUBLISH_AHEAD).kid == first
    assert ring.signing_key(now + PUBLISH_AHEAD + SECOND).kid == second
    assert ring.verification_key(old, now + PUBLISH_AHEAD + LONGEST - SECOND) is not None


async def test_rotation_after_the_clock_was_set_back_keeps_the_order(ring: KeyRing, now: datetime) -> None:
    first = await rotate(ring, now)
    second = await rotate(ring, now - timedelta(hours=1))
    assert second.signs_from == first.signs_from
    assert ring.signing_key(now + PUBLISH_AHEAD).kid == second.kid


async def test_at_once_retires_every_other_key(ring: KeyRing, now: datetime) -> None:
    old = ring.signing_key(now).kid
    ahead = (await rotate(ring, now)).kid
    new = (await rotate(ring, now, at_once=True)).kid
    assert published(ring, now) == [new]
    assert ring.signing_key(now).kid == new
    assert ring.verification_key(old, now) is None
    assert ring.verification_key(ahead, now) is None
    # Also on a machine whose clock is behind.
    assert published(ring, now - timedelta(days=1)) == [new]


async def test_another_server_notices_a_rotation(ring: KeyRing, other: KeyRing, now: datetime) -> None:
    new = (await rotate(ring, now)).kid
    await other.refresh()
    assert published(other, now)[1:] == [new]


async def test_another_server_notices_a_rotation_at_once(ring: KeyRing, other: KeyRing, now: datetime) -> None:
    leaked = other.signing_key(now).kid
    await rotate(ring, now, at_once=True)
    await other.refresh()
    assert other.verification_key(leaked, now) is None


async def test_unchanged_keys_are_not_read_again(ring: KeyRing) -> None:
    before = ring.loaded.keys
    await ring.refresh()
    assert ring.loaded.keys is before


async def test_requests_do_not_query_the_database(
    ring: KeyRing, other: KeyRing, database: Database, now: datetime
) -> None:
    await rotate(ring, now)
    await database.close()
    kid = other.signing_key(now).kid
    assert await other.find_verification_key(kid, now) is other.verification_key(kid, now)
    assert published(other, now) == [kid]


@pytest.mark.parametrize("kid", ["", "unknown", "../../etc/passwd", "x" * 10_000, "\x00"])
async def test_unknown_key_id_returns_none(ring: KeyRing, now: datetime, kid: str) -> None:
    assert ring.verification_key(kid, now) is None
    assert await ring.find_verification_key(kid, now) is None


async def test_unknown_key_id_is_looked_up(ring: KeyRing, other: KeyRing, now: datetime) -> None:
    kid = (await rotate(ring, now)).kid
    assert other.verification_key(kid, now) is None
    found = await other.find_verification_key(kid, now)
    assert found is not None
    assert found.kid == kid


@dataclass(frozen=True)
class _CountingVault(KeyVault):
    """A vault that counts its loads; the first ones fail with ``failures``."""

    asked: list[int | None] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    async def load(self, *, known_revision: int | None = None) -> VaultContent | None:
        """Count the call, and load or fail."""
        self.asked.append(known_revision)
        if self.failures:
            raise self.failures.pop(0)
        return await super().load(known_revision=known_revision)


@pytest.fixture
def counting(other: KeyRing) -> _CountingVault:
    """Provide the vault that ``watched`` uses."""
    assert other.vault is not None
    return _CountingVault(other.vault.database, other.vault.seal)


@pytest.fixture
def watched(other: KeyRing, counting: _CountingVault) -> KeyRing:
    """Provide ``other`` with the counting vault."""
    return replace(other, vault=counting)


async def test_made_up_key_ids_share_one_look_up(
    ring: KeyRing, watched: KeyRing, counting: _CountingVault, now: datetime
) -> None:
    kid = (await rotate(ring, now)).kid
    forged = [watched.find_verification_key(f"forged {number}", now) for number in range(50)]
    *unknown, found = await asyncio.gather(*forged, watched.find_verification_key(kid, now))
    assert set(unknown) == {None}
    assert found is not None
    assert await watched.find_verification_key("forged again", now) is None
    assert len(counting.asked) == 1


async def test_next_look_up_follows_after_a_short_interval(
    ring: KeyRing, watched: KeyRing, counting: _CountingVault, now: datetime
) -> None:
    assert await watched.find_verification_key("forged", now) is None
    kid = (await rotate(ring, now)).kid
    watched.loaded.next_look_up -= LOOK_UP_SECONDS
    assert await watched.find_verification_key(kid, now) is not None
    assert len(counting.asked) == 2


async def test_unknown_key_id_raises_while_the_database_is_unavailable(
    watched: KeyRing, counting: _CountingVault, now: datetime
) -> None:
    counting.failures.append(DatabaseUnavailableException())
    with pytest.raises(DatabaseUnavailableException):
        await watched.find_verification_key("unknown", now)


async def test_background_refresh_continues_after_failures(
    ring: KeyRing, watched: KeyRing, counting: _CountingVault, now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    new = (await rotate(ring, now)).kid
    counting.failures.extend([ZeroDivisionError(), DatabaseUnavailableException()])
    looking = asyncio.create_task(watched.refresh_forever())
    try:
        async with asyncio.timeout(20):
            while new not in published(watched, now):  # noqa: ASYNC110  (there is no event to wait for)
                await asyncio.sleep(0.01)
    finally:
        looking.cancel()
    assert counting.failures == []
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"signing keys not refreshed: {AWAY}"]


async def test_rotation_succeeds_even_if_the_refresh_fails(
    ring: KeyRing, watched: KeyRing, counting: _CountingVault, now: datetime
) -> None:
    counting.failures.append(DatabaseUnavailableException())
    kid = (await rotate(watched, now)).kid
    await ring.refresh()
    assert kid in published(ring, now)


async def test_damaged_keys_are_logged_and_ignored(
    ring: KeyRing, database: Database, now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    kid = ring.signing_key(now).kid
    spoil = "UPDATE signing_keys SET sealed_pem = 'AAAA'"
    await database.write(lambda data: data.connection.execute(text(spoil)))
    await database.write(lambda data: data.connection.execute(text("UPDATE installation SET keys_revision = 7")))
    for _ in range(3):
        await ring.refresh()
        assert published(ring, now) == [kid]
    assert [record.message.split(":")[0] for record in caplog.records] == ["signing keys not refreshed"]
    assert "PRIVATE" not in caplog.text


async def test_keys_of_the_setting_are_not_stored(database: Database, tmp_path: Path, now: datetime) -> None:
    first, second = pem(), pem()
    ring = await open_ring(database, tmp_path, signing_keys=first + second)
    assert await database.read(lambda data: data.signing_keys.list_all()) == []
    signing = ring.signing_key(now)
    assert signing.private_pem.get_secret_value().strip() == first.strip()
    assert len(published(ring, now)) == 2
    far = now + timedelta(days=3650)
    assert [ring.verification_key(kid, far) is not None for kid in published(ring, far)] == [True, True]


async def test_duplicate_key_in_the_setting_counts_once(database: Database, tmp_path: Path, now: datetime) -> None:
    key, other = pem(), pem()
    ring = await open_ring(database, tmp_path, signing_keys=key + other + key)
    assert len(published(ring, now)) == 2
    assert ring.signing_key(now).private_pem.get_secret_value().strip() == key.strip()


async def test_escaped_line_ends_in_the_setting_are_accepted(database: Database, tmp_path: Path, now: datetime) -> None:
    key = pem()
    escaped = await open_ring(database, tmp_path, signing_keys=key.replace("\n", "\\n"))
    assert published(escaped, now) == published(await open_ring(database, tmp_path, signing_keys=key), now)


async def test_ec_parameters_block_in_the_setting_is_ignored(database: Database, tmp_path: Path, now: datetime) -> None:
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    ring = await open_ring(database, tmp_path, signing_keys=parameters + pem())
    assert len(published(ring, now)) == 1


async def test_keys_of_the_setting_cannot_be_rotated(database: Database, tmp_path: Path, now: datetime) -> None:
    ring = await open_ring(database, tmp_path, signing_keys=pem())
    with pytest.raises(ConfigurationException, match="PIXYPROXY_SIGNING_KEYS"):
        await rotate(ring, now)


async def test_invalid_setting_is_rejected_without_being_quoted(database: Database, tmp_path: Path) -> None:
    refused = [
        "secret",
        pem() + "secret",
        pem() + pem()[:-30],
        pem(passphrase=b"secret"),
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem() + pem(ec.generate_private_key(ec.SECP256K1())),
    ]
    for setting in refused:
        with pytest.raises(ConfigurationException, match="PIXYPROXY_SIGNING_KEYS") as refusal:
            await open_ring(database, tmp_path, signing_keys=setting)
        assert "secret" not in refusal.value.message
        assert [line for line in setting.splitlines() if line and line in refusal.value.message] == []


async def test_repr_of_a_ring_hides_its_keys(ring: KeyRing) -> None:
    assert "PRIVATE" not in f"{ring!r} {ring.loaded!r}"
