"""API keys that were never issued, built from the documented form ``pxy_<key id>_<secret><checksum>``."""

import string
import zlib

DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
CHECKSUM_LENGTH = 6


def forged_key(*, key_id: str, secret: str) -> str:
    """Return a key with a valid checksum, so that only its secret is wrong."""
    body = f"pxy_{key_id}_{secret}"
    number, checksum = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(DIGITS))
        checksum = DIGITS[digit] + checksum
    return body + checksum


def key_id_of(api_key: str) -> str:
    """Return the public part of a key."""
    return api_key.split("_")[1]


def secret_of(api_key: str) -> str:
    """Return the secret part of a key."""
    return api_key.split("_")[2]
