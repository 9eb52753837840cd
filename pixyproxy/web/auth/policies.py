"""Access policies: ``Annotated`` aliases for the signatures of resources.

``AnyViewer`` allows anonymous callers, ``AnyCaller`` any credential. The others require a scope. Each policy counts
the request against the caller's rate limits.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Security
from fastapi.openapi.models import OAuthFlowPassword, OAuthFlows
from fastapi.security import HTTPBearer, OAuth2
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request

from pixyproxy.core.exceptions import CredentialInvalidException, CredentialMissingException, PermissionException
from pixyproxy.core.models.principal import Principal, Scope
from pixyproxy.web.auth.guard import guarded, key_name
from pixyproxy.web.rate_limits.guarded_route import Admission

if TYPE_CHECKING:
    from pixyproxy.web.rate_limits.limits import RateLimits

SCOPE_DESCRIPTIONS = {
    Scope.IMAGE_READ: "View the tenant's private images.",
    Scope.IMAGE_GENERATE: "Generate pictures.",
    Scope.IMAGE_MANAGE: "Change and delete images.",
    Scope.USAGE_READ: "View usage.",
    Scope.KEY_MANAGE: "Manage API keys.",
    Scope.USER_MANAGE: "Manage users.",
    Scope.ADMIN: "Administer the server.",
}

SAFE_METHODS = {"GET", "HEAD"}
SCHEMES_OF_PROXIES = {"basic", "digest", "negotiate", "ntlm"}
"""``Authorization`` schemes that browsers handle themselves (RFC 7617, RFC 7616, RFC 4559)."""

# The document has only these two schemes: a pasted key or token, and a sign-in form. X-API-Key and the other grants
# are described in text.
BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="Bearer",
    # Swagger UI adds the word itself.
    description=(
        "Paste an API key (`pxy_…`) or an access token (`eyJ…`), without the word Bearer. "
        "Programs can also send an API key in the `X-API-Key` header."
    ),
)
SIGN_IN = OAuth2(
    flows=OAuthFlows(
        password=OAuthFlowPassword(
            tokenUrl="/auth/token", scopes={scope.value: text for scope, text in SCOPE_DESCRIPTIONS.items()}
        )
    ),
    scheme_name="SignIn",
    description="Sign in with a username and a password. Leave the client fields empty.",
    auto_error=False,
)


async def _documented(
    _bearer: Annotated[object, Security(BEARER)],
    _sign_in: Annotated[object, Security(SIGN_IN)],
) -> None:
    """Declare the credentials in the OpenAPI document."""


Documented = Annotated[None, Depends(_documented)]


def credential_in(headers: Headers) -> SecretStr | None:
    """Return the API key or access token of a request, or None if it has no credential.

    Browser credentials for a reverse proxy are ignored. Raise ``CredentialInvalidException`` for any other unreadable
    credential, so that its sender is never served as anonymous.
    """
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return SecretStr(token.strip())
        if scheme.lower() not in SCHEMES_OF_PROXIES:
            raise CredentialInvalidException
    key = headers.get("x-api-key")
    return None if key is None else SecretStr(key)


async def recognize(request: Request, credential: SecretStr | None) -> Principal | None:
    """Return the principal of a credential. Raise ``CredentialInvalidException`` and what ``guarded`` raises."""
    if credential is None:
        return None
    services, limits = request.app.state.services, request.app.state.limits
    principal: Principal | None = services.recognized.get(credential)
    if principal is None:
        async with guarded(request, limits, key_name(credential)):
            principal = await services.authenticator.authenticate(credential)
    return principal


@dataclass(frozen=True)
class CallerPolicy(Admission):
    """A dependency that returns the credential's principal and counts the request against its limits."""

    scope: Scope | None = None
    """The required scope."""
    anonymous: bool = False
    """Whether requests without a credential are allowed, with None as principal."""
    orders_pictures: bool = False

    async def __call__(self, request: Request, _: Documented = None) -> Principal | None:
        """Return the principal.

        Raise ``CredentialMissingException``, ``CredentialInvalidException``, ``PermissionException``, or a 429.
        """
        if not hasattr(request.state, "principal"):
            request.state.principal = await recognize(request, credential_in(request.headers))
        caller: Principal | None = request.state.principal
        limits: RateLimits = request.app.state.limits
        if caller is None and not self.anonymous:
            await limits.count(request, "read")
            raise CredentialMissingException
        if caller is not None and self.scope is not None and self.scope not in caller.scopes:
            raise PermissionException(context={"scope": self.scope})
        if caller is not None and self.orders_pictures:
            await limits.images.count_request(request, caller)
        else:
            await limits.count(request, "read" if request.method in SAFE_METHODS else "change", caller)
        return caller


def _requires(scope: Scope, *, orders_pictures: bool = False) -> Any:  # noqa: ANN401  (an argument of Annotated)
    return Security(CallerPolicy(scope, orders_pictures=orders_pictures), scopes=[scope])


AnyViewer = Annotated[Principal | None, Depends(CallerPolicy(anonymous=True))]
AnyCaller = Annotated[Principal, Depends(CallerPolicy())]
ImageRead = Annotated[Principal, _requires(Scope.IMAGE_READ)]
ImageGenerate = Annotated[Principal, _requires(Scope.IMAGE_GENERATE, orders_pictures=True)]
"""For routes that call the upstream: requests count as pictures, not as changes."""
ImageManage = Annotated[Principal, _requires(Scope.IMAGE_MANAGE)]
UsageRead = Annotated[Principal, _requires(Scope.USAGE_READ)]
KeyManage = Annotated[Principal, _requires(Scope.KEY_MANAGE)]
UserManage = Annotated[Principal, _requires(Scope.USER_MANAGE)]
Operator = Annotated[Principal, _requires(Scope.ADMIN)]
