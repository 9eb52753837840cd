"""JSON Web Tokens: valid tokens are accepted, forged ones rejected."""

import base64
import json
import random
from datetime import timedelta
from typing import Any

import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey, KeySet

from pixyproxy.core.exceptions import CredentialInvalidException
from pixyproxy.service.private.identity.oauth.jwt import VerificationKey, inspect_token, sign_token
from tests.support.forgeries import FORGERIES, GOOD, HEAD, ROWS, s_negated
from tests.support.tokens import (
    AUDIENCE,
    CLAIMS,
    HEADER,
    ISSUER,
    JWK,
    KEY,
    NOW,
    REQUIRED,
    SECONDS,
    b64,
    es256,
    hmac_token,
    ps256,
    public_forms,
    rs256,
    rsa_jwk,
    rsa_private,
    token_of,
    verification_key,
    verify,
    with_claims,
    with_exp,
    with_header,
    with_signature,
)


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_forged_token_is_rejected(kind: str, name: str) -> None:
    with pytest.raises(CredentialInvalidException):
        verify(FORGERIES[kind][name]())


@pytest.mark.parametrize("bits", [256, 384, 512])
def test_rsa_public_key_is_never_an_hmac_secret(bits: int) -> None:
    forms = public_forms(rsa_private().public_key(), rsa_jwk())
    assert {"PEM", "DER", "JWK", "nothing"} <= set(forms)
    for secret in forms.values():
        with pytest.raises(CredentialInvalidException):
            verify(hmac_token(secret, bits, kid="r"), verification_key(rsa_jwk(kid="r")))


def test_rsa_key_verifies_only_its_own_algorithm() -> None:
    key = verification_key(rsa_jwk(kid=KEY.kid))
    assert verify(token_of({**HEADER, "alg": "RS256"}, sign=rs256), key) == CLAIMS
    for alg, sign in (("ES256", rs256), ("RS384", rs256), ("PS256", ps256), ("RS256", ps256), ("RS256", es256)):
        with pytest.raises(CredentialInvalidException):
            verify(token_of({**HEADER, "alg": alg}, sign=sign), key)


def test_symmetric_key_verifies_nothing() -> None:
    forged = hmac_token(b"secret", 256)
    key = VerificationKey(kid=KEY.kid, algorithm="HS256", jwk={"kty": "oct", "k": b64(b"secret")})
    with pytest.raises(CredentialInvalidException):
        verify(forged, key)


def test_original_of_the_forgeries_is_accepted() -> None:
    assert verify(GOOD) == CLAIMS
    assert verify(token_of(HEADER)) == CLAIMS
    assert verify(with_exp(str(SECONDS + 900))) == CLAIMS


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [AUDIENCE]},
        {"aud": ["https://other.example.com", AUDIENCE]},
        {"exp": SECONDS + 0.5},
        {"exp": 253_402_300_799},
        {"nbf": SECONDS},
        {"nbf": 0},
        {"sub": "Jürgen 😀"},
        {"sub": "a" * 255},
        {"x": "[" * 1000},
        {"x": '"[{\\' * 100},
        {"x": [[[[[[[]]]]]]]},
    ],
    ids=repr,
)
def test_unusual_but_valid_token_is_accepted(changes: dict[str, Any]) -> None:
    assert verify(with_claims(**changes)) == {**CLAIMS, **changes}


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/at+JWT"])
def test_type_is_compared_as_a_media_type(typ: str) -> None:
    assert verify(with_header(typ=typ)) == CLAIMS


def test_missing_type_is_accepted_only_if_allowed() -> None:
    assert verify(with_header(typ=...), types=frozenset({"at+jwt", ""})) == CLAIMS


def test_certificate_thumbprint_is_ignored() -> None:
    assert verify(with_header(x5t="dGVzdA", **{"x5t#S256": "dGVzdA"})) == CLAIMS


