"""Keys of JSON Web Tokens: verification keys, signing keys, and the used parts of the library."""

import ast
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jose.backends.cryptography_backend import CryptographyECKey, CryptographyRSAKey
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey, RSAKey
from pydantic import SecretStr

import pixyproxy
from pixyproxy.core.models.signing_key import SigningKey
from pixyproxy.service.private.identity.oauth.jwt import (
    ALGORITHMS,
    public_key_from_jwk,
    sign_token,
    signing_key_from_pem,
    verify_signature,
)
from tests.support.tokens import (
    CLAIMS,
    JWK,
    KEY,
    NOW,
    PEM,
    PRIVATE,
    b64,
    rsa_jwk,
    rsa_private_pem,
    verification_key,
    verify,
)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_verifies_a_signature_of_another_library(algorithm: str) -> None:
    key: ECKey | RSAKey
    if algorithm.startswith("RS"):
        key = RSAKey.import_key(rsa_private_pem())
    else:
        key = ECKey.generate_key({"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[algorithm])
    header = {"alg": algorithm, "typ": "at+jwt"}
    token = joserfc_jwt.encode(header, CLAIMS, key, algorithms=[algorithm])
    jwk = {**key.as_dict(private=False), "alg": algorithm}
    assert verify(token, verification_key(jwk)) == CLAIMS
    assert verify_signature(token, verification_key(jwk)) == json.dumps(CLAIMS, separators=(",", ":")).encode()


def test_jose_uses_the_cryptography_backend() -> None:
    assert isinstance(verification_key(JWK).parsed, CryptographyECKey)
    assert isinstance(verification_key(rsa_jwk()).parsed, CryptographyRSAKey)


def test_key_is_parsed_once() -> None:
    key = verification_key(JWK)
    assert key.parsed is key.parsed


@pytest.mark.parametrize(
    ("curve", "algorithm"), [("P-256", "ES256"), ("P-384", "ES384"), ("P-521", "ES512"), ("RSA", "RS256")]
)
def test_key_without_algorithm_gets_the_default_of_its_type(curve: str, algorithm: str) -> None:
    jwk = rsa_jwk() if curve == "RSA" else ECKey.generate_key(curve).as_dict(private=False)
    jwk.pop("alg", None)
    assert verification_key(jwk).algorithm == algorithm


def test_only_the_public_members_of_a_key_are_stored() -> None:
    key = verification_key({**rsa_jwk(), "kid": "a", "x5c": ["MIIB"], "x5t": "x", "use": "sig", "key_ops": ["verify"]})
    assert (key.kid, set(key.jwk)) == ("a", {"kty", "n", "e"})


def small_rsa_jwk() -> dict[str, Any]:
    return {"kty": "RSA", "n": b64(((1 << 1023) | 1).to_bytes(128, "big")), "e": "AQAB"}


UNUSABLE: dict[str, Callable[[], object]] = {
    "none": lambda: None,
    "a list": lambda: [JWK],
    "a list of pairs": lambda: [list(pair) for pair in JWK.items()],
    "a text": lambda: "key",
    "a number": lambda: 7,
    "nothing in it": dict,
    "a secret": lambda: {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
    "a secret that says ES256": lambda: {"kty": "oct", "k": "c2VjcmV0", "alg": "ES256"},
    "OKP": lambda: {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    "type a list": lambda: {**JWK, "kty": ["EC"]},
    "type null": lambda: {**JWK, "kty": None},
    "for encryption": lambda: {**JWK, "use": "enc"},
    "use null": lambda: {**JWK, "use": None},
    "for signing alone": lambda: {**JWK, "key_ops": ["sign"]},
    "operations a text": lambda: {**JWK, "key_ops": "verify"},
    "operations null": lambda: {**JWK, "key_ops": None},
    "another curve": lambda: {**JWK, "crv": "P-384"},
    "unknown curve": lambda: {**JWK, "crv": "secp256k1", "alg": "ES256K"},
    "curve left out": lambda: {name: value for name, value in JWK.items() if name != "crv"},
    "HS256": lambda: {**JWK, "alg": "HS256"},
    "none as algorithm": lambda: {**JWK, "alg": "none"},
    "algorithm null": lambda: {**JWK, "alg": None},
    "algorithm of another curve": lambda: {**JWK, "alg": "ES384"},
    "algorithm of another type": lambda: {**JWK, "alg": "RS256"},
    "PS256": lambda: rsa_jwk(alg="PS256"),
    "RSA-OAEP": lambda: rsa_jwk(alg="RSA-OAEP"),
    "RSA with ES256": lambda: rsa_jwk(alg="ES256"),
    "not on the curve": lambda: {**JWK, "y": JWK["x"]},
    "the point at infinity": lambda: {**JWK, "x": b64(bytes(32)), "y": b64(bytes(32))},
    "coordinate left out": lambda: {name: value for name, value in JWK.items() if name != "y"},
    "coordinate too short": lambda: {**JWK, "x": JWK["x"][:-2]},
    "coordinate too long": lambda: {**JWK, "x": b64(bytes(1) + base64.urlsafe_b64decode(JWK["x"] + "="))},
    "coordinate a number": lambda: {**JWK, "x": 7},
    "coordinate padded": lambda: {**JWK, "x": JWK["x"] + "="},
    "private EC": lambda: {**JWK, "d": JWK["x"]},
    "private RSA": lambda: rsa_jwk(d="AQAB"),
    "RSA of 1,024 bits": small_rsa_jwk,
    "RSA of 16,384 bits": lambda: rsa_jwk(n=b64(((1 << 16383) | 1).to_bytes(2048, "big"))),
    "RSA even": lambda: rsa_jwk(n=b64((1 << 2047).to_bytes(256, "big"))),
    "RSA exponent 1": lambda: rsa_jwk(e="AQ"),
    "RSA exponent even": lambda: rsa_jwk(e="AQAA"),
    "RSA exponent of 65 bits": lambda: rsa_jwk(e=b64(((1 << 64) | 1).to_bytes(9, "big"))),
    "RSA exponent empty": lambda: rsa_jwk(e=""),
    "RSA modulus empty": lambda: rsa_jwk(n=""),
    "RSA modulus null": lambda: rsa_jwk(n=None),
    "kid a number": lambda: {**JWK, "kid": 7},
    "kid too long": lambda: {**JWK, "kid": "k" * 201},
    "kid with a line end": lambda: {**JWK, "kid": "a\nb"},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_verification_key_is_none(name: str) -> None:
    assert public_key_from_jwk(UNUSABLE[name]()) is None


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *, passphrase: bytes | None = None) -> str:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


NO_SIGNING_KEYS: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "text": lambda: "secret",
    "RSA": lambda: rsa_private_pem().decode(),
    "P-384": lambda: private_pem(ec.generate_private_key(ec.SECP384R1())),
    "secp256k1": lambda: private_pem(ec.generate_private_key(ec.SECP256K1())),
    "with a passphrase": lambda: private_pem(ec.generate_private_key(ec.SECP256R1()), passphrase=b"secret"),
    "cut off": lambda: PEM[:100],
    "lone surrogate": lambda: PEM + "\ud800",
}


@pytest.mark.parametrize("name", NO_SIGNING_KEYS)
def test_invalid_signing_key_is_rejected(name: str) -> None:
    with pytest.raises(ValueError, match="not an EC P-256 private key"):
        signing_key_from_pem(SecretStr(NO_SIGNING_KEYS[name]()), signs_from=NOW)


def test_signing_key_in_openssl_legacy_format_is_accepted() -> None:
    assert isinstance(PRIVATE, ec.EllipticCurvePrivateKey)
    older = PRIVATE.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    key = signing_key_from_pem(SecretStr(older.decode()), signs_from=NOW)
    assert key.kid == KEY.kid
    assert verify(sign_token(CLAIMS, key)) == CLAIMS


def test_signing_key_repr_hides_the_key() -> None:
    assert isinstance(KEY, SigningKey)
    assert "PRIVATE" not in f"{KEY!r} {KEY} {KEY.model_dump_json()}"


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_jose_is_imported_by_one_module_without_its_encryption() -> None:
    users = {
        path.name: imported_modules(path)
        for path in Path(pixyproxy.__file__).parent.rglob("*.py")
        if any(name.split(".")[0] == "jose" for name in imported_modules(path))
    }
    assert set(users) == {"jwt.py"}
    assert {name for name in users["jwt.py"] if name.startswith("jose")} == {
        "jose.jws",
        "jose.backends.base.Key",
        "jose.jwk.construct",
    }
