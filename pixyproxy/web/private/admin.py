"""Server administration: tenants, tokens for them, the audit log and generations of unknown outcome."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.requests import Request

from pixyproxy.core.models.audit import AuditEntry, AuditFilter
from pixyproxy.core.models.generation import GenerationStatus, Resolution, UnresolvedGeneration
from pixyproxy.core.models.tenant import NewTenant, TenantChange, TenantDetail
from pixyproxy.core.models.token import TokenOrder, TokenResponse
from pixyproxy.service.private.identity.grants import grantor_of
from pixyproxy.service.private.identity.tenants import tenant_detail
from pixyproxy.web.auth.policies import Operator
from pixyproxy.web.dependencies import AllServices, Cursor, GenerationGuidInPath, Limit, TenantGuidInPath
from pixyproxy.web.openapi import LIST_RESPONSES, Tag, problems
from pixyproxy.web.presentation import link_to_next
from pixyproxy.web.rate_limits.guarded_route import GuardedRoute


class AuditQuery(AuditFilter):
    """The query of the audit log: filter and page."""

    limit: Limit = 20
    cursor: Cursor = None


async def list_tenants(_operator: Operator, services: AllServices) -> list[TenantDetail]:
    """List all tenants, oldest first."""
    return await services.tenants.list_tenants()


async def create_tenant(
    response: Response, order: NewTenant, operator: Operator, services: AllServices
) -> TenantDetail:
    """Create a tenant."""
    tenant = await services.tenants.create_tenant(order, actor=operator.actor)
    response.headers["Location"] = f"/admin/tenant/{tenant.guid}"
    return tenant_detail(tenant)


async def get_tenant(_operator: Operator, guid: TenantGuidInPath, services: AllServices) -> TenantDetail:
    """Return one tenant."""
    return tenant_detail(await services.tenants.require_tenant(guid))


async def change_tenant(
    operator: Operator, guid: TenantGuidInPath, change: TenantChange, services: AllServices
) -> TenantDetail:
    """Change the given fields; null removes a limit. A suspended tenant can do nothing, and its images are hidden."""
    return tenant_detail(await services.tenants.change_tenant(guid, change, actor=operator.actor))


async def delete_tenant(operator: Operator, guid: TenantGuidInPath, services: AllServices) -> None:
    """Delete a tenant permanently with its images, keys, users and tokens. Its audit entries remain."""
    await services.tenants.delete_tenant(guid, actor=operator.actor)


async def issue_tenant_token(order: TokenOrder, operator: Operator, services: AllServices) -> TokenResponse:
    """Issue an access token for a tenant, limited to the caller's scopes and expiry."""
    issued = await services.tokens.issue_for_tenant(order, grantor=grantor_of(operator))
    return issued.as_response()


async def list_audit_entries(
    request: Request,
    response: Response,
    _operator: Operator,
    query: Annotated[AuditQuery, Query()],
    services: AllServices,
) -> list[AuditEntry]:
    """List the audit log, newest first: actor, action, target and address."""
    wanted = AuditFilter.model_validate(query.model_dump(include=set(AuditFilter.model_fields)))
    page = await services.audit.list_entries(wanted, limit=query.limit, cursor=query.cursor)
    link_to_next(request, response, page.next_cursor)
    return page.entries


async def list_generations(
    _operator: Operator,
    services: AllServices,
    status: Annotated[GenerationStatus, Query(description="`unknown` lists the generations to resolve.")],
    limit: Limit = 20,
) -> list[UnresolvedGeneration]:
    """List the newest generations of all tenants with a status."""
    return await services.operations.list_generations(status, limit=limit)


async def resolve_generation(
    operator: Operator, guid: GenerationGuidInPath, resolution: Resolution, services: AllServices
) -> UnresolvedGeneration:
    """Record whether an unknown generation was paid for; if not, its Idempotency-Key can be used again."""
    return await services.operations.resolve_generation(guid, resolution, actor=operator.actor)


def admin_router() -> APIRouter:
    """Return the router for operators."""
    router = APIRouter(prefix="/admin", tags=[Tag.ADMINISTRATION], route_class=GuardedRoute)
    router.get("/tenant", responses=problems(401, 403, 429, 503))(list_tenants)
    router.post("/tenant", status_code=201, responses=problems(400, 401, 403, 409, 413, 422, 429, 503))(create_tenant)
    router.get("/tenant/{guid}", responses=problems(401, 403, 404, 429, 503))(get_tenant)
    router.patch("/tenant/{guid}", responses=problems(400, 401, 403, 404, 409, 413, 422, 429, 503))(change_tenant)
    router.delete(
        "/tenant/{guid}",
        status_code=204,
        response_class=Response,
        responses=problems(401, 403, 404, 409, 429, 503),
    )(delete_tenant)
    router.post("/token", status_code=201, responses=problems(400, 401, 403, 404, 413, 422, 429, 503))(
        issue_tenant_token
    )
    router.get("/audit", responses=LIST_RESPONSES | problems(400, 401, 403, 414, 422, 429, 503))(list_audit_entries)
    router.get("/generation", responses=problems(401, 403, 414, 422, 429, 503))(list_generations)
    router.post("/generation/{guid}/resolve", responses=problems(400, 401, 403, 404, 409, 413, 422, 429, 503))(
        resolve_generation
    )
    return router
