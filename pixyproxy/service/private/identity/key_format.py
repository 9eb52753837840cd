"""The format of API keys and refresh tokens.

An API key is ``pxy_<key id>_<secret><checksum>``: 12, 43 and 6 characters of base 62. The secret is 256 random
bits, so that SHA-256 protects it as well as a slow hash would. The checksum (CRC-32) lets a scanner recognize a
real key offline, as with GitHub's tokens. A refresh token is ``pxr_<secret><checksum>``.
"""

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass

from pydantic import SecretStr

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
API_KEY = re.compile(
    r"(?P<body>pxy_(?P<key_id>[0-9A-Za-z]{12})_(?P<secret>[0-9A-Za-z]{43}))(?P<checksum>[0-9A-Za-z]{6})"
)
REFRESH_TOKEN = re.compile(r"(?P<body>pxr_(?P<secret>[0-9A-Za-z]{43}))(?P<checksum>[0-9A-Za-z]{6})")


@dataclass(frozen=True)
class PresentedKey:
    """A well-formed API key with a correct checksum; it need not exist."""

    key_id: str
    secret_sha256: str


def read_api_key(presented: SecretStr) -> PresentedKey | None:
    """Return the key id and the digest of the secret, or None if the API key is malformed."""
    match = API_KEY.fullmatch(presented.get_secret_value())
    if match is None or match["checksum"] != checksum(match["body"]):
        return None
    return PresentedKey(key_id=match["key_id"], secret_sha256=sha256(match["secret"]))


def read_client(client_id: str, client_secret: SecretStr) -> PresentedKey | None:
    """Return the API key of an OAuth client; the client secret is the whole key or the part after the key id."""
    secret = client_secret.get_secret_value()
    if not secret.startswith("pxy_"):
        secret = f"pxy_{client_id}_{secret}"
    found = read_api_key(SecretStr(secret))
    return found if found is not None and found.key_id == client_id else None


def read_refresh_token(presented: SecretStr) -> str | None:
    """Return the digest of a refresh token, or None if it is malformed."""
    match = REFRESH_TOKEN.fullmatch(presented.get_secret_value())
    if match is None or match["checksum"] != checksum(match["body"]):
        return None
    return sha256(match["secret"])


def new_key_id() -> str:
    """Return a new key id (71 random bits)."""
    return "".join(secrets.choice(ALPHABET) for _ in range(12))


def new_secret() -> str:
    """Return 256 random bits in base 62."""
    return encode(secrets.randbits(256), length=43)


def api_key_text(key_id: str, secret: str) -> SecretStr:
    """Return the complete API key."""
    body = f"pxy_{key_id}_{secret}"
    return SecretStr(body + checksum(body))


def refresh_token_text(secret: str) -> SecretStr:
    """Return the complete refresh token."""
    body = f"pxr_{secret}"
    return SecretStr(body + checksum(body))


def sha256(secret: str) -> str:
    """Return the digest that is stored for a secret, in 64 hex digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def checksum(body: str) -> str:
    """Return the checksum, the last six characters of a key."""
    return encode(zlib.crc32(body.encode()), length=6)


def encode(number: int, *, length: int) -> str:
    """Return a number in base 62, padded to ``length`` digits."""
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
