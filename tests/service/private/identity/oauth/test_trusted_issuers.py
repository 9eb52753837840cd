"""Tokens of trusted issuers, tested with a real issuer that may fail, hang, lie and rotate its keys."""

import asyncio
import base64
import gzip
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from pixyproxy.core.exceptions import (
    ConfigurationException,
    CredentialInvalidException,
    IssuerUnavailableException,
)
from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.trusted_issuer import TrustedIssuer
from pixyproxy.service.private.identity.oauth.trusted_issuers import (
    FIRST_PAUSE_SECONDS,
    FRESH_SECONDS,
    LONGEST_SECONDS,
    MAX_BYTES,
    PAUSE_SECONDS,
    ForeignClaims,
    TrustedIssuers,
    open_trusted_issuers,
)
from tests.support.oidc import (
    AUDIENCE,
    DISCOVERY_PATH,
    JWKS_PATH,
    Answer,
    FakeIssuer,
    new_key,
    public_jwk_of,
    rsa_key,
)

pytestmark = pytest.mark.anyio


@dataclass
class Clock:
    """A monotonic clock that a test moves."""

    seconds: float = 10_000.0

    def __call__(self) -> float:
        """Return the seconds, like `time.monotonic`."""
        return self.seconds


@dataclass(frozen=True)
class Relying:
    """A server that trusts one issuer."""

    issuers: TrustedIssuers
    trusted: TrustedIssuer
    clock: Clock

    async def verify(self, token: str) -> ForeignClaims:
        """Return the claims of the token, verified now."""
        return await self.issuers.verify(token, self.trusted, at=datetime.now(UTC))

    async def refuses(self, token: str) -> None:
        """Assert that the token is rejected."""
        with pytest.raises(CredentialInvalidException):
            await self.verify(token)

    async def assert_unavailable(self, token: str) -> None:
        """Assert that no key is available."""
        with pytest.raises(IssuerUnavailableException):
            await self.verify(token)


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer() as serving:
        yield serving


@pytest.fixture
async def relying(issuer: FakeIssuer) -> AsyncIterator[Relying]:
    async with relying_on(trust(issuer)) as server:
        yield server


def trust(issuer: FakeIssuer, **changes: Any) -> TrustedIssuer:  # noqa: ANN401  (any field)
    return TrustedIssuer.model_validate({"issuer": issuer.url, "audience": AUDIENCE, "tenant": "studio", **changes})


@asynccontextmanager
async def relying_on(trusted: TrustedIssuer, *, fetch_seconds: float = 20) -> AsyncIterator[Relying]:
    clock = Clock()
    issuers = replace(open_trusted_issuers([trusted]), monotonic=clock, fetch_seconds=fetch_seconds)
    try:
        yield Relying(issuers, trusted, clock)
    finally:
        await issuers.close()


async def test_token_gives_subject_tenant_and_scopes(issuer: FakeIssuer, relying: Relying) -> None:
    claims = issuer.claims(scope="image:read image:generate", jti="token-1")
    assert await relying.verify(issuer.sign(**claims)) == ForeignClaims(
        issuer=issuer.url,
        subject="user-7",
        tenant="studio",
        scopes=frozenset({Scope.IMAGE_READ, Scope.IMAGE_GENERATE}),
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        token_id="token-1",
    )


async def test_token_without_id_and_scopes_is_accepted(issuer: FakeIssuer, relying: Relying) -> None:
    claims = await relying.verify(issuer.sign())
    assert (claims.token_id, claims.scopes) == (None, frozenset())


def test_issuer_is_found_by_its_exact_name() -> None:
    trusted = TrustedIssuer(issuer="https://login.example.com/a", audience="b", tenant="c")
    issuers = open_trusted_issuers([trusted])
    assert issuers.find("https://login.example.com/a") is trusted
    for other in ("", "https://login.example.com/a/", "https://login.example.com/A", "https://login.example.com"):
        assert issuers.find(other) is None


async def test_no_client_is_opened_without_issuers() -> None:
    issuers = open_trusted_issuers([])
    assert issuers.client is None
    await issuers.close()


def test_duplicate_issuer_is_rejected() -> None:
    trusted = TrustedIssuer(issuer="https://login.example.com", audience="b", tenant="c")
    with pytest.raises(ConfigurationException, match="twice"):
        open_trusted_issuers([trusted, trusted])


