"""Liveness and readiness of this process."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.web.dependencies import AllServices, Limits
from pixyproxy.web.openapi import Tag, problems
from pixyproxy.web.rate_limits.limits import PROBE


class Health(FrozenModel):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(Health):
    """The process can serve; ``limits`` says whether Redis counts the limits for all processes."""

    limits: Annotated[
        Literal["shared", "local"] | None,
        Field(description="`shared` if Redis holds the limits, `local` while it is unavailable; null without Redis."),
    ] = None


async def healthz() -> Health:
    """Confirm that the process is alive. Nothing else is checked, so outages of other components do not show."""
    return Health()


async def readyz(services: AllServices, limits: Limits) -> Readiness:
    """Confirm that the database responds and pictures can be stored. Without Redis, limits hold per process.

    Responds within 2 s, even if a component hangs.
    """
    await services.readiness.require_ready()
    return Readiness(limits=limits.counters.held)


def health_router() -> APIRouter:
    """Return the router of the health checks."""
    router = APIRouter(tags=[Tag.HEALTH], dependencies=[PROBE])
    router.get("/healthz", responses=problems(429))(healthz)
    router.get("/readyz", responses=problems(429, 503, 507))(readyz)
    return router
