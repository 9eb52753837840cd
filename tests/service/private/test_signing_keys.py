"""The key ring: what signs and verifies when, and that running servers notice."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.data.signing_keys import FileVersion, SigningKeyFile, SigningKeys
from pixyproxy.service.private.jwt import sign_token, verify_signature
from pixyproxy.service.private.signing_keys import PUBLISH_AHEAD, KeyRing, open_key_ring
from tests.support.server import make_settings

LONGEST = timedelta(seconds=LONGEST_TOKEN_SECONDS)
SECOND = timedelta(seconds=1)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC) + SECOND


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return open_ring(tmp_path)


def open_ring(folder: Path) -> KeyRing:
    """A ring as a server that starts on this folder has it."""
    return open_key_ring(make_settings(folder))


def published(ring: KeyRing, at: datetime) -> list[str]:
    return [jwk["kid"] for jwk in ring.jwks(at)["keys"]]


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None, passphrase: bytes = b"") -> str:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    made = key or ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


def test_the_first_key_signs_and_is_published(ring: KeyRing, now: datetime) -> None:
    kid = ring.signing_key(now).kid
    assert published(ring, now) == [kid]
    assert ring.verification_key(kid, now) is not None


def test_what_the_ring_signs_it_verifies_and_so_does_another_library(ring: KeyRing, now: datetime) -> None:
    token = sign_token({"sub": "a"}, ring.signing_key(now))
    key = ring.verification_key(ring.signing_key(now).kid, now)
    assert key is not None
    assert verify_signature(token, key) == b'{"sub":"a"}'
    keys = KeySet.import_key_set({"keys": [dict(jwk) for jwk in ring.jwks(now)["keys"]]})
    assert joserfc_jwt.decode(token, keys, algorithms=["ES256"]).claims == {"sub": "a"}


def test_the_key_set_is_public(ring: KeyRing, now: datetime) -> None:
    ring.rotate(now)
    members = [set(jwk) for jwk in ring.jwks(now)["keys"]]
    assert members == [{"kty", "crv", "x", "y", "use", "alg", "kid"}] * 2


def test_a_restart_keeps_the_key(tmp_path: Path, ring: KeyRing, now: datetime) -> None:
    assert open_ring(tmp_path).signing_key(now) == ring.signing_key(now)


def test_a_clock_that_is_behind_signs_with_the_oldest_key(ring: KeyRing, now: datetime) -> None:
    ring.rotate(now)
    assert ring.signing_key(now - timedelta(days=1)).kid == published(ring, now)[0]


@pytest.mark.parametrize("kid", ["", "unknown", "../../etc/passwd", "x" * 10_000, "\x00"])
def test_an_unknown_key_id_is_none(ring: KeyRing, now: datetime, kid: str) -> None:
    assert ring.verification_key(kid, now) is None


def test_keys_are_parsed_once(ring: KeyRing, now: datetime) -> None:
    kid = ring.signing_key(now).kid
    assert ring.verification_key(kid, now) is ring.verification_key(kid, now)
    assert ring.signing_key(now) is ring.signing_key(now)


def test_a_new_key_is_published_before_it_signs(ring: KeyRing, now: datetime) -> None:
    old = ring.signing_key(now).kid
    new = ring.rotate(now).kid
    assert published(ring, now) == [old, new]
    assert ring.signing_key(now + PUBLISH_AHEAD - SECOND).kid == old
    assert ring.signing_key(now + PUBLISH_AHEAD).kid == new


def test_a_former_key_verifies_as_long_as_its_last_token_lives(ring: KeyRing, now: datetime) -> None:
    old = ring.signing_key(now).kid
    new = ring.rotate(now).kid
    end = now + PUBLISH_AHEAD + LONGEST
    assert ring.verification_key(old, end - SECOND) is not None
    assert published(ring, end - SECOND) == [old, new]
    assert ring.verification_key(old, end) is None
    assert published(ring, end) == [new]


def test_the_next_rotation_drops_what_is_retired(ring: KeyRing, now: datetime) -> None:
    old = ring.signing_key(now).kid
    first = ring.rotate(now).kid
    second = ring.rotate(now + PUBLISH_AHEAD + LONGEST).kid
    assert published(ring, now) == [first, second]
    assert ring.file is not None
    assert old not in ring.file.path.read_text()


def test_rotating_twice_keeps_the_key_that_signs(ring: KeyRing, now: datetime) -> None:
    old = ring.signing_key(now).kid
    first, second = ring.rotate(now).kid, ring.rotate(now).kid
    assert published(ring, now) == [old, first, second]
    assert ring.signing_key(now).kid == old
    assert ring.signing_key(now + PUBLISH_AHEAD).kid == second
    assert ring.verification_key(old, now + PUBLISH_AHEAD + LONGEST - SECOND) is not None


def test_a_clock_that_was_set_back_keeps_the_order(ring: KeyRing, now: datetime) -> None:
    first = ring.rotate(now)
    second = ring.rotate(now - timedelta(hours=1))
    assert second.signs_from == first.signs_from
    assert ring.signing_key(now + PUBLISH_AHEAD).kid == second.kid


def test_at_once_ends_every_other_key(ring: KeyRing, now: datetime) -> None:
    old = ring.signing_key(now).kid
    ahead = ring.rotate(now).kid
    new = ring.rotate(now, at_once=True).kid
    assert published(ring, now) == [new]
    assert ring.signing_key(now).kid == new
    assert ring.verification_key(old, now) is None
    assert ring.verification_key(ahead, now) is None


def test_rotating_without_the_file_brings_it_back_with_the_keys_that_are_known(ring: KeyRing, now: datetime) -> None:
    old = ring.signing_key(now).kid
    assert ring.file is not None
    ring.file.path.unlink()
    new = ring.rotate(now).kid
    assert [key.kid for key in ring.file.load() or ()] == [old, new]


def test_another_server_notices_a_rotation(tmp_path: Path, ring: KeyRing, now: datetime) -> None:
    other = open_ring(tmp_path)
    assert len(published(other, now)) == 1
    new = ring.rotate(now).kid
    other.refresh()
    assert published(other, now)[1:] == [new]


@dataclass(frozen=True)
class _ReplacedWhileRead(SigningKeyFile):
    """A file that another server replaces, once, as soon as it was read."""

    replacements: list[Callable[[], object]]

    def load(self) -> SigningKeys | None:
        """The keys before the replacement."""
        keys = super().load()
        while self.replacements:
            self.replacements.pop()()
        return keys


def test_a_rotation_while_the_file_is_read_is_noticed(tmp_path: Path, ring: KeyRing, now: datetime) -> None:
    assert ring.file is not None
    file = _ReplacedWhileRead(ring.file.folder, [lambda: ring.rotate(now)])
    # What is known of the file is out of date, so that it is read.
    other = replace(open_ring(tmp_path), file=file)
    other.loaded.version = None
    other.refresh()
    assert len(published(other, now)) == 1
    other.refresh()
    assert published(other, now) == published(ring, now)
    assert file.replacements == []
    assert len(published(other, now)) == 2


def test_another_server_notices_that_a_key_leaked(tmp_path: Path, ring: KeyRing, now: datetime) -> None:
    other = open_ring(tmp_path)
    leaked = other.signing_key(now).kid
    ring.rotate(now, at_once=True)
    other.refresh()
    assert other.verification_key(leaked, now) is None


def test_no_request_looks_at_the_file(tmp_path: Path, ring: KeyRing, now: datetime) -> None:
    other = open_ring(tmp_path)
    ring.rotate(now)
    assert len(published(other, now)) == 1


class _FailingOnceFile(SigningKeyFile):
    """A file that fails, the first time that it is looked at, in a way that nobody foresaw."""

    failures = 1

    def version(self) -> FileVersion | None:
        """Fail, or look."""
        if type(self).failures:
            type(self).failures -= 1
            raise ZeroDivisionError
        return super().version()


@pytest.mark.anyio
async def test_a_server_looks_at_the_file_by_itself_and_goes_on_when_that_fails(
    tmp_path: Path, ring: KeyRing, now: datetime
) -> None:
    assert ring.file is not None
    other = replace(open_ring(tmp_path), file=_FailingOnceFile(ring.file.folder))
    looking = asyncio.create_task(other.refresh_forever())
    try:
        new = ring.rotate(now).kid
        async with asyncio.timeout(20):
            while new not in published(other, now):  # noqa: ASYNC110  (nothing tells when it has looked)
                await asyncio.sleep(0.01)
    finally:
        looking.cancel()


def test_two_servers_that_rotate_lose_no_key(tmp_path: Path, ring: KeyRing, now: datetime) -> None:
    other = open_ring(tmp_path)
    made = [ring.rotate(now).kid, other.rotate(now).kid, ring.rotate(now).kid]
    assert set(made) < set(published(ring, now))
    assert len(published(ring, now)) == 4


@pytest.mark.parametrize("damage", ["removed", "empty", "others may read", "another key"])
def test_a_file_that_breaks_changes_nothing_but_the_log(
    ring: KeyRing, now: datetime, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    kid = ring.signing_key(now).kid
    assert ring.file is not None
    whole = ring.file.path.read_text()
    spoil(ring.file, damage)
    with caplog.at_level(logging.WARNING, logger="pixyproxy"):
        for _ in range(3):
            ring.refresh()
            assert published(ring, now) == [kid]
    assert [record.message.split(":")[0] for record in caplog.records] == ["signing keys stay as they were"]
    assert "PRIVATE" not in caplog.text
    ring.file.path.write_text(whole)
    ring.file.path.chmod(0o600)
    new = ring.rotate(now).kid
    ring.refresh()
    assert published(ring, now) == [kid, new]


def spoil(file: SigningKeyFile, damage: str) -> None:
    if damage == "removed":
        file.path.unlink()
    elif damage == "empty":
        file.path.write_text("")
    elif damage == "others may read":
        file.path.chmod(0o644)
    else:
        file.replace(lambda present: (present[0].model_copy(update={"kid": "stranger"}),))


def test_a_file_that_is_whole_again_is_noticed(ring: KeyRing, now: datetime) -> None:
    assert ring.file is not None
    ring.file.path.chmod(0o644)
    ring.refresh()
    assert len(published(ring, now)) == 1
    ring.file.path.chmod(0o600)
    SigningKeyFile(ring.file.folder).replace(lambda present: (*present, ring.signing_key(now)))
    ring.refresh()
    assert len(published(ring, now)) == 2


def test_a_server_does_not_start_on_a_key_that_is_damaged(tmp_path: Path, ring: KeyRing) -> None:
    assert ring.file is not None
    ring.file.path.write_text(ring.file.path.read_text().replace("BEGIN PRIVATE", "BEGIN"))
    with pytest.raises(ConfigurationException, match="damaged"):
        open_ring(tmp_path)


def test_keys_of_the_setting_touch_no_disk(tmp_path: Path, now: datetime) -> None:
    first, second = pem(), pem()
    ring = open_key_ring(make_settings(tmp_path, signing_keys=first + second))
    assert list(tmp_path.iterdir()) == []
    signing = ring.signing_key(now)
    assert signing.private_pem.get_secret_value().strip() == first.strip()
    assert len(published(ring, now)) == 2
    far = now + timedelta(days=3650)
    assert [ring.verification_key(kid, far) is not None for kid in published(ring, far)] == [True, True]


def test_a_key_that_stands_twice_in_the_setting_counts_once(tmp_path: Path, now: datetime) -> None:
    key, other = pem(), pem()
    ring = open_key_ring(make_settings(tmp_path, signing_keys=key + other + key))
    assert len(published(ring, now)) == 2
    assert ring.signing_key(now).private_pem.get_secret_value().strip() == key.strip()


def test_line_ends_may_be_written_as_in_an_environment_file(tmp_path: Path, now: datetime) -> None:
    key = pem()
    escaped = open_key_ring(make_settings(tmp_path, signing_keys=key.replace("\n", "\\n")))
    assert published(escaped, now) == published(open_key_ring(make_settings(tmp_path, signing_keys=key)), now)


def test_the_parameters_that_openssl_writes_first_are_no_key(tmp_path: Path, now: datetime) -> None:
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    ring = open_key_ring(make_settings(tmp_path, signing_keys=parameters + pem()))
    assert len(published(ring, now)) == 1


def test_the_setting_is_not_rotated_here(tmp_path: Path, now: datetime) -> None:
    ring = open_key_ring(make_settings(tmp_path, signing_keys=pem()))
    with pytest.raises(ConfigurationException, match="PIXYPROXY_SIGNING_KEYS"):
        ring.rotate(now)


def test_a_setting_that_holds_anything_else_is_refused_without_being_quoted(tmp_path: Path) -> None:
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
            open_key_ring(make_settings(tmp_path, signing_keys=setting))
        assert "secret" not in refusal.value.message
        assert [line for line in setting.splitlines() if line and line in refusal.value.message] == []


def test_a_ring_shows_no_key(ring: KeyRing) -> None:
    assert "PRIVATE" not in f"{ring!r} {ring.loaded!r}"
