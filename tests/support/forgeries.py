"""Tokens that must be rejected, named by their fault.

Each is valid in every other respect, its signature included where possible, so that it proves one check.
"""

import json
from collections.abc import Mapping
from functools import partial

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey

from pixyproxy.service.private.identity.oauth.jwt import sign_token
from tests.support.tokens import (
    AUDIENCE,
    CLAIMS,
    HEADER,
    ISSUER,
    JWK,
    KEY,
    PRIVATE,
    SECONDS,
    Forgery,
    b64,
    es256,
    es256_der,
    hmac_token,
    ps256,
    public_forms,
    raw,
    rs256,
    token_of,
    with_claims,
    with_exp,
    with_header,
    with_signature,
)

ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def hmac_forgeries() -> dict[str, Forgery]:
    assert isinstance(PRIVATE, ec.EllipticCurvePrivateKey)
    forms = public_forms(PRIVATE.public_key(), JWK)
    return {
        f"HS{bits} with {name}": partial(hmac_token, secret, bits)
        for bits in (256, 384, 512)
        for name, secret in forms.items()
    }


NONE = {
    f"{alg} with {name}": partial(token_of, {**HEADER, "alg": alg}, sign=sign)
    for alg in ("none", "None", "NONE", "nOnE", "", " none")
    for name, sign in {"no signature": lambda _: b"", "a byte": lambda _: b"0", "ours": es256}.items()
}
ALGORITHM = {
    "left out": lambda: with_header(alg=...),
    "null": lambda: with_header(alg=None),
    "a list": lambda: with_header(alg=["ES256"]),
    "lower case": lambda: with_header(alg="es256"),
    "with a space": lambda: with_header(alg="ES256 "),
    "a number": lambda: with_header(alg=256),
    "ES384 over the original signature": lambda: with_header(alg="ES384"),
    "RS256 over the original signature": lambda: with_header(alg="RS256"),
    "RS256 by an RSA key": lambda: token_of({**HEADER, "alg": "RS256"}, sign=rs256),
    "PS256 by an RSA key": lambda: token_of({**HEADER, "alg": "PS256"}, sign=ps256),
    "ES256 over an RSA signature": lambda: token_of(HEADER, sign=rs256),
    "EdDSA": lambda: with_header(alg="EdDSA"),
}
EXPIRY = {
    "past": lambda: with_claims(exp=SECONDS - 1),
    "this very second": lambda: with_claims(exp=SECONDS),
    "past as a float": lambda: with_claims(exp=SECONDS - 0.5),
    "left out": lambda: with_claims(exp=...),
    "null": lambda: with_claims(exp=None),
    "true": lambda: with_claims(exp=True),
    "text": lambda: with_claims(exp=str(SECONDS + 900)),
    "a date": lambda: with_claims(exp="2099-01-01T00:00:00Z"),
    "a list": lambda: with_claims(exp=[SECONDS + 900]),
    "an object": lambda: with_claims(exp={"exp": SECONDS + 900}),
    "Infinity": lambda: with_exp("Infinity"),
    "-Infinity": lambda: with_exp("-Infinity"),
    "NaN": lambda: with_exp("NaN"),
    "1e400": lambda: with_exp("1e400"),
    "1e300": lambda: with_exp("1e300"),
    "5,000 digits": lambda: with_exp("9" * 5000),
    "beyond the year 9999": lambda: with_claims(exp=253_402_300_800),
    "negative": lambda: with_claims(exp=-1),
}
TIMES = {
    "nbf in the future": lambda: with_claims(nbf=SECONDS + 1),
    "nbf text": lambda: with_claims(nbf=str(SECONDS)),
    "nbf null": lambda: with_claims(nbf=None),
    "nbf false": lambda: with_claims(nbf=False),
    "nbf negative": lambda: with_claims(nbf=-1),
    "iat in the future": lambda: with_claims(iat=SECONDS + 1),
    "iat left out": lambda: with_claims(iat=...),
    "iat null": lambda: with_claims(iat=None),
    "iat text": lambda: with_claims(iat=str(SECONDS)),
    "iat a list": lambda: with_claims(iat=[]),
}
AUDIENCES = {
    "left out": lambda: with_claims(aud=...),
    "null": lambda: with_claims(aud=None),
    "another": lambda: with_claims(aud="https://other.example.com"),
    "longer": lambda: with_claims(aud=AUDIENCE + "/"),
    "shorter": lambda: with_claims(aud=AUDIENCE[:-1]),
    "other case": lambda: with_claims(aud=AUDIENCE.upper()),
    "empty list": lambda: with_claims(aud=[]),
    "list of another": lambda: with_claims(aud=["https://other.example.com"]),
    "list with a number": lambda: with_claims(aud=[AUDIENCE, 1]),
    "list in a list": lambda: with_claims(aud=[[AUDIENCE]]),
    "an object": lambda: with_claims(aud={AUDIENCE: True}),
    "true": lambda: with_claims(aud=True),
}
ISSUERS = {
    "left out": lambda: with_claims(iss=...),
    "null": lambda: with_claims(iss=None),
    "another": lambda: with_claims(iss="https://evil.example.com"),
    "with a slash": lambda: with_claims(iss=ISSUER + "/"),
    "other case": lambda: with_claims(iss=ISSUER.upper()),
    "a list": lambda: with_claims(iss=[ISSUER]),
    "a number": lambda: with_claims(iss=1),
    "with NUL": lambda: with_claims(iss=ISSUER + "\x00"),
}
NAMES = {
    f"{claim} {name}": partial(with_claims, **{claim: value})
    for claim in ("sub", "jti", "client_id")
    for name, value in {
        "left out": ...,
        "null": None,
        "empty": "",
        "a number": 7,
        "true": True,
        "a list": ["a"],
        "an object": {"a": "b"},
        "with NUL": "a\x00",
        "with a line end": "a\nb",
        "with a lone surrogate": "a\ud800",
        "256 characters": "a" * 256,
    }.items()
}
TYPES = {
    name: partial(with_header, typ=value)
    for name, value in {
        "left out": ...,
        "JWT": "JWT",
        "jwt": "jwt",
        "application/jwt": "application/jwt",
        "empty": "",
        "null": None,
        "a number": 1,
        "a list": ["at+jwt"],
        "with a space": "at+jwt ",
        "twice prefixed": "application/application/at+jwt",
        "longer": "at+jwts",
        "another prefix": "text/at+jwt",
    }.items()
}
HEADERS: dict[str, Forgery] = {
    f"{name}={value!r}": partial(with_header, **{name: value})
    for name, values in {
        "crit": (["exp"], ["b64"], [], None, "exp"),
        "b64": (False, True),
        "jku": ("https://evil.example.com/jwks.json", None),
        "x5u": ("https://evil.example.com/cert.pem", None),
        "x5c": (["MIIB"], []),
        "jwk": (JWK, {}, None),
    }.items()
    for value in values
}
KIDS = {
    name: partial(with_header, kid=value)
    for name, value in {
        "path traversal": "../../../../../../dev/null",
        "a path": "/proc/self/environ",
        "SQL": "x' UNION SELECT 'secret",
        "a command": "key|/bin/true",
        "a URL": "https://evil.example.com/key",
        "NUL": KEY.kid + "\x00",
        "a line end": KEY.kid + "\n",
        "a lone surrogate": KEY.kid + "\ud800",
        "right to left": "\u202e" + KEY.kid,
        "another key's": KEY.kid[::-1],
        "201 characters": "k" * 201,
        "5,000 characters": "k" * 5000,
        "empty": "",
        "null": None,
        "a number": 1,
        "a list": [KEY.kid],
        "an object": {"kid": KEY.kid},
    }.items()
}


