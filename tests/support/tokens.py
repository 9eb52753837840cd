"""Access tokens made by hand: validly signed, with any content."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from pydantic import SecretStr

from pixyproxy.service.private.identity.oauth.jwt import (
    VerificationKey,
    public_jwk,
    public_key_from_jwk,
    signing_key_from_pem,
    verify_token,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
ISSUER = "https://pictures.example.com"
AUDIENCE = "https://pictures.example.com"
REQUIRED = frozenset({"iss", "aud", "exp", "iat", "sub", "jti", "client_id"})

PEM = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)
KEY = signing_key_from_pem(SecretStr(PEM), signs_from=NOW)
PRIVATE = serialization.load_pem_private_key(PEM.encode(), None)
JWK = public_jwk(KEY)
HEADER: dict[str, Any] = {"alg": "ES256", "typ": "at+jwt", "kid": KEY.kid}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "0f8b6b0e-95a4-4f37-9a4e-6f6a0f3c1c55",
    "jti": "7d3f7dc2-1d5b-4a39-9be5-b0a1c7b2c7f0",
    "client_id": "studio",
    "iat": SECONDS,
    "exp": SECONDS + 900,
    "scope": "image:read image:generate",
}
Forgery = Callable[[], str]
Json = Mapping[str, Any] | bytes
Signer = Callable[[bytes], bytes]


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def raw(content: Json) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()


def es256(message: bytes) -> bytes:
    assert isinstance(PRIVATE, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(es256_der(message))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def es256_der(message: bytes) -> bytes:
    assert isinstance(PRIVATE, ec.EllipticCurvePrivateKey)
    return PRIVATE.sign(message, ec.ECDSA(hashes.SHA256()))


@lru_cache(maxsize=1)
def rsa_private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def rs256(message: bytes) -> bytes:
    return rsa_private().sign(message, padding.PKCS1v15(), hashes.SHA256())


def ps256(message: bytes) -> bytes:
    return rsa_private().sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def rsa_jwk(**changes: object) -> dict[str, Any]:
    numbers = rsa_private().public_key().public_numbers()
    n, e = numbers.n.to_bytes(256, "big"), numbers.e.to_bytes(3, "big")
    return {"kty": "RSA", "n": b64(n), "e": b64(e), **changes}


def token_of(header: Json, claims: Json = CLAIMS, *, sign: Signer = es256) -> str:
    message = f"{b64(raw(header))}.{b64(raw(claims))}"
    return f"{message}.{b64(sign(message.encode()))}"


def with_claims(**changes: object) -> str:
    """Return one of PixyProxy's tokens with other claims; ``...`` removes a claim."""
    return token_of(HEADER, {name: value for name, value in {**CLAIMS, **changes}.items() if value is not ...})


def with_header(**changes: object) -> str:
    return token_of({name: value for name, value in {**HEADER, **changes}.items() if value is not ...})


def with_exp(literal: str) -> str:
    """Return a token whose ``exp`` is this JSON text, which Python might not write."""
    claims = {name: value for name, value in CLAIMS.items() if name != "exp"}
    return token_of(HEADER, json.dumps(claims)[:-1].encode() + f', "exp": {literal}}}'.encode())


def with_signature(change: Callable[[bytes], bytes]) -> str:
    return token_of(HEADER, sign=lambda message: change(es256(message)))


def rsa_private_pem() -> bytes:
    return rsa_private().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def verification_key(jwk: Mapping[str, Any]) -> VerificationKey:
    key = public_key_from_jwk(jwk)
    assert key is not None
    return key


def verify(token: str, key: VerificationKey | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    expected: dict[str, Any] = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "types": frozenset({"at+jwt"}),
        "required": REQUIRED,
        "at": NOW,
    }
    return verify_token(token, key or verification_key(JWK), **{**expected, **changes})


def public_forms(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, jwk: Mapping[str, Any]) -> dict[str, bytes]:
    """Return every text of a public key that a verifier could take for a shared secret (CVE-2026-85394)."""
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = public.public_bytes(serialization.Encoding.PEM, info)
    return {
        "PEM": pem,
        "PEM without its last line end": pem.rstrip(),
        "DER": public.public_bytes(serialization.Encoding.DER, info),
        "JWK": json.dumps(jwk).encode(),
        "JWK without spaces": json.dumps(jwk, separators=(",", ":")).encode(),
        "first number": str(jwk.get("x", jwk.get("n"))).encode(),
        "nothing": b"",
    }


def hmac_token(secret: bytes, bits: int, **header: object) -> str:
    digest = {256: hashlib.sha256, 384: hashlib.sha384, 512: hashlib.sha512}[bits]
    return token_of(
        {**HEADER, "alg": f"HS{bits}", **header}, sign=lambda message: hmac.new(secret, message, digest).digest()
    )
