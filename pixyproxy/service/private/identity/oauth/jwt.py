"""JSON Web Tokens (RFC 7519, RFC 9068): sign ours, verify any. The only module that imports ``jose``.

python-jose 3.5.0 checks too little for untrusted input: it accepts tokens without ``exp`` or ``aud``, ignores
``crit``, decodes base64 leniently, and raises other errors than ``JWTError`` on deep nesting, ``exp: null`` and
infinity. Here it only verifies or makes one signature, with one asymmetric algorithm and a key looked up before.
Everything else is checked in this module, and every failure is the same ``CredentialInvalidException``.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, get_args

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jose import jws
from jose.backends.base import Key
from jose.jwk import construct
from pydantic import SecretStr

from pixyproxy.core.exceptions import CredentialInvalidException
from pixyproxy.core.models.signing_key import SigningKey
from pixyproxy.core.models.trusted_issuer import Algorithm
from pixyproxy.service.private.identity.oauth.encodings import decode_base64url, encode_base64url, read_json_object

ALGORITHMS: frozenset[str] = frozenset(get_args(Algorithm))
"""Accepted algorithms: no HMAC, whose secret could be a public key (CVE-2026-85394), and no ``none``."""

FITTING = {
    ("RSA", None): ("RS256", "RS384", "RS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
}
"""Key type and curve → its algorithms, the default first (RFC 7518 §3.4: each curve has its own)."""

COORDINATE_BYTES = {"P-256": 32, "P-384": 48, "P-521": 66}
RSA_BITS = range(2048, 8193)
"""Smaller keys can be broken (RFC 7518 §3.3); with larger ones, a signature takes milliseconds of a core."""

MAX_TOKEN_CHARACTERS = 8192
PARTS = 3
NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,255}")
KID = re.compile(r"[\x20-\x7e]{1,200}")
REFUSED_HEADERS = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c"})
"""Headers that change how a signature is made or bring their own key. No issuer needs them."""

LATEST = 253_402_300_799
"""The last second of the year 9999, the maximum of a ``datetime``."""


@dataclass(frozen=True)
class UnverifiedToken:
    """The unverified content of a well-formed token.

    ``type`` is in lower case and without ``application/`` (RFC 7515 §4.1.9).
    """

    kid: str | None
    algorithm: str
    type: str | None
    issuer: str | None


@dataclass(frozen=True)
class VerificationKey:
    """A public key and the one algorithm that it verifies. Create it with ``public_key_from_jwk``."""

    kid: str | None
    algorithm: str
    jwk: Mapping[str, Any]

    @cached_property
    def parsed(self) -> Key:
        """The library's key, parsed once. Raises any error of the library if the numbers are not a valid key."""
        return construct(dict(self.jwk), self.algorithm)


def public_key_from_jwk(jwk: object) -> VerificationKey | None:
    """Return the key in a JWK (RFC 7517), or None if it must not or cannot verify a signature.

    None for secrets, private keys (anyone who reads them could sign), other uses, unknown types, curves and algorithms,
    RSA sizes outside ``RSA_BITS``, and invalid numbers. Without ``alg``, the default of its type applies.
    """
    try:
        return _verification_key(jwk)
    except Exception:  # noqa: BLE001  (a JWKS is untrusted: a key with any defect is unusable)
        return None


def inspect_token(token: str) -> UnverifiedToken:
    """Return the unverified content of a well-formed token. Raises ``CredentialInvalidException``.

    Well-formed: at most 8 KB, three parts of canonical base64url, header and claims shallow JSON objects without
    duplicate members, and no header in ``REFUSED_HEADERS``.
    """
    with _refusing():
        header, payload = _open_token(token)
        claims = read_json_object(payload)
        issuer = claims.get("iss")
        _require(issuer is None or _is_name(issuer))
        return UnverifiedToken(kid=header.get("kid"), algorithm=header["alg"], type=_type(header), issuer=issuer)


def verify_signature(token: str, key: VerificationKey) -> bytes:
    """Return the payload that the key has signed, unchecked. Raises ``CredentialInvalidException``."""
    with _refusing():
        header, _ = _open_token(token)
        _require(header["alg"] == key.algorithm and key.algorithm in ALGORITHMS)
        return jws.verify(token, key.parsed, algorithms=[key.algorithm])


def verify_token(  # noqa: PLR0913  (the properties that are checked; all by keyword)
    token: str,
    key: VerificationKey,
    *,
    issuer: str,
    audience: str,
    types: frozenset[str],
    required: frozenset[str],
    at: datetime,
    leeway_seconds: int = 0,
) -> dict[str, Any]:
    """Return the claims of a token that is signed by the key, intended for ``audience``, and valid now.

    ``types`` are in lower case; an empty string allows a token without ``typ``. ``leeway_seconds`` applies to ``nbf``
    and ``iat`` only: clocks differ, but no token is valid after its ``exp``. Raises ``CredentialInvalidException``.
    """
    with _refusing():
        unverified = inspect_token(token)
        _require((unverified.type or "") in types)
        _require(unverified.kid is None or unverified.kid == key.kid)
        claims = read_json_object(verify_signature(token, key))
        _require(all(claims.get(name) is not None for name in required))
        _require(claims.get("iss") == issuer)
        _check_audience(claims.get("aud"), audience)
        _check_times(claims, now=at.timestamp(), leeway_seconds=leeway_seconds)
        _require(all(_is_name(claims[name]) for name in ("sub", "jti", "client_id") if name in claims))
        return claims


