"""The caller's own identity, limits and usage."""

from typing import Annotated

from fastapi import APIRouter, Query

from pixyproxy.core.models.base import Day, FrozenModel
from pixyproxy.core.models.budget import BudgetDetail
from pixyproxy.core.models.generation import UsageRow
from pixyproxy.core.models.principal import Principal, Scope, SubjectType
from pixyproxy.core.models.tenant import TenantGuid
from pixyproxy.web.auth.policies import AnyCaller, UsageRead
from pixyproxy.web.dependencies import AllServices, Limits
from pixyproxy.web.openapi import Tag, problems
from pixyproxy.web.rate_limits.buckets import RemainingLimit
from pixyproxy.web.rate_limits.guarded_route import GuardedRoute


class OwnTenant(FrozenModel):
    """The caller's tenant."""

    guid: TenantGuid
    name: str


class Me(FrozenModel):
    """The principal of a credential; `limits` and `budget` include what is currently left."""

    tenant: OwnTenant
    subject: str
    subject_type: SubjectType
    scopes: list[Scope]
    allowed_models: list[str] | None
    limits: list[RemainingLimit]
    budget: BudgetDetail


async def get_me(principal: AnyCaller, limits: Limits, services: AllServices) -> Me:
    """Return the credential's tenant, subject, scopes, limits and budget, and what is left of them."""
    budget = await services.operations.budget(tenant_id=principal.tenant_id)
    return _me(principal, list(limits.images.remaining(principal)), budget)


async def get_usage(
    principal: UsageRead,
    services: AllServices,
    since: Annotated[Day | None, Query(description="First day (UTC). Defaults to the first of this month.")] = None,
    until: Annotated[Day | None, Query(description="Last day (UTC), inclusive. Defaults to today.")] = None,
) -> list[UsageRow]:
    """Return how many pictures the tenant generated and what they cost, by day, model and subject."""
    return await services.operations.usage(tenant_id=principal.tenant_id, since=since, until=until)


def _me(principal: Principal, remaining: list[RemainingLimit], budget: BudgetDetail) -> Me:
    return Me(
        tenant=OwnTenant(guid=principal.tenant_guid, name=principal.tenant_name),
        subject=principal.subject,
        subject_type=principal.subject_type,
        scopes=sorted(principal.scopes),
        allowed_models=None if principal.allowed_models is None else sorted(principal.allowed_models),
        limits=remaining,
        budget=budget,
    )


def account_router() -> APIRouter:
    """Return the router of the caller's own resources."""
    router = APIRouter(tags=[Tag.IDENTITY], route_class=GuardedRoute)
    router.get("/me", responses=problems(401, 403, 429, 503))(get_me)
    router.get("/usage", responses=problems(401, 403, 414, 422, 429, 503))(get_usage)
    return router
