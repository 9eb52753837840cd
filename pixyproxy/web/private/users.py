"""The tenant's users."""

from fastapi import APIRouter, Response
from starlette.requests import Request

from pixyproxy.core.models.user import NewUser, UserChange, UserDetail
from pixyproxy.service.private.identity.grants import grantor_of
from pixyproxy.web.auth.policies import UserManage
from pixyproxy.web.dependencies import AllServices, Cursor, Limit, UserGuidInPath
from pixyproxy.web.openapi import LIST_RESPONSES, Tag, problems
from pixyproxy.web.presentation import link_to_next
from pixyproxy.web.rate_limits.guarded_route import GuardedRoute


async def list_users(
    request: Request,
    response: Response,
    principal: UserManage,
    services: AllServices,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> list[UserDetail]:
    """List the tenant's users, oldest first."""
    page = await services.users.list_users(tenant_id=principal.tenant_id, limit=limit, cursor=cursor)
    link_to_next(request, response, page.next_cursor)
    return page.items


async def create_user(order: NewUser, principal: UserManage, services: AllServices) -> UserDetail:
    """Create a user with at most the caller's permissions; the caller's credential must not be limited or expire."""
    return await services.users.create_user(order, grantor=grantor_of(principal))


async def change_user(
    principal: UserManage, guid: UserGuidInPath, change: UserChange, services: AllServices
) -> UserDetail:
    """Change password, role or status; a new password ends every existing sign-in."""
    return await services.users.change_user(guid, change, grantor=grantor_of(principal))


async def delete_user(principal: UserManage, guid: UserGuidInPath, services: AllServices) -> None:
    """Delete a user; the images they generated stay with the tenant."""
    await services.users.delete_user(guid, grantor=grantor_of(principal))


def user_router() -> APIRouter:
    """Return the router of the user resource."""
    router = APIRouter(prefix="/user", tags=[Tag.IDENTITY], route_class=GuardedRoute)
    router.get("", responses=LIST_RESPONSES | problems(400, 401, 403, 422, 429, 503))(list_users)
    router.post("", status_code=201, responses=problems(400, 401, 403, 409, 413, 422, 429, 503))(create_user)
    router.patch("/{guid}", responses=problems(400, 401, 403, 404, 413, 422, 429, 503))(change_user)
    router.delete("/{guid}", status_code=204, response_class=Response, responses=problems(401, 403, 404, 429, 503))(
        delete_user
    )
    return router
