"""API keys that were never issued: the form ``pxy_<key id>_<secret><checksum>``, told anew from its description."""

import string
import zlib

DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
CHECKSUM_LENGTH = 6


def forged_key(*, key_id: str, secret: str) -> str:
    """A key whose checksum is right, so that only its secret can give it away."""
    body = f"pxy_{key_id}_{secret}"
    number, checksum = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(DIGITS))
        checksum = DIGITS[digit] + checksum
    return body + checksum


def key_id_of(api_key: str) -> str:
    """The part of a key that is no secret."""
    return api_key.split("_")[1]


def secret_of(api_key: str) -> str:
    """The part of a key that is."""
    return api_key.split("_")[2]
