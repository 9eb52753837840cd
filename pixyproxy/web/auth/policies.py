"""Who may call: ``Annotated`` aliases that stand in a resource's signature.

``AnyViewer`` takes an anonymous caller too, ``AnyCaller`` any credential. The others name the scope that a
credential must carry.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlowPassword, OAuthFlows
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer, OAuth2
from pydantic import SecretStr
from starlette.requests import Request

from pixyproxy.core.exceptions import CredentialInvalidException, CredentialMissingException, PermissionException
from pixyproxy.core.models.principal import Principal, Scope
from pixyproxy.web.auth.guard import guarded, key_name
from pixyproxy.web.dependencies import AllServices, Limits

SCOPE_DESCRIPTIONS = {
    Scope.IMAGE_READ: "See the tenant's private pictures.",
    Scope.IMAGE_GENERATE: "Make pictures.",
    Scope.IMAGE_MANAGE: "Change and delete pictures.",
    Scope.USAGE_READ: "See what was made.",
    Scope.KEY_MANAGE: "Manage API keys.",
    Scope.USER_MANAGE: "Manage users.",
    Scope.ADMIN: "Administer the server.",
}
FLOW = {"tokenUrl": "/auth/token", "scopes": {scope.value: text for scope, text in SCOPE_DESCRIPTIONS.items()}}

BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="Bearer",
    # Swagger UI puts the word in front of whatever is filled in.
    description="An API key (`pxy_…`) or an access token (`eyJ…`), without the word Bearer.",
)
HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="ApiKeyHeader", description="An API key.")
OAUTH = OAuth2(
    flows=OAuthFlows(
        password=OAuthFlowPassword.model_validate(FLOW),
        clientCredentials=OAuthFlowClientCredentials.model_validate(FLOW),
    ),
    scheme_name="OAuth2",
    description="Sign in as a user, or with an API key: its key id as the client's id, the key as its secret.",
    auto_error=False,
)


async def presented_credential(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
    _header: Annotated[str | None, Security(HEADER)],
    _oauth: Annotated[str | None, Security(OAUTH)],
) -> SecretStr | None:
    """The API key or access token of the request, or None where it has no credential at all.

    A credential that cannot be read is an error: nobody who sent one is served as if they had not.
    """
    if bearer is not None:
        return SecretStr(bearer.credentials)
    if "authorization" in request.headers:
        raise CredentialInvalidException
    header = request.headers.get("x-api-key")
    return None if header is None else SecretStr(header)


async def recognized_caller(
    request: Request,
    services: AllServices,
    limits: Limits,
    credential: Annotated[SecretStr | None, Depends(presented_credential)],
) -> Principal | None:
    """The principal of the request's credential, noted on the request for limits; None for an anonymous one."""
    if credential is None:
        return None
    principal = services.recognized.recall(credential)
    if principal is None:
        async with guarded(request, limits, key_name(credential)):
            principal = await services.authenticator.authenticate(credential)
    request.state.principal = principal
    return principal


async def any_caller(caller: Annotated[Principal | None, Depends(recognized_caller)]) -> Principal:
    """The principal, whatever its scopes."""
    if caller is None:
        raise CredentialMissingException
    return caller


def require(scope: Scope) -> Callable[..., Coroutine[Any, Any, Principal]]:
    """A dependency that gives the principal if it carries the scope."""

    async def caller_with_scope(caller: Annotated[Principal, Depends(any_caller)]) -> Principal:
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