def sign_token(claims: Mapping[str, Any], key: SigningKey) -> str:
    """Return an access token (RFC 9068) with these claims, signed with ES256."""
    payload = json.dumps(claims, separators=(",", ":"), allow_nan=False).encode()
    headers = {"typ": "at+jwt", "kid": key.kid}
    return jws.sign(payload, _private_key(key.private_pem), headers=headers, algorithm="ES256")


def signing_key_from_pem(private_pem: SecretStr, *, signs_from: datetime) -> SigningKey:
    """Return the signing key in a PEM text. Raises ``ValueError``, without the key, unless it is a plain P-256 key."""
    try:
        loaded = load_pem_private_key(private_pem.get_secret_value().encode(), password=None)
        usable = isinstance(loaded, ec.EllipticCurvePrivateKey) and isinstance(loaded.curve, ec.SECP256R1)
    except Exception:  # noqa: BLE001  (the text comes from an operator and may be anything)
        usable = False
    if not usable:
        problem = "not an EC P-256 private key in PEM without a passphrase"
        raise ValueError(problem)
    return SigningKey(kid=_thumbprint(_public_members(private_pem)), private_pem=private_pem, signs_from=signs_from)


def public_jwk(key: SigningKey) -> dict[str, str]:
    """Return the public half of a signing key as a JWK."""
    return {**_public_members(key.private_pem), "use": "sig", "alg": "ES256", "kid": key.kid}


@contextmanager
def _refusing() -> Iterator[None]:
    """Convert every exception inside to ``CredentialInvalidException``, so that no input causes another error."""
    try:
        yield
    except Exception:  # noqa: BLE001  (see above; the cause may quote the token, so it is left out)
        raise CredentialInvalidException from None


def _require(holds: bool) -> None:  # noqa: FBT001  (reads as a sentence)
    if not holds:
        raise CredentialInvalidException


def _open_token(token: str) -> tuple[dict[str, Any], bytes]:
    """Return the checked header and the payload of a token in compact form."""
    _require(len(token) <= MAX_TOKEN_CHARACTERS)
    parts = token.split(".")
    _require(len(parts) == PARTS and all(parts))
    header, payload, _ = (decode_base64url(part) for part in parts)
    members = read_json_object(header)
    _require(not REFUSED_HEADERS & members.keys())
    _require(isinstance(members.get("alg"), str))
    _require("typ" not in members or _is_name(members["typ"]))
    _require("kid" not in members or _is_kid(members["kid"]))
    return members, payload


def _type(header: Mapping[str, Any]) -> str | None:
    return header["typ"].lower().removeprefix("application/") if "typ" in header else None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _is_kid(value: object) -> bool:
    return isinstance(value, str) and KID.fullmatch(value) is not None


def _check_audience(value: object, audience: str) -> None:
    audiences = value if isinstance(value, list) else [value]
    _require(all(isinstance(each, str) for each in audiences) and audience in audiences)


def _check_times(claims: Mapping[str, Any], *, now: float, leeway_seconds: int) -> None:
    _require(_is_time(claims.get("exp")) and claims["exp"] > now)
    for name in ("nbf", "iat"):
        _require(name not in claims or (_is_time(claims[name]) and claims[name] <= now + leeway_seconds))


def _is_time(value: object) -> bool:
    """Return whether it is a NumericDate (RFC 7519 §2) in a ``datetime``'s range. In Python, ``True`` is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LATEST


def _verification_key(jwk: object) -> VerificationKey:
    _require(isinstance(jwk, Mapping))
    members: Mapping[str, Any] = dict(jwk)  # type: ignore[call-overload]
    kind, curve = members["kty"], members["crv"] if members["kty"] == "EC" else None
    algorithms = FITTING[kind, curve]
    algorithm = members.get("alg", algorithms[0])
    _require(algorithm in algorithms)
    operations = members.get("key_ops", ["verify"])
    _require(members.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations)
    _require(members.get("kid") is None or _is_kid(members["kid"]))
    _require("d" not in members)
    public = _rsa_members(members) if curve is None else _ec_members(members)
    key = VerificationKey(kid=members.get("kid"), algorithm=algorithm, jwk=public)
    _require(key.parsed is not None)
    return key


def _rsa_members(members: Mapping[str, Any]) -> dict[str, str]:
    modulus, exponent = (int.from_bytes(decode_base64url(members[name]), "big") for name in ("n", "e"))
    # OpenSSL rejects larger exponents, and verification with a long one is slow.
    _require(modulus.bit_length() in RSA_BITS and modulus % 2 == 1 and exponent.bit_length() <= 64)  # noqa: PLR2004
    return {name: members[name] for name in ("kty", "n", "e")}


def _ec_members(members: Mapping[str, Any]) -> dict[str, str]:
    _require(all(len(decode_base64url(members[name])) == COORDINATE_BYTES[members["crv"]] for name in ("x", "y")))
    return {name: members[name] for name in ("kty", "crv", "x", "y")}


@lru_cache(maxsize=64)
def _private_key(private_pem: SecretStr) -> Key:
    return construct(private_pem.get_secret_value(), "ES256")


def _public_members(private_pem: SecretStr) -> dict[str, str]:
    jwk = _private_key(private_pem).public_key().to_dict()
    return {name: jwk[name] for name in ("kty", "crv", "x", "y")}


def _thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the thumbprint (RFC 7638 §3): SHA-256 of the required members, sorted and without white space."""
    text = json.dumps(jwk, sort_keys=True, separators=(",", ":"))
    return encode_base64url(hashlib.sha256(text.encode()).digest())
