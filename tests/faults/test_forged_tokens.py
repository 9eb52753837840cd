"""Forged access tokens over HTTP: each gets a 401, and the server continues."""

import hmac
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey
from pydantic import SecretStr

from pixyproxy.core.models.principal import Scope
from tests.support.forgeries import FORGERIES, ROWS, s_negated
from tests.support.identity import EVERY_SCOPE, bearer, make_user, sign_in
from tests.support.raw_http import exchange, request_bytes
from tests.support.server import RunningServer, TenantClient, make_settings, serving
from tests.support.tokens import (
    HEADER,
    ISSUER,
    JWK,
    KEY,
    PEM,
    PRIVATE,
    b64,
    es256,
    public_forms,
    raw,
    rs256,
    token_of,
)

UNSENDABLE = {400, 401, 431}
"""The HTTP server itself rejects values that no header can carry."""
Claims = dict[str, Any]
Forge = Callable[[Claims], str]
HOUR = 3600
LONGEST_HEADER = 60_000
"""Beyond this length the HTTP server closes the connection while the request is still being sent."""


@pytest.fixture(scope="module")
def forged_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server that signs with the same key as the forgeries."""
    settings = make_settings(tmp_path_factory.mktemp("forged"), public_url=ISSUER, signing_keys=SecretStr(PEM))
    with serving(settings) as server:
        yield server


@pytest.fixture(scope="module")
def victim(forged_server: RunningServer) -> Iterator[TenantClient]:
    """Yield the tenant that the forgeries impersonate."""
    victim = forged_server.new_tenant("victim", scopes=EVERY_SCOPE)
    with victim.http:
        yield victim


@pytest.fixture(scope="module")
def claims(victim: TenantClient) -> Claims:
    """Return currently valid claims for the server."""
    account = make_user(victim.http)
    issued = sign_in(victim.http, account)
    told: Claims = victim.http.post("/auth/introspect", data={"token": issued["access_token"]}).json()
    names = ("iss", "aud", "sub", "client_id", "iat", "exp", "jti", "scope", "tenant")
    return {name: told[name] for name in names} | {"sub_type": "user"}


def ask(server: RunningServer, token: str) -> httpx2.Response:
    """Return the response to a token, sent unchanged."""
    header = f"Bearer {token}".encode("utf-8", "surrogatepass").decode("latin-1")
    return exchange(server.url, request_bytes("GET", "/me", headers={"Authorization": header}))


def sendable(token: str) -> bool:
    """Return whether a header can carry the token."""
    return not set(token) & {"\x00", "\r", "\n"}


def live(change: Callable[[Claims], Claims]) -> Forge:
    """Return a forgery by claims, signed by the server's own key."""
    return lambda claims: token_of(HEADER, change(dict(claims)))


def header(**changes: object) -> Forge:
    """Return a forgery by header, with valid claims and signed by the server's own key."""
    return lambda claims: token_of({**HEADER, **changes}, claims)


def strangers_token(claims: Claims) -> str:
    return joserfc_jwt.encode(HEADER, claims, ECKey.generate_key("P-256", {"kid": KEY.kid}))


def own_key_token(claims: Claims) -> str:
    stranger = ECKey.generate_key("P-256", {"kid": KEY.kid})
    return joserfc_jwt.encode({**HEADER, "jwk": stranger.as_dict(private=False)}, claims, stranger)


def swapped_claims(claims: Claims) -> str:
    head, _, signature = token_of(HEADER, claims).split(".")
    return f"{head}.{b64(raw({**claims, 'scope': 'admin'}))}.{signature}"


def shared_secret(name: str, bits: int) -> Forge:
    """Return a token signed with a public key as the shared secret (CVE-2026-85394)."""
    secret = public_forms(PRIVATE.public_key(), JWK)[name]  # type: ignore[arg-type]  # it is one of P-256

    header = {**HEADER, "alg": f"HS{bits}"}
    return lambda claims: token_of(header, claims, sign=lambda text: hmac.digest(secret, text, f"sha{bits}"))