def own_key_token() -> str:
    """Return a token signed by a key that the token itself carries."""
    stranger = ECKey.generate_key("P-256", {"kid": KEY.kid})
    header = {**HEADER, "jwk": stranger.as_dict(private=False)}
    return joserfc_jwt.encode(header, CLAIMS, stranger)


def strangers_token() -> str:
    return joserfc_jwt.encode(HEADER, CLAIMS, ECKey.generate_key("P-256", {"kid": KEY.kid}))


HEADERS["jwk of the forger, who signs"] = own_key_token

NESTED = b"[" * 1000
GOOD = sign_token(CLAIMS, KEY)
HEAD, BODY, SIGNATURE = GOOD.split(".")
JSON_FORM = {
    "1,000 times [ as the header": lambda: token_of(NESTED),
    "1,000 times [ in the header": lambda: token_of(b'{"alg":"ES256","typ":"at+jwt","x":' + NESTED),
    "1,000 times [] in the header": lambda: token_of(
        b'{"alg":"ES256","typ":"at+jwt","x":' + NESTED + b"]" * 1000 + b"}"
    ),
    "1,000 times [ as the claims": lambda: token_of(HEADER, NESTED),
    "1,000 times [ in the claims": lambda: token_of(HEADER, raw(CLAIMS)[:-1] + b',"x":' + NESTED),
    "1,000 times [] in the claims": lambda: token_of(HEADER, raw(CLAIMS)[:-1] + b',"x":' + NESTED + b"]" * 1000 + b"}"),
    "1,000 objects in the claims": lambda: token_of(
        HEADER, raw(CLAIMS)[:-1] + b',"x":' + b'{"a":' * 1000 + b"1" + b"}" * 1001
    ),
    "9 deep": lambda: token_of(HEADER, raw(CLAIMS)[:-1] + b',"x":' + b"[" * 8 + b"]" * 8 + b"}"),
    "alg twice": lambda: token_of(b'{"alg":"none",' + raw(HEADER)[1:]),
    "alg twice, once escaped": lambda: token_of(b'{"\\u0061lg":"none",' + raw(HEADER)[1:]),
    "kid twice": lambda: token_of(raw(HEADER)[:-1] + b',"kid":"a"}'),
    "sub twice": lambda: token_of(HEADER, raw(CLAIMS)[:-1] + b',"sub":"admin"}'),
    "exp twice": lambda: token_of(HEADER, b'{"exp":1,' + raw(CLAIMS)[1:]),
    "twice inside": lambda: token_of(HEADER, raw(CLAIMS)[:-1] + b',"x":{"a":1,"a":2}}'),
    "header a list": lambda: token_of(b'["alg","ES256"]'),
    "header a text": lambda: token_of(b'"ES256"'),
    "header a number": lambda: token_of(b"1"),
    "header null": lambda: token_of(b"null"),
    "header no JSON": lambda: token_of(b"alg=ES256"),
    "header with a BOM": lambda: token_of(b"\xef\xbb\xbf" + raw(HEADER)),
    "header in UTF-16": lambda: token_of(json.dumps(HEADER).encode("utf-16")),
    "header no UTF-8": lambda: token_of(raw(HEADER)[:-1] + b',"x":"\xff"}'),
    "header and more": lambda: token_of(raw(HEADER) + b"{}"),
    "claims a list": lambda: token_of(HEADER, json.dumps([CLAIMS]).encode()),
    "claims a text": lambda: token_of(HEADER, json.dumps(json.dumps(CLAIMS)).encode()),
    "claims null": lambda: token_of(HEADER, b"null"),
    "claims no JSON": lambda: token_of(HEADER, b"admin"),
    "claims and more": lambda: token_of(HEADER, raw(CLAIMS) + b"{}"),
    "claims with a comment": lambda: token_of(HEADER, b"/**/" + raw(CLAIMS)),
    "claims with NaN": lambda: token_of(HEADER, raw(CLAIMS)[:-1] + b',"x":NaN}'),
    "claims with 1e400": lambda: token_of(HEADER, raw(CLAIMS)[:-1] + b',"x":1e400}'),
    "claims no UTF-8": lambda: token_of(HEADER, raw(CLAIMS)[:-1] + b',"x":"\xed\xa0\x80"}'),
}


