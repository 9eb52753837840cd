"""The secret of an installation: which processes may start with it, and what it encrypts."""

import asyncio
import hashlib
import hmac
import re
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.data.database import Database
from pixyproxy.service.private.identity.installation_secret import derive_seal, installation_secret, open_seal
from tests.support.keys import SALT, SECRET
from tests.support.server import make_settings

OTHER = SecretStr("the secret of another installation")
PLAIN = SecretStr("-----BEGIN PRIVATE KEY-----")


def hkdf(key: bytes, label: bytes) -> bytes:
    """Return HKDF (RFC 5869) with SHA-256 and no salt, for 32 bytes."""
    extracted = hmac.digest(bytes(32), key, hashlib.sha256)
    return hmac.digest(extracted, label + b"\x01", hashlib.sha256)


def test_keys_are_derived_as_documented() -> None:
    seal = derive_seal(SECRET, SALT)
    secret = SECRET.get_secret_value().encode()
    stretched = hashlib.scrypt(secret, salt=bytes.fromhex(SALT), n=16384, r=8, p=1, dklen=32)
    assert seal.verifier == hkdf(stretched, b"pixyproxy: verifier of the secret").hex()
    sealed = b64decode(seal.seal(PLAIN, kid="a"))
    cipher = AESGCM(hkdf(stretched, b"pixyproxy: signing keys"))
    assert cipher.decrypt(sealed[:12], sealed[12:], b"a").decode() == PLAIN.get_secret_value()


def test_verifier_cannot_open_sealed_keys() -> None:
    seal = derive_seal(SECRET, SALT)
    sealed = b64decode(seal.seal(PLAIN, kid="a"))
    with pytest.raises(InvalidTag):
        AESGCM(bytes.fromhex(seal.verifier)).decrypt(sealed[:12], sealed[12:], b"a")


def test_sealed_key_opens_only_with_the_same_secret_salt_and_kid() -> None:
    sealed = derive_seal(SECRET, SALT).seal(PLAIN, kid="a")
    assert derive_seal(SECRET, SALT).open(sealed, kid="a") == PLAIN
    for seal, kid in (
        (derive_seal(OTHER, SALT), "a"),
        (derive_seal(SECRET, "11" * 16), "a"),
        (derive_seal(SECRET, SALT), "b"),
    ):
        with pytest.raises(ValueError, match="not sealed with this secret"):
            seal.open(sealed, kid=kid)


@pytest.mark.parametrize("sealed", ["", "AA==", "no base64", "ü", "A" * 64])
def test_invalid_sealed_text_is_rejected(sealed: str) -> None:
    with pytest.raises(ValueError, match="not sealed with this secret"):
        derive_seal(SECRET, SALT).open(sealed, kid="a")


def test_sealing_twice_gives_different_texts() -> None:
    seal = derive_seal(SECRET, SALT)
    assert seal.seal(PLAIN, kid="a") != seal.seal(PLAIN, kid="a")


def test_repr_of_a_seal_hides_the_key() -> None:
    assert re.fullmatch(r"Seal\(verifier='[0-9a-f]{64}'\)", repr(derive_seal(SECRET, SALT)))


def test_secret_comes_from_the_setting_or_the_data_folder(tmp_path: Path) -> None:
    assert installation_secret(make_settings(tmp_path, secret_key=SECRET)) == SECRET
    assert not (tmp_path / "var").exists()
    made = installation_secret(make_settings(tmp_path))
    assert (tmp_path / "var" / "secret_key").read_text() == made.get_secret_value()


@pytest.mark.anyio
async def test_first_process_sets_the_secret_and_another_secret_is_rejected(database: Database) -> None:
    seal = await open_seal(database, SECRET)
    assert await open_seal(database, SECRET) == seal
    with pytest.raises(ConfigurationException, match="Set PIXYPROXY_SECRET_KEY to the secret of the other processes"):
        await open_seal(database, OTHER)
    assert await open_seal(database, SECRET) == seal


@pytest.mark.anyio
async def test_concurrently_starting_processes_agree_on_the_secret(database: Database) -> None:
    opened = await asyncio.gather(
        *(open_seal(database, secret) for secret in (SECRET, OTHER) * 3), return_exceptions=True
    )
    refused = [each for each in opened if isinstance(each, ConfigurationException)]
    assert len(refused) == 3
    (verifier,) = {each.verifier for each in opened if not isinstance(each, BaseException)}
    stored = await database.read(lambda data: data.signing_keys.installation())
    assert stored is not None
    assert stored.secret_verifier == verifier
