"""The format of secrets: what scanners rely on, and offline detection of look-alikes."""

import random
import re

import pytest
from pydantic import SecretStr

from pixyproxy.service.private.identity import key_format
from pixyproxy.service.private.identity.key_format import (
    ALPHABET,
    PresentedKey,
    api_key_text,
    encode,
    new_key_id,
    new_secret,
    read_api_key,
    read_client,
    read_refresh_token,
    refresh_token_text,
    sha256,
)
from tests.support.api_keys import forged_key, secret_of

KEY_ID, SECRET = "AbCdEfGhIjKl", "9" * 43
KEY = api_key_text(KEY_ID, SECRET)
PRESENTED = PresentedKey(key_id=KEY_ID, secret_sha256=sha256(SECRET))


def checksum_by_the_book(body: str) -> str:
    """Return CRC-32 in base 62: six digits, most significant first."""
    crc = 0xFFFFFFFF
    for byte in body.encode():
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    number, digits = crc ^ 0xFFFFFFFF, ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits


def test_key_has_the_documented_format() -> None:
    assert KEY.get_secret_value() == forged_key(key_id=KEY_ID, secret=SECRET)
    assert read_api_key(KEY) == PRESENTED


def test_checksum_is_crc_32_in_base_62() -> None:
    for text in (KEY.get_secret_value(), refresh_token_text(SECRET).get_secret_value()):
        assert text[-6:] == checksum_by_the_book(text[:-6])


def test_key_with_any_changed_character_is_malformed() -> None:
    key, chosen = KEY.get_secret_value(), random.Random(1)
    for _ in range(500):
        position = chosen.randrange(len(key))
        other = chosen.choice([character for character in ALPHABET + "_" if character != key[position]])
        altered = key[:position] + other + key[position + 1 :]
        assert altered[-6:] != checksum_by_the_book(altered[:-6])
        assert read_api_key(SecretStr(altered)) is None


@pytest.mark.parametrize(
    "presented", ["", "pxy_", "pxy__", "pxr_", "x", "pxy_" + "a" * 62, "\0", "🦊", "é" * 66, "x" * 100_000, "\ud800"]
)
def test_malformed_text_is_neither_key_nor_refresh_token(presented: str) -> None:
    assert read_api_key(SecretStr(presented)) is None
    assert read_refresh_token(SecretStr(presented)) is None
    assert read_client(KEY_ID, SecretStr(presented)) is None


@pytest.mark.parametrize("around", [" {}", "{}\n", "{} ", "{0}{0}"])
def test_surrounding_characters_make_a_secret_malformed(around: str) -> None:
    assert read_api_key(SecretStr(around.format(KEY.get_secret_value()))) is None
    assert read_refresh_token(SecretStr(around.format(refresh_token_text(SECRET).get_secret_value()))) is None


def test_refresh_token_and_key_are_not_interchangeable() -> None:
    token = refresh_token_text(SECRET)
    assert read_refresh_token(token) == sha256(SECRET)
    assert read_api_key(token) is None
    assert read_refresh_token(KEY) is None


def test_client_may_send_the_whole_key_or_the_part_after_the_id() -> None:
    assert read_client(KEY_ID, KEY) == PRESENTED
    assert read_client(KEY_ID, SecretStr(secret_of(KEY.get_secret_value()))) == PRESENTED


@pytest.mark.parametrize(
    ("client_id", "secret"),
    [
        ("AbCdEfGhIjKm", KEY.get_secret_value()),
        (KEY_ID.lower(), KEY.get_secret_value()),
        ("", KEY.get_secret_value()),
        ("🦊", KEY.get_secret_value()),
        ("AbCdEfGhIjKm", secret_of(KEY.get_secret_value())),
        (KEY_ID, SECRET),
        (KEY_ID, ""),
        (KEY_ID, f"_{secret_of(KEY.get_secret_value())}"),
    ],
    ids=["another id", "lower case", "no id", "an emoji", "another id's part", "no checksum", "nothing", "too much"],
)
def test_client_id_of_another_key_is_rejected(client_id: str, secret: str) -> None:
    assert read_client(client_id, SecretStr(secret)) is None


def test_secrets_have_256_bits_and_are_unique() -> None:
    secrets = {new_secret() for _ in range(200)}
    assert len(secrets) == 200
    assert all(re.fullmatch(r"[0-9A-Za-z]{43}", secret) for secret in secrets)
    assert encode(2**256 - 1, length=43)[0] != "0"
    assert len({new_key_id() for _ in range(200)}) == 200


def test_repr_of_secrets_hides_them() -> None:
    assert SECRET not in repr(KEY) + repr(refresh_token_text(SECRET)) + repr(PRESENTED)
    assert key_format.sha256(SECRET) != SECRET
