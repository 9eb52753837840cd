"""Whether this process lives, and whether it can serve."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.web.dependencies import AllServices, Limits
from pixyproxy.web.openapi import Tag, problems
from pixyproxy.web.rate_limits.limits import PROBE


class Health(FrozenModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Health):
    """The process can serve; where Redis is to count for all processes, ``limits`` tells whether it does."""

    limits: Annotated[
        Literal["shared", "local"] | None,
        Field(description="`shared` where Redis holds the limits, `local` while it is lost; null without Redis."),
    ] = None


async def healthz() -> Health:
    """The process is alive. Nothing else is asked, so no outage of another part shows here."""
    return Health()


async def readyz(services: AllServices, limits: Limits) -> Readiness:
    """The database answers and pictures can be stored. Without Redis nothing is refused: limits hold per process.

    Answers within 2 s, whatever hangs.
    """
    await services.readiness.require_ready()
    return Readiness(limits=limits.counters.held)


def health_router() -> APIRouter:
    """The resources that a supervisor asks."""
    router = APIRouter(tags=[Tag.HEALTH], dependencies=[PROBE])
    router.get("/healthz", responses=problems(429))(healthz)
    router.get("/readyz", responses=problems(429, 503, 507))(readyz)
    return router
