"""Tokens of trusted issuers: fetch and cache the issuers' keys, and map their claims."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2

from pixyproxy.core.exceptions import ConfigurationException, CredentialInvalidException, IssuerUnavailableException
from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.trusted_issuer import TrustedIssuer, require_safe_url
from pixyproxy.service.private.identity.oauth.encodings import read_json_object
from pixyproxy.service.private.identity.oauth.jwt import (
    UnverifiedToken,
    VerificationKey,
    inspect_token,
    public_key_from_jwk,
    verify_token,
)

logger = logging.getLogger(__name__)

TYPES = frozenset({"at+jwt", "jwt", ""})
"""Few issuers mark access tokens as RFC 9068 §2.1 requires; the audience check rejects tokens for others."""
REQUIRED = frozenset({"exp", "iat", "iss", "aud", "sub"})
LEEWAY_SECONDS = 30

FETCH_SECONDS = 5.0
"""Timeout of a request to an issuer, from the connection to the last byte."""
MAX_BYTES = 256 * 1024
MAX_KEYS = 100
LONGEST_SECONDS = 86_400
"""Maximum age of keys of an unreachable issuer, which may have withdrawn one."""
FRESH_SECONDS = 3600
"""How long keys are used without a new fetch; a withdrawn key is accepted this long if the issuer is reachable."""
PAUSE_SECONDS = 60
"""Minimum interval between fetches, so that made-up key ids cannot make this server flood the issuer."""
FIRST_PAUSE_SECONDS = 5
"""Minimum interval while there are no keys at all and every token has to be rejected."""


@dataclass(frozen=True)
class ForeignClaims:
    """The mapped claims of a valid token of a trusted issuer; ``tenant`` is a name or a GUID."""

    issuer: str
    subject: str
    tenant: str
    scopes: frozenset[Scope]
    expires_at: datetime
    token_id: str | None


@dataclass
class IssuerKeys:
    """The most recently fetched keys of one issuer; empty before the first fetch."""

    keys: tuple[VerificationKey, ...] = ()
    fetched_at: float = 0.0
    asked_at: float | None = None
    fetching: asyncio.Task[None] | None = None


@dataclass(frozen=True)
class TrustedIssuers:
    """The trusted issuers of the settings; fetches and caches their keys."""

    issuers: Mapping[str, TrustedIssuer]
    client: httpx2.AsyncClient | None
    fetch_seconds: float = FETCH_SECONDS
    monotonic: Callable[[], float] = time.monotonic
    known: dict[str, IssuerKeys] = field(default_factory=dict, repr=False)

    def find(self, issuer: str) -> TrustedIssuer | None:
        """Return the issuer with exactly this name, or None."""
        return self.issuers.get(issuer)

    async def verify(self, token: str, issuer: TrustedIssuer, *, at: datetime) -> ForeignClaims:
        """Return the claims of a token that is signed by the issuer, intended for us, and valid now.

        Raises ``CredentialInvalidException`` for an invalid token, and ``IssuerUnavailableException`` while no key
        of the issuer is available.
        """
        unverified = inspect_token(token)
        if unverified.issuer != issuer.issuer or unverified.algorithm not in issuer.algorithms:
            raise CredentialInvalidException
        claims = verify_token(
            token,
            await self._require_key(unverified, issuer),
            issuer=issuer.issuer,
            audience=issuer.audience,
            types=TYPES,
            required=REQUIRED,
            at=at,
            leeway_seconds=LEEWAY_SECONDS,
        )
        return _foreign_claims(claims, issuer)

    async def close(self) -> None:
        """Cancel running fetches and close the connections."""
        fetching = [state.fetching for state in self.known.values() if state.fetching is not None]
        for task in fetching:
            task.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)
        if self.client is not None:
            await self.client.aclose()

    async def _require_key(self, token: UnverifiedToken, issuer: TrustedIssuer) -> VerificationKey:
        """Return the one key that the token names; fetch the issuer's keys if it is unknown or stale."""
        state = self.known.setdefault(issuer.issuer, IssuerKeys())
        key = _pick(state.keys, token)
        is_stale = self.monotonic() - state.fetched_at >= FRESH_SECONDS
        if (key is None or is_stale) and (state.fetching is not None or self._may_ask(state)):
            await self._refresh(state, issuer)
            key = _pick(state.keys, token)
        if not state.keys or self.monotonic() - state.fetched_at >= LONGEST_SECONDS:
            raise IssuerUnavailableException
        if key is None:
            raise CredentialInvalidException
        return key

    def _may_ask(self, state: IssuerKeys) -> bool:
        pause = PAUSE_SECONDS if state.keys else FIRST_PAUSE_SECONDS
        return state.asked_at is None or self.monotonic() - state.asked_at >= pause

    async def _refresh(self, state: IssuerKeys, issuer: TrustedIssuer) -> None:
        """Wait for a running or a new fetch, which continues if the waiting client hangs up."""
        if state.fetching is None:
            state.fetching = asyncio.get_running_loop().create_task(self._fetch(state, issuer))
        await asyncio.shield(state.fetching)

    async def _fetch(self, state: IssuerKeys, issuer: TrustedIssuer) -> None:
        """Renew the keys; if that fails, keep the current keys and log a warning."""
        try:
            state.keys = await self._fetch_keys(issuer)
            state.fetched_at = self.monotonic()
        except Exception as error:  # noqa: BLE001  (an issuer's response must never cause an unexpected error here)
            reason = str(error) or type(error).__name__
            logger.warning("no keys from the trusted issuer %s: %s", issuer.issuer, reason[:200])
        finally:
            state.asked_at, state.fetching = self.monotonic(), None

    async def _fetch_keys(self, issuer: TrustedIssuer) -> tuple[VerificationKey, ...]:
        url = str(issuer.jwks_url) if issuer.jwks_url else await self._discover(issuer.issuer)
        listed = (await self._get(url)).get("keys")
        if not isinstance(listed, list):
            problem = "the key set has no list of keys"
            raise ValueError(problem)  # noqa: TRY004  (a server sent this value; it is no programming error)
        keys = tuple(key for key in map(public_key_from_jwk, listed[:MAX_KEYS]) if key is not None)
        if not keys:
            problem = "the key set has no usable verification key"
            raise ValueError(problem)
        return keys

    async def _discover(self, issuer: str) -> str:
        """Return the URL of the keys (OpenID Connect Discovery 1.0 §4); the document must name the issuer (§4.3)."""
        document = await self._get(f"{issuer.removesuffix('/')}/.well-known/openid-configuration")
        url = document.get("jwks_uri")
        if document.get("issuer") != issuer or not isinstance(url, str):
            problem = "the discovery document names another issuer or has no jwks_uri"
            raise ValueError(problem)
        if urlsplit(issuer).scheme == "https" and urlsplit(url).scheme != "https":
            problem = "the jwks_uri is not https"
            raise ValueError(problem)
        return require_safe_url(url)

    async def _get(self, url: str) -> dict[str, Any]:
        """Return the JSON object at a URL. Raises ``httpx2.HTTPError``, ``TimeoutError`` or ``ValueError``."""
        client, body = self._require_client(), bytearray()
        async with asyncio.timeout(self.fetch_seconds), client.stream("GET", url) as response:
            if response.status_code != httpx2.codes.OK:
                problem = f"unexpected response status {response.status_code}"
                raise ValueError(problem)
            # Raw, because a small compressed body could unpack to gigabytes; the request asks for no compression.
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MAX_BYTES:
                    problem = f"the response is longer than {MAX_BYTES} bytes"
                    raise ValueError(problem)
        return read_json_object(bytes(body))

    def _require_client(self) -> httpx2.AsyncClient:
        if self.client is None:
            problem = "no issuer is trusted"
            raise ValueError(problem)
        return self.client


