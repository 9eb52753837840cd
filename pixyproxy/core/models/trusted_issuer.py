"""OpenID Connect issuers that an operator trusts to identify callers."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, HttpUrl, model_validator

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.principal import Scope

Algorithm = Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
"""The accepted JWS algorithms (RFC 7518 §3.1), all asymmetric."""

Name = Annotated[str, Field(min_length=1, max_length=255)]


def require_safe_url(url: str) -> str:
    """Return the URL if its host is authenticated: https, or http on the local machine.

    Raise ``ValueError`` otherwise.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return url
    if parts.scheme == "http" and parts.hostname and _is_loopback(parts.hostname):
        return url
    problem = "must start with https:// (http:// is allowed for localhost only)"
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
    """A trusted issuer: the tenant or tenants that its tokens are for, and their maximum scopes.

    ``issuer`` is compared with ``iss`` character by character (RFC 8414 §3.3), so it is not normalized. With a
    ``scope_map`` only the values in it count; without one the issuer's values are the names of scopes here.
    """

    issuer: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(require_safe_url)]
    audience: Name
    jwks_url: Annotated[HttpUrl | None, AfterValidator(_require_safe)] = None
    tenant: Name | None = None
    tenant_claim: Name | None = None
    scope_claim: Name = "scope"
    scope_map: Mapping[str, frozenset[Scope]] = Field(default_factory=dict)
    # A slip in the settings must not let the issuer's operator take over this server, or permanently one of its
    # tenants.
    allowed_scopes: frozenset[Scope] = frozenset(Scope) - {
        Scope.ADMIN,
        Scope.USER_MANAGE,
        Scope.KEY_MANAGE,
    }
    algorithms: Annotated[frozenset[Algorithm], Field(min_length=1)] = frozenset({"RS256", "ES256"})

    @model_validator(mode="after")
    def _names_its_tenants_once(self) -> Self:
        if (self.tenant is None) == (self.tenant_claim is None):
            problem = (
                "set either tenant (the tenant of all its tokens) or tenant_claim (the claim that names the tenant)"
            )
            raise ValueError(problem)
        return self
