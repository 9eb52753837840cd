"""Metadata for clients and resource servers: endpoints (RFC 8414) and public keys (RFC 7517)."""

from typing import Any

from fastapi import APIRouter, Response

from pixyproxy.core import clock
from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.principal import Scope
from pixyproxy.web.dependencies import AllServices, PublicUrl
from pixyproxy.web.openapi import Tag, problems
from pixyproxy.web.rate_limits.limits import PROBE

CLIENT_AUTHENTICATION = ("client_secret_basic", "client_secret_post")
CACHE_SECONDS = 300
"""Shorter than the time for which a signing key is published before it signs."""


class ServerMetadata(FrozenModel):
    """The authorization server's metadata (RFC 8414 §2)."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    revocation_endpoint: str
    introspection_endpoint: str
    scopes_supported: tuple[str, ...] = tuple(Scope)
    response_types_supported: tuple[str, ...] = ()
    grant_types_supported: tuple[str, ...]
    token_endpoint_auth_methods_supported: tuple[str, ...] = (*CLIENT_AUTHENTICATION, "none")
    revocation_endpoint_auth_methods_supported: tuple[str, ...] = (*CLIENT_AUTHENTICATION, "none")
    introspection_endpoint_auth_methods_supported: tuple[str, ...] = CLIENT_AUTHENTICATION
    service_documentation: str


class JsonWebKeySet(FrozenModel):
    """The public keys (RFC 7517 §5) that sign access tokens now or soon."""

    keys: list[dict[str, Any]]


async def get_server_metadata(response: Response, services: AllServices, public_url: PublicUrl) -> ServerMetadata:
    """Return the endpoints and capabilities of the authorization server."""
    # Without the setting the URLs come from this client's Host header and must not be shared.
    whose = "private" if services.settings.public_url is None else "public"
    response.headers["Cache-Control"] = f"{whose}, max-age={CACHE_SECONDS}"
    password = ("password", "refresh_token") if services.settings.password_sign_in else ("refresh_token",)
    return ServerMetadata(
        issuer=services.issuer,
        token_endpoint=f"{public_url}/auth/token",
        jwks_uri=f"{public_url}/.well-known/jwks.json",
        revocation_endpoint=f"{public_url}/auth/revoke",
        introspection_endpoint=f"{public_url}/auth/introspect",
        grant_types_supported=("client_credentials", *password),
        service_documentation=f"{public_url}/docs",
    )


async def get_json_web_key_set(response: Response, services: AllServices) -> JsonWebKeySet:
    """Return the public keys that verify access tokens."""
    response.headers["Cache-Control"] = f"public, max-age={CACHE_SECONDS}"
    return JsonWebKeySet.model_validate(services.key_ring.jwks(clock.now()))


def metadata_router() -> APIRouter:
    """Return the router of the well-known resources."""
    router = APIRouter(prefix="/.well-known", tags=[Tag.IDENTITY], dependencies=[PROBE])
    router.get("/oauth-authorization-server", responses=problems(429))(get_server_metadata)
    router.get("/jwks.json", responses=problems(429))(get_json_web_key_set)
    return router