def open_trusted_issuers(issuers: Sequence[TrustedIssuer]) -> TrustedIssuers:
    """Return the issuers without fetching keys. Raises ``ConfigurationException`` if one is named twice."""
    by_name = {issuer.issuer: issuer for issuer in issuers}
    if len(by_name) != len(issuers):
        problem = "PIXYPROXY_TRUSTED_ISSUERS names an issuer twice. Remove one of the entries."
        raise ConfigurationException(problem)
    return TrustedIssuers(issuers=by_name, client=_open_client() if by_name else None)


def _open_client() -> httpx2.AsyncClient:
    """Return a client that connects to the issuer directly.

    A redirect could lead into this server's network, and a proxy from the environment could respond with keys of its
    own.
    """
    return httpx2.AsyncClient(
        timeout=FETCH_SECONDS,
        follow_redirects=False,
        trust_env=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )


def _pick(keys: Sequence[VerificationKey], token: UnverifiedToken) -> VerificationKey | None:
    """Return the key with the token's id and algorithm; without an id, the only key of its algorithm."""
    fitting = [key for key in keys if key.algorithm == token.algorithm and (token.kid is None or key.kid == token.kid)]
    return fitting[0] if len(fitting) == 1 else None


def _foreign_claims(claims: Mapping[str, Any], issuer: TrustedIssuer) -> ForeignClaims:
    tenant = issuer.tenant if issuer.tenant_claim is None else claims.get(issuer.tenant_claim)
    if not isinstance(tenant, str) or not tenant:
        raise CredentialInvalidException
    return ForeignClaims(
        issuer=issuer.issuer,
        subject=claims["sub"],
        tenant=tenant,
        scopes=_scopes(claims.get(issuer.scope_claim), issuer),
        expires_at=datetime.fromtimestamp(int(claims["exp"]), UTC),
        token_id=claims.get("jti"),
    )


def _scopes(value: object, issuer: TrustedIssuer) -> frozenset[Scope]:
    """Map the issuer's scopes to ours, limited to those it may grant. Raises ``CredentialInvalidException``."""
    names = value.split(" ") if isinstance(value, str) else value or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CredentialInvalidException
    meant = issuer.scope_map or {scope.value: frozenset({scope}) for scope in Scope}
    return issuer.allowed_scopes & frozenset().union(*(meant.get(name, frozenset()) for name in names))
