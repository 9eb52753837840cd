"""Who may call: ``Annotated`` aliases that stand in a resource's signature.

``AnyViewer`` takes an anonymous caller too, ``AnyCaller`` any credential. The others name the scope that a
credential must carry.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.openapi.models import OAuthFlowPassword, OAuthFlows
from fastapi.security import HTTPBearer, OAuth2
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request

from pixyproxy.core.exceptions import CredentialInvalidException, CredentialMissingException, PermissionException
from pixyproxy.core.models.principal import Principal, Scope
from pixyproxy.web.auth.guard import guarded, key_name

SCOPE_DESCRIPTIONS = {
    Scope.IMAGE_READ: "See the tenant's private pictures.",
    Scope.IMAGE_GENERATE: "Make pictures.",
    Scope.IMAGE_MANAGE: "Change and delete pictures.",
    Scope.USAGE_READ: "See what was made.",
    Scope.KEY_MANAGE: "Manage API keys.",
    Scope.USER_MANAGE: "Manage users.",
    Scope.ADMIN: "Administer the server.",
}

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


async def recognized_caller(request: Request, _: Documented = None) -> Principal | None:
    """The principal of the request's credential, noted on the request; None for an anonymous one."""
    if not hasattr(request.state, "principal"):
        request.state.principal = await recognize(request, credential_in(request.headers))
    caller: Principal | None = request.state.principal
    return caller


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


async def any_caller(request: Request, _: Documented = None) -> Principal:
    """The principal, whatever its scopes."""
    caller = await recognized_caller(request)
    if caller is None:
        await request.app.state.limits.count_anonymous(request)
        raise CredentialMissingException
    return caller


def require(scope: Scope) -> Callable[..., Coroutine[Any, Any, Principal]]:
    """A dependency that gives the principal if it carries the scope."""

    async def caller_with_scope(request: Request, _: Documented = None) -> Principal:
        caller = await any_caller(request)
        if scope not in caller.scopes:
            raise PermissionException(context={"scope": scope})
        return caller

    return caller_with_scope


AnyViewer = Annotated[Principal | None, Depends(recognized_caller)]
AnyCaller = Annotated[Principal, Depends(any_caller)]
ImageRead = Annotated[Principal, Security(require(Scope.IMAGE_READ), scopes=[Scope.IMAGE_READ])]
ImageGenerate = Annotated[Principal, Security(require(Scope.IMAGE_GENERATE), scopes=[Scope.IMAGE_GENERATE])]
ImageManage = Annotated[Principal, Security(require(Scope.IMAGE_MANAGE), scopes=[Scope.IMAGE_MANAGE])]
UsageRead = Annotated[Principal, Security(require(Scope.USAGE_READ), scopes=[Scope.USAGE_READ])]
KeyManage = Annotated[Principal, Security(require(Scope.KEY_MANAGE), scopes=[Scope.KEY_MANAGE])]
UserManage = Annotated[Principal, Security(require(Scope.USER_MANAGE), scopes=[Scope.USER_MANAGE])]
Operator = Annotated[Principal, Security(require(Scope.ADMIN), scopes=[Scope.ADMIN])]
