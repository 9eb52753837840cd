"""The tenant's API keys."""

from fastapi import APIRouter, Response
from starlette.requests import Request

from pixyproxy.core.models.api_key import ApiKeyDetail, ApiKeyWithSecret, NewApiKey, Rotation
from pixyproxy.service.private.identity.grants import grantor_of
from pixyproxy.web.auth.policies import KeyManage
from pixyproxy.web.dependencies import AllServices, Cursor, KeyGuid, Limit
from pixyproxy.web.openapi import LIST_RESPONSES, Tag, problems
from pixyproxy.web.presentation import api_key_with_secret, link_to_next
from pixyproxy.web.rate_limits.guarded_route import GuardedRoute


async def list_keys(
    request: Request,
    response: Response,
    principal: KeyManage,
    services: AllServices,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> list[ApiKeyDetail]:
    """List the tenant's API keys, oldest first, including revoked ones; secrets are never returned."""
    page = await services.api_keys.list_keys(tenant_id=principal.tenant_id, limit=limit, cursor=cursor)
    link_to_next(request, response, page.next_cursor)
    return page.items


async def create_key(order: NewApiKey, principal: KeyManage, services: AllServices) -> ApiKeyWithSecret:
    """Create an API key, limited to the caller's permissions and expiry; `api_key` is shown only once."""
    issued = await services.api_keys.issue_key(order, grantor=grantor_of(principal))
    return api_key_with_secret(issued)


async def rotate_key(
    principal: KeyManage, guid: KeyGuid, services: AllServices, rotation: Rotation | None = None
) -> ApiKeyWithSecret:
    """Give a key a new secret, shown only once; the old one stays valid for `grace_seconds`."""
    issued = await services.api_keys.rotate_key(guid, rotation or Rotation(), grantor=grantor_of(principal))
    return api_key_with_secret(issued)


async def revoke_key(principal: KeyManage, guid: KeyGuid, services: AllServices) -> None:
    """Revoke a key and every token issued to it, within a second."""
    await services.api_keys.revoke_key(guid, grantor=grantor_of(principal))


def key_router() -> APIRouter:
    """Return the router of the key resource."""
    router = APIRouter(prefix="/key", tags=[Tag.IDENTITY], route_class=GuardedRoute)
    router.get("", responses=LIST_RESPONSES | problems(400, 401, 403, 422, 429, 503))(list_keys)
    router.post("", status_code=201, responses=problems(400, 401, 403, 409, 413, 422, 429, 503))(create_key)
    router.post("/{guid}/rotate", responses=problems(400, 401, 403, 404, 413, 422, 429, 503))(rotate_key)
    router.delete("/{guid}", status_code=204, response_class=Response, responses=problems(401, 403, 404, 429, 503))(
        revoke_key
    )
    return router