LIVE: dict[str, Forge] = {
    "no algorithm": lambda claims: token_of({**HEADER, "alg": "none"}, claims, sign=lambda _: b""),
    "no algorithm, original signature": header(alg="none"),
    "RS256": lambda claims: token_of({**HEADER, "alg": "RS256"}, claims, sign=rs256),
    "expired": live(lambda claims: {**claims, "exp": int(time.time()) - 1}),
    "expired long ago": live(lambda claims: {**claims, "iat": 1, "exp": 2}),
    "no expiry": live(lambda claims: {name: value for name, value in claims.items() if name != "exp"}),
    "null expiry": live(lambda claims: {**claims, "exp": None}),
    "infinite expiry": live(lambda claims: {**claims, "exp": float("inf")}),
    "not yet": live(lambda claims: {**claims, "nbf": int(time.time()) + HOUR}),
    "issued in the future": live(lambda claims: {**claims, "iat": int(time.time()) + HOUR}),
    "another audience": live(lambda claims: {**claims, "aud": "https://other.example.com"}),
    "another issuer": live(lambda claims: {**claims, "iss": "https://evil.example.com"}),
    "another type": header(typ="JWT"),
    "no type": header(typ=None),
    "critical": header(crit=["exp"]),
    "jku": header(jku="https://evil.example.com/jwks.json"),
    "x5u": header(x5u="https://evil.example.com/cert.pem"),
    "jwk": own_key_token,
    "kid with a path": header(kid="../../../../dev/null"),
    "kid with SQL": header(kid="' OR '1'='1"),
    "no kid": header(kid=None),
    "another tenant": live(lambda claims: {**claims, "tenant": "00000000-0000-4000-8000-000000000000"}),
    "a tenant by SQL": live(lambda claims: {**claims, "tenant": "' OR 1=1 --"}),
    "a tenant that is a list": live(lambda claims: {**claims, "tenant": [claims["tenant"]]}),
    "a tenant of NUL": live(lambda claims: {**claims, "tenant": "\x00"}),
    "another subject": live(lambda claims: {**claims, "sub": "00000000-0000-4000-8000-000000000000"}),
    "a subject of another kind": live(lambda claims: {**claims, "sub_type": "key"}),
    "a subject of no kind": live(lambda claims: {**claims, "sub_type": "god"}),
    "an unknown scope": live(lambda claims: {**claims, "scope": "image:read everything"}),
    "scopes as a list": live(lambda claims: {**claims, "scope": list(Scope)}),
    "a sign-in that is a number": live(lambda claims: {**claims, "sid": 7}),
    "deep": lambda claims: token_of(HEADER, raw(claims)[:-1] + b',"x":' + b"[" * 1000 + b"]" * 1000 + b"}"),
    "deep header": lambda claims: token_of(raw(HEADER)[:-1] + b',"x":' + b"[" * 1000, claims),
    "by a stranger": strangers_token,
    "claims swapped": swapped_claims,
    "junk behind": lambda claims: token_of(HEADER, claims) + "!!!!",
    "four parts": lambda claims: token_of(HEADER, claims) + ".AAAA",
    "an altered signature": lambda claims: token_of(HEADER, claims, sign=lambda text: es256(text)[::-1]),
} | {
    f"HS{bits} with {name}": shared_secret(name, bits)
    for bits in (256, 384, 512)
    for name in ("PEM", "DER", "JWK", "nothing")
}


def test_the_forgers_key_is_the_servers_own(forged_server: RunningServer, claims: Claims) -> None:
    answer = ask(forged_server, token_of(HEADER, claims))
    assert answer.status_code == 200, answer.text
    assert answer.json()["subject"] == claims["sub"]


@pytest.mark.parametrize("name", LIVE)
def test_a_forgery_with_a_single_fault_is_rejected(name: str, forged_server: RunningServer, claims: Claims) -> None:
    answer = ask(forged_server, LIVE[name](claims))
    assert (answer.status_code, answer.json()["code"]) == (401, "credential_invalid")
    assert answer.headers["www-authenticate"] == 'Bearer realm="pixyproxy", error="invalid_token"'


@pytest.mark.parametrize("kind", FORGERIES)
def test_every_other_forgery_is_rejected(kind: str, forged_server: RunningServer) -> None:
    tokens = {name: forge() for name, forge in FORGERIES[kind].items()}
    answers = {name: ask(forged_server, token) for name, token in tokens.items() if len(token) <= LONGEST_HEADER}
    refused = {name: answer for name, answer in answers.items() if sendable(tokens[name])}
    assert {(answer.status_code, answer.json()["code"]) for answer in refused.values()} == {(401, "credential_invalid")}
    unsendable = {answer.status_code for name, answer in answers.items() if name not in refused}
    assert unsendable <= UNSENDABLE
    assert exchange(forged_server.url, request_bytes("GET", "/readyz")).status_code == 200


def test_there_are_hundreds_of_forgeries() -> None:
    assert len(ROWS) > 250
    assert len(LIVE) == 50


def test_a_claim_cannot_raise_scopes(forged_server: RunningServer, claims: Claims) -> None:
    """Even a forger who can sign gets no more than the user's scopes."""
    with forged_server.client() as http:
        token = token_of(HEADER, {**claims, "scope": " ".join(Scope)})
        assert http.get("/me", headers=bearer(token)).json()["scopes"] == [
            "image:generate",
            "image:manage",
            "image:read",
        ]
        assert http.get("/admin/tenant", headers=bearer(token)).status_code == 403


def test_the_other_signature_of_a_revoked_token_is_rejected_too(forged_server: RunningServer, claims: Claims) -> None:
    mine = {**claims, "jti": "4f0c7d0e-6f0f-4d0c-9a53-0d4a9a2f9d11"}
    token = token_of(HEADER, mine)
    twin = token_of(HEADER, mine, sign=lambda text: s_negated(es256(text)))
    with forged_server.client() as http:
        assert [http.get("/me", headers=bearer(each)).status_code for each in (token, twin)] == [200, 200]
        http.post("/auth/revoke", data={"token": token})
        assert [http.get("/me", headers=bearer(each)).status_code for each in (token, twin)] == [401, 401]
