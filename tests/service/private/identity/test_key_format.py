"""The form of secrets: what scanners know, and that a look-alike is told without asking anyone."""

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
    """CRC-32 in base 62, six digits, most significant first."""
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


def test_a_key_reads_as_it_is_described() -> None:
    assert KEY.get_secret_value() == forged_key(key_id=KEY_ID, secret=SECRET)
    assert read_api_key(KEY) == PRESENTED


def test_the_checksum_is_crc_32_in_base_62() -> None:
    for text in (KEY.get_secret_value(), refresh_token_text(SECRET).get_secret_value()):
        assert text[-6:] == checksum_by_the_book(text[:-6])


def test_any_single_character_changed_is_no_key() -> None:
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
def test_what_has_not_the_form_is_neither_a_key_nor_a_refresh_token(presented: str) -> None:
    assert read_api_key(SecretStr(presented)) is None
    assert read_refresh_token(SecretStr(presented)) is None
    assert read_client(KEY_ID, SecretStr(presented)) is None


@pytest.mark.parametrize("around", [" {}", "{}\n", "{} ", "{0}{0}"])
def test_something_around_a_secret_makes_it_none(around: str) -> None:
    assert read_api_key(SecretStr(around.format(KEY.get_secret_value()))) is None
    assert read_refresh_token(SecretStr(around.format(refresh_token_text(SECRET).get_secret_value()))) is None


def test_a_refresh_token_is_no_key_and_a_key_is_no_refresh_token() -> None:
    token = refresh_token_text(SECRET)
    assert read_refresh_token(token) == sha256(SECRET)
    assert read_api_key(token) is None
    assert read_refresh_token(KEY) is None


def test_a_client_may_send_its_whole_key_or_what_stands_behind_the_id() -> None:
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
def test_a_client_that_is_not_the_keys_is_none(client_id: str, secret: str) -> None:
    assert read_client(client_id, SecretStr(secret)) is None


def test_secrets_are_of_256_bits_and_never_alike() -> None:
    secrets = {new_secret() for _ in range(200)}
    assert len(secrets) == 200
    assert all(re.fullmatch(r"[0-9A-Za-z]{43}", secret) for secret in secrets)
    assert encode(2**256 - 1, length=43)[0] != "0"
    assert len({new_key_id() for _ in range(200)}) == 200


def test_a_secret_is_shown_by_nothing() -> None:
    assert SECRET not in repr(KEY) + repr(refresh_token_text(SECRET)) + repr(PRESENTED)
    assert key_format.sha256(SECRET) != SECRET
