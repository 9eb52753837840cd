"""OAuth 2 tokens: requests, issued tokens and their rows."""

from datetime import datetime
from typing import Annotated, NewType

from pydantic import ConfigDict, Field, SecretStr, StringConstraints

from pixyproxy.core.models.base import REFUSE_COERCION, FrozenModel
from pixyproxy.core.models.principal import Scope, scope_text
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.user import UserGuid

TokenId = NewType("TokenId", str)
SessionGuid = NewType("SessionGuid", str)
"""One sign-in: the family of its refresh tokens, and the ``sid`` of its access tokens."""

_SCOPE = "|".join(Scope)
SCOPES = f"^({_SCOPE})( ({_SCOPE}))*$"
"""One or more scopes, separated by spaces (RFC 6749 §3.3)."""

LONGEST_TOKEN_SECONDS = 86_400
"""The longest lifetime of an access token, and so of a signing key's publication after its last signature."""


class TokenOrder(FrozenModel):
    """An operator's request for an access token of a tenant."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"tenant": "acme", "scope": "image:read image:generate", "expires_in": 3600}]}
    )

    tenant: str = Field(min_length=1, max_length=255, description="Name or GUID of the tenant.")
    scope: Annotated[str, StringConstraints(pattern=SCOPES)] | None = Field(
        default=None, description="Scopes separated by spaces; default: those of a member."
    )
    expires_in: Annotated[int, Field(ge=1, le=LONGEST_TOKEN_SECONDS), REFUSE_COERCION] = Field(
        default=3600, description="In seconds."
    )


class TokenResponse(FrozenModel):
    """A successful response of the token endpoint (RFC 6749 §5.1); ``expires_in`` is in seconds."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105  (a token type of RFC 6749 §7.1, not a secret)
    expires_in: int
    scope: str
    refresh_token: str | None = None


class IssuedTokens(FrozenModel):
    """Issued tokens (RFC 6749 §5.1), still masked."""

    access_token: SecretStr
    expires_in: int
    scopes: frozenset[Scope]
    refresh_token: SecretStr | None = None

    def as_response(self) -> TokenResponse:
        """Return the tokens in plain text, to be shown once."""
        return TokenResponse(
            access_token=self.access_token.get_secret_value(),
            expires_in=self.expires_in,
            scope=scope_text(self.scopes),
            refresh_token=None if self.refresh_token is None else self.refresh_token.get_secret_value(),
        )


class Introspection(FrozenModel):
    """The introspection of a token (RFC 7662 §2.2); times in seconds since 1970."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    username: str | None = None
    token_type: str | None = None
    exp: int | None = None
    iat: int | None = None
    sub: str | None = None
    aud: str | None = None
    iss: str | None = None
    jti: str | None = None
    tenant: str | None = None


class RefreshToken(FrozenModel):
    """A refresh token row, with its SHA-256 (64 hex digits), never the token.

    ``used_at`` is when it was exchanged for its successor. If it is presented again later, it was stolen.
    """

    token_sha256: str
    session_guid: SessionGuid
    tenant_id: TenantId
    user_guid: UserGuid
    client_id: str | None
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None


class RevokedToken(FrozenModel):
    """The id of an access token revoked before its expiry, stored until then."""

    token_id: TokenId
    tenant_id: TenantId
    expires_at: datetime
    revoked_at: datetime
