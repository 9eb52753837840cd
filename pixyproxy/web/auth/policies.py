"""Who may call: ``Annotated`` aliases that stand in a resource's signature.

``AnyViewer`` takes an anonymous caller too. The others name the scope that a credential must carry.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.requests import Request

from pixyproxy.core.exceptions import CredentialInvalidException, CredentialMissingException, PermissionException
from pixyproxy.core.models.tenant import Principal, Scope
from pixyproxy.web.dependencies import AllServices

BEARER = HTTPBearer(auto_error=False, scheme_name="ApiKeyBearer", description="An API key: `Bearer pxy_…`")
HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="ApiKeyHeader", description="An API key.")


def presented_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
    _header: Annotated[str | None, Security(HEADER)],
) -> SecretStr | None:
    """The API key of the request, or None where it has no credential at all.

    A credential that cannot be read is an error: nobody who sent one is served as if they had not.
    """
    if bearer is not None:
        return SecretStr(bearer.credentials)
    if "authorization" in request.headers:
        raise CredentialInvalidException
    header = request.headers.get("x-api-key")
    return None if header is None else SecretStr(header)


async def recognized_caller(
    request: Request, services: AllServices, key: Annotated[SecretStr | None, Depends(presented_key)]
) -> Principal | None:
    """The principal of the request's credential, noted on the request for limits; None for an anonymous one."""
    if key is None:
        return None
    principal = await services.api_keys.authenticate(key)
    request.state.principal = principal
    return principal


def require(scope: Scope) -> Callable[..., Coroutine[Any, Any, Principal]]:
    """A dependency that gives the principal if it carries the scope."""

    async def caller_with_scope(caller: Annotated[Principal | None, Depends(recognized_caller)]) -> Principal:
        if caller is None:
            raise CredentialMissingException
        if scope not in caller.scopes:
            raise PermissionException(context={"scope": scope})
        return caller

    return caller_with_scope


AnyViewer = Annotated[Principal | None, Depends(recognized_caller)]
ImageGenerate = Annotated[Principal, Depends(require(Scope.IMAGE_GENERATE))]
ImageManage = Annotated[Principal, Depends(require(Scope.IMAGE_MANAGE))]