def last_bits_set() -> str:
    """Return the same signature in a non-canonical encoding: 64 bytes leave four bits of the last character unused."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return GOOD[:-1] + alphabet[alphabet.index(GOOD[-1]) + 1]


FORM = {
    "empty": lambda: "",
    "one part": lambda: HEAD,
    "two parts": lambda: f"{HEAD}.{BODY}",
    "three empty parts": lambda: "..",
    "no signature": lambda: f"{HEAD}.{BODY}.",
    "no header": lambda: f".{BODY}.{SIGNATURE}",
    "no claims": lambda: f"{HEAD}..{SIGNATURE}",
    "four parts": lambda: f"{GOOD}.{SIGNATURE}",
    "four parts, the last empty": lambda: f"{GOOD}.",
    "five parts, as in an encrypted token": lambda: f"{GOOD}.{BODY}.{SIGNATURE}",
    "padding": lambda: f"{GOOD}==",
    "one padding character": lambda: f"{GOOD}=",
    "padding of the header": lambda: f"{HEAD}=.{BODY}.{SIGNATURE}",
    "a space before": lambda: f" {GOOD}",
    "a space after": lambda: f"{GOOD} ",
    "a space inside": lambda: f"{HEAD} .{BODY}.{SIGNATURE}",
    "a line end after": lambda: f"{GOOD}\n",
    "a line end inside": lambda: f"{HEAD}.{BODY}.{SIGNATURE[:40]}\n{SIGNATURE[40:]}",
    "NUL after": lambda: f"{GOOD}\x00",
    "last bits set": last_bits_set,
    "junk after the signature": lambda: f"{GOOD}!!!!",
    "more base64 after the signature": lambda: f"{GOOD}AAAA",
    "junk in the claims": lambda: f"{HEAD}.{BODY[:8]}*{BODY[8:]}.{SIGNATURE}",
    "wide digits": lambda: GOOD.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)}) + "\uff10",
    "a wide full stop": lambda: GOOD.replace(".", "\uff0e"),
    "a lone surrogate": lambda: f"{GOOD}\ud800",
    "the other base64": lambda: f"{HEAD}.{BODY}.{SIGNATURE[:-2]}+/",
    "Bearer": lambda: f"Bearer {GOOD}",
    "quoted": lambda: f'"{GOOD}"',
    "JSON serialization": lambda: json.dumps({"protected": HEAD, "payload": BODY, "signature": SIGNATURE}),
    "8 KB and more": lambda: with_claims(x="x" * 6000),
    "1 MB": lambda: with_claims(x="x" * 1_000_000),
}


def s_negated(signature: bytes) -> bytes:
    """Return the second valid form of a signature, which anyone can compute from the first."""
    s = ORDER_OF_P256 - int.from_bytes(signature[32:], "big")
    return signature[:32] + s.to_bytes(32, "big")


ZERO, ORDER = bytes(32), ORDER_OF_P256.to_bytes(32, "big")
SIGNATURES = {
    "altered first byte": lambda: with_signature(lambda s: bytes([s[0] ^ 1]) + s[1:]),
    "altered last byte": lambda: with_signature(lambda s: s[:-1] + bytes([s[-1] ^ 1])),
    "r zero": lambda: with_signature(lambda s: ZERO + s[32:]),
    "s zero": lambda: with_signature(lambda s: s[:32] + ZERO),
    "both zero": lambda: with_signature(lambda _: ZERO + ZERO),
    "r the order": lambda: with_signature(lambda s: ORDER + s[32:]),
    "both the order": lambda: with_signature(lambda _: ORDER + ORDER),
    "r one, s one": lambda: with_signature(lambda _: (bytes(31) + b"\x01") * 2),
    "all ones": lambda: with_signature(lambda _: b"\xff" * 64),
    "swapped": lambda: with_signature(lambda s: s[32:] + s[:32]),
    "truncated": lambda: with_signature(lambda s: s[:-1]),
    "half": lambda: with_signature(lambda s: s[:32]),
    "longer": lambda: with_signature(lambda s: s + b"\x00"),
    "with leading zeros": lambda: with_signature(lambda s: b"\x00" + s[:32] + b"\x00" + s[32:]),
    "twice": lambda: with_signature(lambda s: s + s),
    "DER": lambda: token_of(HEADER, sign=es256_der),
    "of other claims": lambda: f"{HEAD}.{b64(raw({**CLAIMS, 'scope': 'admin'}))}.{SIGNATURE}",
    "of another header": lambda: f"{b64(raw({**HEADER, 'x': 1}))}.{BODY}.{SIGNATURE}",
    "by another key": strangers_token,
}

FORGERIES: dict[str, Mapping[str, Forgery]] = {
    "none": NONE,
    "hmac": hmac_forgeries(),
    "algorithm": ALGORITHM,
    "exp": EXPIRY,
    "nbf and iat": TIMES,
    "aud": AUDIENCES,
    "iss": ISSUERS,
    "names": NAMES,
    "typ": TYPES,
    "header": HEADERS,
    "kid": KIDS,
    "JSON": JSON_FORM,
    "form": FORM,
    "signature": SIGNATURES,
}
ROWS = [(kind, name) for kind, forgeries in FORGERIES.items() for name in forgeries]
"""Names, not tokens: every test process must have the same test names, and keys differ between processes."""
