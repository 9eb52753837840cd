"""OpenID Connect issuers that an operator trusts to say who is asking."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, HttpUrl, model_validator

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.principal import Scope

Algorithm = Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
"""The JWS algorithms (RFC 7518 §3.1) that tokens may be signed with: no secret ever verifies one."""

Name = Annotated[str, Field(min_length=1, max_length=255)]


def require_safe_url(url: str) -> str:
    """The URL, if what is fetched from it comes from its host: https, or http on this very machine.

    Raises ``ValueError``.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return url
    if parts.scheme == "http" and parts.hostname and _is_loopback(parts.hostname):
        return url
    problem = "must start with https:// (http:// is for localhost alone)"
    raise ValueError(problem)


def _require_safe(url: HttpUrl | None) -> HttpUrl | None:
    if url is not None:
        require_safe_url(str(url))
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class TrustedIssuer(FrozenModel):
    """An issuer, whose tenants its tokens act for, and what they may do at the most.

    ``issuer`` is compared with ``iss`` character by character (RFC 8414 §3.3), so it stays as it was written. With
    a ``scope_map`` only the values in it count; without one the issuer's values are the names of our scopes.
    """

    issuer: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(require_safe_url)]
    audience: Name
    jwks_url: Annotated[HttpUrl | None, AfterValidator(_require_safe)] = None
    tenant: Name | None = None
    tenant_claim: Name | None = None
    scope_claim: Name = "scope"
    scope_map: Mapping[str, frozenset[Scope]] = Field(default_factory=dict)
    # Whoever runs the issuer should not come to run this server, or a tenant of it for good, by a slip in the settings.
    allowed_scopes: frozenset[Scope] = frozenset(Scope) - {
        Scope.ADMIN,
        Scope.USER_MANAGE,
        Scope.KEY_MANAGE,
    }
    algorithms: Annotated[frozenset[Algorithm], Field(min_length=1)] = frozenset({"RS256", "ES256"})

    @model_validator(mode="after")
    def _names_its_tenants_once(self) -> Self:
        if (self.tenant is None) == (self.tenant_claim is None):
            problem = "set either tenant (whose all its tokens are) or tenant_claim (the claim that names the tenant)"
            raise ValueError(problem)
        return self
