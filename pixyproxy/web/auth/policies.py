"""Who may call: ``Annotated`` aliases that stand in a resource's signature.

``AnyViewer`` takes an anonymous caller too, ``AnyCaller`` any credential. The others name the scope that a
credential must carry. Each counts the request in the caller's rate limits.
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
    Scope.IMAGE_READ: "See the tenant's private pictures.",
    Scope.IMAGE_GENERATE: "Make pictures.",
    Scope.IMAGE_MANAGE: "Change and delete pictures.",
    Scope.USAGE_READ: "See what was made.",
    Scope.KEY_MANAGE: "Manage API keys.",
    Scope.USER_MANAGE: "Manage users.",
    Scope.ADMIN: "Administer the server.",
}

SAFE_METHODS = {"GET", "HEAD"}
SCHEMES_OF_PROXIES = {"basic", "digest", "negotiate", "ntlm"}
"""Those of ``Authorization`` that browsers know themselves (RFC 7617, RFC 7616, RFC 4559)."""

# The document has these two schemes alone: a key or token to paste, and a form for people. X-API-Key and the other
# grants work as well, and are described in words.
BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="Bearer",
    # Swagger UI puts the word in front of whatever is filled in.
    description=(
        "Paste an API key (`pxy_…`) or an access token (`eyJ…`), without the word Bearer. "
        "Programs can also send an API key in the header `X-API-Key`."
    ),
)
SIGN_IN = OAuth2(
    flows=OAuthFlows(
        password=OAuthFlowPassword(
            tokenUrl="/auth/token", scopes={scope.value: text for scope, text in SCOPE_DESCRIPTIONS.items()}
        )
    ),
    scheme_name="SignIn",
    description="Sign in with a username and a password. Leave the client's fields empty.",
    auto_error=False,
)


async def _documented(
    _bearer: Annotated[object, Security(BEARER)],
    _sign_in: Annotated[object, Security(SIGN_IN)],
) -> None:
    """Name the credentials in the OpenAPI document."""


Documented = Annotated[None, Depends(_documented)]


def credential_in(headers: Headers) -> SecretStr | None:
    """Return the API key or access token of a request, or None where it has no credential at all.

    What a browser sends for the sign-in of a reverse proxy is none of ours. Raise ``CredentialInvalidException`` for
    any other one that cannot be read: nobody who sent one is served as if they had not.
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
    """The principal of a credential. Raises ``CredentialInvalidException``, and what the guard raises."""
    if credential is None:
        return None
    services, limits = request.app.state.services, request.app.state.limits
    principal: Principal | None = services.recognized.recall(credential)
    if principal is None:
        async with guarded(request, limits, key_name(credential)):
            principal = await services.authenticator.authenticate(credential)
    return principal


@dataclass(frozen=True)
class CallerPolicy(Admission):
    """A dependency that returns the principal of the credential, and counts the request in its limits."""

    scope: Scope | None = None
    """What the credential must carry."""
    anonymous: bool = False
    """Whether a request without a credential is served, with None for a principal."""
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


def _requires(scope: Scope, *, orders_pictures: bool = False) -> Any:  # noqa: ANN401  (what stands in Annotated)
    return Security(CallerPolicy(scope, orders_pictures=orders_pictures), scopes=[scope])


AnyViewer = Annotated[Principal | None, Depends(CallerPolicy(anonymous=True))]
AnyCaller = Annotated[Principal, Depends(CallerPolicy())]
ImageRead = Annotated[Principal, _requires(Scope.IMAGE_READ)]
ImageGenerate = Annotated[Principal, _requires(Scope.IMAGE_GENERATE, orders_pictures=True)]
"""For routes that call the upstream: they count as pictures, not as changes."""
ImageManage = Annotated[Principal, _requires(Scope.IMAGE_MANAGE)]
UsageRead = Annotated[Principal, _requires(Scope.USAGE_READ)]
KeyManage = Annotated[Principal, _requires(Scope.KEY_MANAGE)]
UserManage = Annotated[Principal, _requires(Scope.USER_MANAGE)]
Operator = Annotated[Principal, _requires(Scope.ADMIN)]
