"""Whether this process lives, and whether it can serve."""

from typing import Literal

from fastapi import APIRouter

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.web.dependencies import AllServices
from pixyproxy.web.openapi import problems


class Health(FrozenModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


async def healthz() -> Health:
    """The process is alive. Nothing else is asked, so no outage of another part shows here."""
    return Health()


async def readyz(services: AllServices) -> Health:
    """The database answers and pictures can be stored."""
    await services.database.ping()
    await services.store.check()
    return Health()


def health_router() -> APIRouter:
    """The resources that a supervisor asks."""
    router = APIRouter(tags=["around it"])
    router.get("/healthz")(healthz)
    router.get("/readyz", responses=problems(503, 507))(readyz)
    return router