def test_token_over_8_kilobytes_is_rejected() -> None:
    filled = with_claims(x="")
    filled = with_claims(x="x" * ((8192 - len(filled)) * 3 // 4))
    assert 8190 <= len(filled) <= 8192
    assert verify(filled)["sub"] == CLAIMS["sub"]


def test_leeway_does_not_apply_to_exp() -> None:
    ahead = with_claims(iat=SECONDS + 30, nbf=SECONDS + 30)
    assert verify(ahead, leeway_seconds=30)["iat"] == SECONDS + 30
    for forged in (with_claims(iat=SECONDS + 31), with_claims(nbf=SECONDS + 31), with_claims(exp=SECONDS)):
        with pytest.raises(CredentialInvalidException):
            verify(forged, leeway_seconds=30)


def test_token_expires_at_its_exp() -> None:
    assert verify(GOOD, at=NOW + timedelta(seconds=899)) == CLAIMS
    with pytest.raises(CredentialInvalidException):
        verify(GOOD, at=NOW + timedelta(seconds=900))


def test_missing_required_claim_is_rejected() -> None:
    with pytest.raises(CredentialInvalidException):
        verify(GOOD, required=REQUIRED | {"tenant"})
    with pytest.raises(CredentialInvalidException):
        verify(with_claims(tenant=None), required=REQUIRED | {"tenant"})


def test_second_valid_ecdsa_signature_gives_the_same_claims() -> None:
    """ECDSA has two valid signatures for each token, so tokens are revoked by id, never by text."""
    twin = with_signature(s_negated)
    assert twin != GOOD
    assert verify(twin) == CLAIMS


def test_mutated_token_is_rejected() -> None:
    rng = random.Random(20261121)
    alphabet = [chr(code) for code in range(128)] + ["\u0660", "\uff21", "\ud800"]
    mutants = set()
    for _ in range(4000):
        mutant = list(GOOD)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            place = rng.randrange(len(mutant))
            mutant[place : place + rng.choice((0, 1, 1, 1, 2))] = rng.choices(alphabet, k=rng.choice((0, 1, 1, 1)))
        mutants.add("".join(mutant))
    mutants.discard(GOOD)
    assert len(mutants) > 3000
    for altered in sorted(mutants):
        with pytest.raises(CredentialInvalidException):
            verify(altered)


def test_token_with_any_changed_byte_is_rejected() -> None:
    for part in range(3):
        parts = GOOD.split(".")
        content = base64.urlsafe_b64decode(parts[part] + "==")
        assert len(content) > 40
        for place in range(len(content)):
            altered = bytearray(content)
            altered[place] ^= 1 << place % 8
            parts[part] = b64(bytes(altered))
            with pytest.raises(CredentialInvalidException):
                verify(".".join(parts))


def test_signed_claims_are_accepted_or_rejected_without_another_error() -> None:
    """Signed claims of every type in every place cause no unexpected exception."""
    rng = random.Random(7)
    values: list[Any] = [
        None,
        True,
        0,
        -1,
        1e308,
        10**30,
        "",
        "a",
        "\ud800",
        [],
        [None],
        {},
        {"a": []},
        ISSUER,
        SECONDS + 5,
    ]
    outcomes = {"accepted": 0, "refused": 0}
    for _ in range(1500):
        token = token_of(
            {**HEADER, rng.choice(["alg", "typ", "kid", "cty", "x5t"]): rng.choice(values)}
            if rng.random() < 0.5
            else HEADER,
            {**CLAIMS, rng.choice([*CLAIMS, "nbf", "x"]): rng.choice(values)},
        )
        try:
            verify(token)
        except CredentialInvalidException:
            outcomes["refused"] += 1
        else:
            outcomes["accepted"] += 1
    assert min(outcomes.values()) > 50


def test_rejection_does_not_quote_the_token() -> None:
    with pytest.raises(CredentialInvalidException) as refusal:
        verify(token_of(b"secret header"))
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


def test_inspection_returns_the_unverified_content() -> None:
    token = inspect_token(with_header(typ="application/AT+jwt"))
    assert (token.kid, token.algorithm, token.type, token.issuer) == (KEY.kid, "ES256", "at+jwt", ISSUER)


def test_inspection_returns_none_for_missing_members() -> None:
    token = inspect_token(token_of({"alg": "none"}, {}))
    assert (token.kid, token.algorithm, token.type, token.issuer) == (None, "none", None, None)


ILL_FORMED = [
    *((kind, name) for kind, name in ROWS if kind in {"header", "JSON"}),
    *(("algorithm", name) for name in ("left out", "null", "a list", "a number")),
    *(("typ", name) for name in ("empty", "null", "a number", "a list")),
    *(("kid", name) for name in ("NUL", "a line end", "201 characters", "empty", "null", "a number", "a list")),
    *(("iss", name) for name in ("a list", "a number", "with NUL")),
    *(("form", name) for name in ("four parts", "padding", "last bits set", "8 KB and more", "wide digits")),
]


@pytest.mark.parametrize(("kind", "name"), ILL_FORMED)
def test_inspection_rejects_a_malformed_token(kind: str, name: str) -> None:
    with pytest.raises(CredentialInvalidException):
        inspect_token(FORGERIES[kind][name]())


def test_signed_token_has_the_header_of_an_access_token() -> None:
    header = json.loads(base64.urlsafe_b64decode(HEAD + "=="))
    assert header == {"alg": "ES256", "typ": "at+jwt", "kid": KEY.kid}


def test_signed_token_verifies_with_another_library() -> None:
    keys = KeySet.import_key_set({"keys": [dict(JWK)]})
    token = joserfc_jwt.decode(sign_token(CLAIMS, KEY), keys, algorithms=["ES256"])
    assert token.claims == CLAIMS


def test_key_id_matches_the_thumbprint_of_another_library() -> None:
    assert ECKey.import_key(dict(JWK)).thumbprint() == KEY.kid == JWK["kid"]


def test_public_jwk_has_its_use_and_no_private_members() -> None:
    assert set(JWK) == {"kty", "crv", "x", "y", "use", "alg", "kid"}
    assert (JWK["kty"], JWK["crv"], JWK["use"], JWK["alg"]) == ("EC", "P-256", "sig", "ES256")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_claims_that_are_not_json_are_not_signed(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        sign_token({**CLAIMS, "x": value}, KEY)