async def test_proxy_of_the_environment_is_not_used(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy could respond with keys of its own and so decide which tokens are valid."""
    with FakeIssuer() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with relying_on(trust(issuer, jwks_url=f"{issuer.url}{JWKS_PATH}")) as relying:
            await relying.refuses(issuer.sign(key=proxy.keys[0]))
            assert (await relying.verify(issuer.sign())).subject == "user-7"
        assert proxy.requests(f"{issuer.url}{JWKS_PATH}") == 0


async def test_rsa_key_verifies(issuer: FakeIssuer, relying: Relying) -> None:
    keys = issuer.keys = [rsa_key("rsa"), new_key("ec")]
    for key in keys:
        assert (await relying.verify(issuer.sign(key=key))).subject == "user-7"


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "application/at+jwt", ...])
async def test_common_token_types_are_accepted(issuer: FakeIssuer, relying: Relying, typ: object) -> None:
    assert (await relying.verify(issuer.sign(header={"typ": typ}))).tenant == "studio"


FORGED: dict[str, Callable[[FakeIssuer], str]] = {
    "another issuer": lambda issuer: issuer.sign(iss="https://evil.example.com"),
    "the issuer with a slash": lambda issuer: issuer.sign(iss=issuer.url + "/"),
    "another audience": lambda issuer: issuer.sign(aud="https://other.example.com"),
    "no audience": lambda issuer: issuer.sign(aud=...),
    "no subject": lambda issuer: issuer.sign(sub=...),
    "no expiry": lambda issuer: issuer.sign(exp=...),
    "no time of issue": lambda issuer: issuer.sign(iat=...),
    "expired": lambda issuer: issuer.sign(exp=issuer.claims()["iat"] - 1),
    "of tomorrow": lambda issuer: issuer.sign(iat=issuer.claims()["iat"] + 86_400),
    "an ID token by its type": lambda issuer: issuer.sign(header={"typ": "id+jwt"}),
    "a logout token": lambda issuer: issuer.sign(header={"typ": "logout+jwt"}),
    "another key of the same id": lambda issuer: issuer.sign(key=new_key("first")),
    "an unknown key": lambda issuer: issuer.sign(key=new_key("unknown")),
    "an algorithm that is not allowed": lambda issuer: issuer.sign(key=rsa_key("rsa"), header={"alg": "RS512"}),
    "a list of numbers as scopes": lambda issuer: issuer.sign(scope=[1]),
    "an object as scopes": lambda issuer: issuer.sign(scope={"image:read": True}),
    "true as scopes": lambda issuer: issuer.sign(scope=True),
    "junk": lambda _: "a.b.c",
    "altered": lambda issuer: issuer.sign()[:-4] + "AAAA",
}


@pytest.mark.parametrize("name", FORGED)
async def test_forged_token_is_rejected(issuer: FakeIssuer, relying: Relying, name: str) -> None:
    issuer.keys.append(rsa_key("rsa"))
    await relying.refuses(FORGED[name](issuer))
    assert (await relying.verify(issuer.sign())).subject == "user-7"


async def test_issuer_clock_may_be_seconds_ahead(issuer: FakeIssuer, relying: Relying) -> None:
    ahead = issuer.claims()["iat"] + 20
    assert (await relying.verify(issuer.sign(iat=ahead, nbf=ahead))).subject == "user-7"


async def test_token_without_key_id_requires_a_single_key(issuer: FakeIssuer, relying: Relying) -> None:
    nameless = issuer.sign(header={"kid": ...})
    assert (await relying.verify(nameless)).subject == "user-7"
    issuer.keys.append(rsa_key("rsa"))
    relying.clock.seconds += FRESH_SECONDS
    assert (await relying.verify(nameless)).subject == "user-7"
    issuer.keys.append(new_key("second"))
    relying.clock.seconds += FRESH_SECONDS
    await relying.refuses(nameless)


async def test_tenant_is_read_from_the_configured_claim(issuer: FakeIssuer) -> None:
    async with relying_on(trust(issuer, tenant=None, tenant_claim="org")) as relying:
        assert (await relying.verify(issuer.sign(org="acme"))).tenant == "acme"
        for value in (..., None, "", 7, True, ["acme"], {"name": "acme"}):
            await relying.refuses(issuer.sign(org=value))


@pytest.mark.parametrize(
    ("settings", "value", "scopes"),
    [
        ({}, "image:read image:generate", {Scope.IMAGE_READ, Scope.IMAGE_GENERATE}),
        ({}, ["image:read", "usage:read"], {Scope.IMAGE_READ, Scope.USAGE_READ}),
        ({}, "  image:read  openid ", {Scope.IMAGE_READ}),
        ({}, "", set()),
        ({}, [], set()),
        ({}, None, set()),
        ({}, "openid profile", set()),
        ({}, "admin user:manage key:manage image:read", {Scope.IMAGE_READ}),
        ({"allowed_scopes": ["image:read"]}, "image:read image:manage", {Scope.IMAGE_READ}),
        ({"allowed_scopes": ["admin"]}, "admin", {Scope.ADMIN}),
        ({"scope_map": {"draw": ["image:read", "image:generate"]}}, "draw", {Scope.IMAGE_READ, Scope.IMAGE_GENERATE}),
        ({"scope_map": {"draw": ["image:generate"]}}, "image:read draw", {Scope.IMAGE_GENERATE}),
        ({"scope_map": {"boss": ["admin", "image:read"]}}, "boss", {Scope.IMAGE_READ}),
    ],
)
async def test_scopes_are_limited_to_those_of_the_issuer(
    issuer: FakeIssuer, settings: dict[str, Any], value: object, scopes: set[Scope]
) -> None:
    async with relying_on(trust(issuer, **settings)) as relying:
        assert (await relying.verify(issuer.sign(scope=value))).scopes == scopes


async def test_scopes_are_read_from_the_configured_claim(issuer: FakeIssuer) -> None:
    async with relying_on(trust(issuer, scope_claim="scp")) as relying:
        claims = await relying.verify(issuer.sign(scp="image:read", scope="image:manage"))
        assert claims.scopes == {Scope.IMAGE_READ}


async def test_keys_are_fetched_without_discovery_if_configured(issuer: FakeIssuer) -> None:
    async with relying_on(trust(issuer, jwks_url=issuer.url + JWKS_PATH)) as relying:
        assert (await relying.verify(issuer.sign())).subject == "user-7"
    assert (issuer.requests(DISCOVERY_PATH), issuer.requests()) == (0, 1)


async def test_keys_are_fetched_once_for_many_tokens(issuer: FakeIssuer, relying: Relying) -> None:
    for _ in range(5):
        await relying.verify(issuer.sign())
    assert (issuer.requests(DISCOVERY_PATH), issuer.requests()) == (1, 1)


async def test_concurrent_tokens_share_one_fetch(issuer: FakeIssuer, relying: Relying) -> None:
    token = issuer.sign()
    claims = await asyncio.gather(*(relying.verify(token) for _ in range(50)))
    assert {each.subject for each in claims} == {"user-7"}
    assert issuer.requests() == 1


async def test_client_hang_up_does_not_cancel_the_fetch(issuer: FakeIssuer, relying: Relying) -> None:
    issuer.answer(DISCOVERY_PATH, Answer(hangs=True, body=discovery(issuer)))
    first = asyncio.ensure_future(relying.verify(issuer.sign()))
    await asyncio.to_thread(issuer.wait_for_request, DISCOVERY_PATH)
    second = asyncio.ensure_future(relying.verify(issuer.sign()))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    issuer.recover()
    assert (await second).subject == "user-7"
    assert issuer.requests(DISCOVERY_PATH) == 1


async def test_close_cancels_a_running_fetch(issuer: FakeIssuer, relying: Relying) -> None:
    issuer.answer(DISCOVERY_PATH, Answer(hangs=True))
    waiting = asyncio.ensure_future(relying.verify(issuer.sign()))
    await asyncio.to_thread(issuer.wait_for_request, DISCOVERY_PATH)
    await relying.issuers.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_new_key_is_fetched_when_a_token_names_it(issuer: FakeIssuer, relying: Relying) -> None:
    await relying.verify(issuer.sign())
    issuer.rotate("second")
    relying.clock.seconds += PAUSE_SECONDS
    assert (await relying.verify(issuer.sign())).subject == "user-7"
    assert issuer.requests() == 2


async def test_made_up_key_ids_cause_one_fetch_a_minute(issuer: FakeIssuer, relying: Relying) -> None:
    await relying.verify(issuer.sign())
    for number in range(20):
        await relying.refuses(issuer.sign(key=new_key(f"made up {number}")))
    assert issuer.requests() == 1
    relying.clock.seconds += PAUSE_SECONDS
    for number in range(20):
        await relying.refuses(issuer.sign(key=new_key(f"made up {number}")))
    assert issuer.requests() == 2


async def test_withdrawn_key_is_rejected_within_an_hour(issuer: FakeIssuer, relying: Relying) -> None:
    token = issuer.sign()
    await relying.verify(token)
    issuer.rotate("second")
    relying.clock.seconds += FRESH_SECONDS - 1
    assert (await relying.verify(token)).subject == "user-7"
    relying.clock.seconds += 1
    await relying.refuses(token)


async def test_stale_keys_are_used_while_the_issuer_fails(issuer: FakeIssuer, relying: Relying) -> None:
    token = issuer.sign()
    await relying.verify(token)
    issuer.fail()
    relying.clock.seconds += FRESH_SECONDS
    for _ in range(5):
        assert (await relying.verify(token)).subject == "user-7"
    assert issuer.requests(DISCOVERY_PATH) == 2
    relying.clock.seconds += PAUSE_SECONDS
    await relying.verify(token)
    assert issuer.requests(DISCOVERY_PATH) == 3


async def test_empty_key_set_does_not_replace_the_current_one(issuer: FakeIssuer, relying: Relying) -> None:
    await relying.verify(issuer.sign())
    issuer.serve_keys({"keys": []})
    relying.clock.seconds += FRESH_SECONDS
    assert (await relying.verify(issuer.sign())).subject == "user-7"


async def test_first_keys_are_retried_every_five_seconds(issuer: FakeIssuer, relying: Relying) -> None:
    issuer.fail(503)
    for _ in range(5):
        await relying.assert_unavailable(issuer.sign())
    assert issuer.requests(DISCOVERY_PATH) == 1
    issuer.recover()
    relying.clock.seconds += FIRST_PAUSE_SECONDS
    assert (await relying.verify(issuer.sign())).subject == "user-7"


async def test_keys_are_used_for_a_day_without_their_issuer(issuer: FakeIssuer, relying: Relying) -> None:
    token = issuer.sign()
    await relying.verify(token)
    issuer.fail()
    relying.clock.seconds += LONGEST_SECONDS - 1
    assert (await relying.verify(token)).subject == "user-7"
    relying.clock.seconds += 1
    await relying.assert_unavailable(token)
    issuer.recover()
    relying.clock.seconds += PAUSE_SECONDS
    assert (await relying.verify(token)).subject == "user-7"


def discovery(serving: FakeIssuer, /, **changes: object) -> bytes:
    return json.dumps({"issuer": serving.url, "jwks_uri": serving.url + JWKS_PATH, **changes}).encode()


def key_set(serving: FakeIssuer) -> bytes:
    return json.dumps({"keys": [public_jwk_of(key) for key in serving.keys]}).encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(("path", "content"), [(DISCOVERY_PATH, discovery), (JWKS_PATH, key_set)])
async def test_redirect_to_valid_keys_is_not_followed(
    issuer: FakeIssuer, relying: Relying, path: str, content: Callable[[FakeIssuer], bytes], status: int
) -> None:
    issuer.answer("/moved", Answer(body=content(issuer)))
    issuer.answer(path, Answer(status=status, body=content(issuer), headers={"Location": f"{issuer.url}/moved"}))
    await relying.assert_unavailable(issuer.sign())
    assert (issuer.requests(path), issuer.requests("/moved")) == (1, 0)


TROUBLE: dict[str, Callable[[FakeIssuer], tuple[str, Answer]]] = {
    "500": lambda _: (JWKS_PATH, Answer(status=500)),
    "404": lambda _: (JWKS_PATH, Answer(status=404)),
    "204": lambda _: (JWKS_PATH, Answer(status=204)),
    "hangs": lambda _: (JWKS_PATH, Answer(hangs=True)),
    "discovery hangs": lambda _: (DISCOVERY_PATH, Answer(hangs=True)),
    "drips": lambda _: (JWKS_PATH, Answer(drips=True)),
    "empty": lambda _: (JWKS_PATH, Answer()),
    "HTML": lambda _: (JWKS_PATH, Answer(body=b"<html>", headers={"Content-Type": "text/html"})),
    "no UTF-8": lambda _: (JWKS_PATH, Answer(body=b"\xff\xfe\x00")),
    "a list": lambda _: (JWKS_PATH, Answer(body=b"[]")),
    "null": lambda _: (JWKS_PATH, Answer(body=b"null")),
    "no keys": lambda _: (JWKS_PATH, Answer(body=b'{"keys": []}')),
    "keys null": lambda _: (JWKS_PATH, Answer(body=b'{"keys": null}')),
    "keys an object": lambda _: (JWKS_PATH, Answer(body=b'{"keys": {"kty": "EC"}}')),
    "keys junk": lambda _: (JWKS_PATH, Answer(body=b'{"keys": [null, 1, "a", [], {}, {"kty": []}, {"kty": "RSA"}]}')),
    "keys twice": lambda _: (JWKS_PATH, Answer(body=b'{"keys": [], "keys": []}')),
    "secrets alone": lambda _: (JWKS_PATH, Answer(body=b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "first"}]}')),
    "100,000 × [": lambda _: (JWKS_PATH, Answer(body=b"[" * 100_000)),  # noqa: RUF001  (as the list of faults has it)
    "too long": lambda _: (JWKS_PATH, Answer(body=b'{"keys": []}' + b" " * MAX_BYTES)),
    "10 MB": lambda _: (JWKS_PATH, Answer(body=b" " * 10_000_000)),
    "compressed": lambda _: (
        JWKS_PATH,
        Answer(body=gzip.compress(b" " * 50_000_000), headers={"Content-Encoding": "gzip"}),
    ),
    "another's discovery": lambda issuer: (
        DISCOVERY_PATH,
        Answer(body=discovery(issuer, issuer="https://evil.example.com")),
    ),
    "discovery with a slash": lambda issuer: (DISCOVERY_PATH, Answer(body=discovery(issuer, issuer=issuer.url + "/"))),
    "no jwks_uri": lambda issuer: (DISCOVERY_PATH, Answer(body=discovery(issuer, jwks_uri=None))),
    "jwks_uri a list": lambda issuer: (DISCOVERY_PATH, Answer(body=discovery(issuer, jwks_uri=[issuer.url]))),
    "jwks_uri a file": lambda issuer: (DISCOVERY_PATH, Answer(body=discovery(issuer, jwks_uri="file:///etc/passwd"))),
    "jwks_uri in plain text": lambda issuer: (
        DISCOVERY_PATH,
        Answer(body=discovery(issuer, jwks_uri="http://10.0.0.1/keys")),
    ),
    "jwks_uri no URL": lambda issuer: (DISCOVERY_PATH, Answer(body=discovery(issuer, jwks_uri="https://[::1/\x00"))),
}


@pytest.mark.parametrize("name", TROUBLE)
async def test_failing_issuer_is_unavailable_and_logged(
    issuer: FakeIssuer, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    issuer.answer(*TROUBLE[name](issuer))
    token = issuer.sign()
    async with relying_on(
        trust(issuer), fetch_seconds=0.3 if {"hangs", "drips"} & set(name.split()) else 20
    ) as relying:
        with caplog.at_level(logging.WARNING, logger="pixyproxy"):
            await relying.assert_unavailable(token)
    assert [
        record.message.startswith(f"no keys from the trusted issuer {issuer.url}: ") for record in caplog.records
    ] == [True]
    assert not any(part in caplog.text for part in token.split("."))


async def test_unreachable_issuer_is_unavailable() -> None:
    with FakeIssuer() as gone:
        token, trusted = gone.sign(), trust(gone)
    async with relying_on(trusted) as relying:
        await relying.assert_unavailable(token)


async def test_unusable_keys_in_a_key_set_are_skipped(issuer: FakeIssuer, relying: Relying) -> None:
    junk: list[object] = [None, 7, {}, {"kty": "oct", "k": "AAAA"}, {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}]
    spoiled = [{**public_jwk_of(issuer.keys[0]), "use": "enc"}, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}]
    issuer.serve_keys({"keys": [*junk, *spoiled, *map(public_jwk_of, [*issuer.keys, rsa_key("rsa")])]})
    assert (await relying.verify(issuer.sign())).subject == "user-7"


async def test_public_key_is_not_accepted_as_an_hmac_secret(issuer: FakeIssuer, relying: Relying) -> None:
    jwk = json.dumps(public_jwk_of(issuer.keys[0])).encode()
    issuer.serve_keys(
        {"keys": [public_jwk_of(issuer.keys[0]), {"kty": "oct", "alg": "HS256", "kid": "first", "k": _b64(jwk)}]}
    )
    header, claims, signature = issuer.sign().split(".")
    forged = _b64(json.dumps({"alg": "HS256", "kid": "first"}).encode())
    await relying.refuses(f"{forged}.{claims}.{signature}")
    assert header != forged


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
