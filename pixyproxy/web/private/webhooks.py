"""The tenant's webhooks."""

from fastapi import APIRouter, Response

from pixyproxy.core.models.api_key import Rotation
from pixyproxy.core.models.webhook import DeliveryDetail, IssuedWebhook, NewWebhook, WebhookDetail, WebhookWithSecret
from pixyproxy.service.private.identity.grants import grantor_of
from pixyproxy.web.auth.policies import KeyManage
from pixyproxy.web.dependencies import AllServices, WebhookGuidInPath
from pixyproxy.web.openapi import Tag, problems
from pixyproxy.web.rate_limits.guarded_route import GuardedRoute


async def list_webhooks(principal: KeyManage, services: AllServices) -> list[WebhookDetail]:
    """List the tenant's webhooks, oldest first, including disabled ones; secrets are never returned."""
    return await services.webhooks.list_webhooks(tenant_id=principal.tenant_id)


async def create_webhook(order: NewWebhook, principal: KeyManage, services: AllServices) -> WebhookWithSecret:
    """Post events to a URL, signed according to Standard Webhooks; `secret` is shown only once.

    The caller's credential must not expire, because a webhook does not.
    """
    issued = await services.webhooks.create_webhook(order, grantor=grantor_of(principal))
    return _with_secret(issued)


async def rotate_webhook(
    principal: KeyManage, guid: WebhookGuidInPath, services: AllServices, rotation: Rotation | None = None
) -> WebhookWithSecret:
    """Give a webhook a new secret, shown only once; the old one also signs for `grace_seconds`."""
    issued = await services.webhooks.rotate_webhook(guid, rotation or Rotation(), grantor=grantor_of(principal))
    return _with_secret(issued)


async def delete_webhook(principal: KeyManage, guid: WebhookGuidInPath, services: AllServices) -> None:
    """Delete a webhook and its pending deliveries."""
    await services.webhooks.delete_webhook(guid, grantor=grantor_of(principal))


async def list_deliveries(principal: KeyManage, guid: WebhookGuidInPath, services: AllServices) -> list[DeliveryDetail]:
    """List the newest 100 deliveries to a webhook within the last 30 days, newest first."""
    return await services.webhooks.list_deliveries(guid, tenant_id=principal.tenant_id)


def _with_secret(issued: IssuedWebhook) -> WebhookWithSecret:
    return WebhookWithSecret(**issued.detail.model_dump(), secret=issued.secret.get_secret_value())


def webhook_router() -> APIRouter:
    """Return the router of the webhook resource."""
    router = APIRouter(prefix="/webhook", tags=[Tag.WEBHOOKS], route_class=GuardedRoute)
    read, changed = problems(401, 403, 404, 429, 503), problems(400, 401, 403, 404, 413, 422, 429, 503)
    router.get("", responses=problems(401, 403, 429, 503))(list_webhooks)
    router.post("", status_code=201, responses=problems(400, 401, 403, 409, 413, 422, 429, 503))(create_webhook)
    router.get("/{guid}/delivery", responses=read)(list_deliveries)
    router.post("/{guid}/rotate", responses=changed)(rotate_webhook)
    router.delete("/{guid}", status_code=204, response_class=Response, responses=read)(delete_webhook)
    return router
