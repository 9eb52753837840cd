"""Create, list, rotate and delete webhooks, and enqueue their events.

Secrets and signatures follow Standard Webhooks (https://www.standardwebhooks.com).
"""

import base64
import hashlib
import hmac
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import WebhookLimitException, WebhookNotFoundException
from pixyproxy.core.models.api_key import Rotation
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.generation import GenerationGuid, GenerationStatus
from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.webhook import (
    MOST_WEBHOOKS,
    DeliveryDetail,
    DeliveryGuid,
    DeliveryStatus,
    GenerationOutcome,
    IssuedWebhook,
    NewWebhook,
    StoredDelivery,
    StoredWebhook,
    WebhookDetail,
    WebhookEvent,
    WebhookGuid,
)
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.private import audit
from pixyproxy.service.private.guarded_http import GuardedHttpClient
from pixyproxy.service.private.identity.grants import Grantor
from pixyproxy.service.revalidation import revalidate

LISTED_DELIVERIES = 100
PREFIX = "whsec_"
EVENTS = {
    GenerationStatus.STORED: WebhookEvent.GENERATION_STORED,
    GenerationStatus.FAILED: WebhookEvent.GENERATION_FAILED,
    GenerationStatus.CANCELLED: WebhookEvent.GENERATION_FAILED,
}


@dataclass(frozen=True)
class WebhookSecrets:
    """The secrets of all webhooks, derived from the server's secret, so that the database holds none."""

    server_secret: SecretStr

    def secret_of(self, guid: WebhookGuid, version: int) -> SecretStr:
        """Return the secret of one version of a webhook: ``whsec_`` and 256 bits in base64."""
        return SecretStr(PREFIX + base64.b64encode(self._key(guid, version)).decode())

    def signatures(self, webhook: StoredWebhook, delivery: StoredDelivery, *, at: datetime) -> str:
        """Return the ``webhook-signature`` by the webhook's secret, and during its grace period by the former one."""
        in_grace = webhook.former_secret_until is not None and at < webhook.former_secret_until
        versions = [webhook.version, webhook.version - 1] if in_grace else [webhook.version]
        signed = f"{delivery.guid}.{int(at.timestamp())}.{delivery.payload}".encode()
        return " ".join(f"v1,{_base64_hmac(self._key(webhook.guid, version), signed)}" for version in versions)

    def _key(self, guid: WebhookGuid, version: int) -> bytes:
        secret = self.server_secret.get_secret_value().encode()
        return hmac.digest(secret, f"webhook:{guid}:{version}".encode(), hashlib.sha256)


@dataclass(frozen=True)
class WebhookService:
    """Manages the webhooks of tenants; every change writes an audit entry in its own transaction."""

    database: Database
    secrets: WebhookSecrets
    targets: GuardedHttpClient

    async def create_webhook(self, incoming: NewWebhook, *, grantor: Grantor) -> IssuedWebhook:
        """Create a webhook of the tenant; its secret is returned only here.

        It reports private pictures, so the credential must be permitted to see them; and it does not expire, so the
        credential must not expire either. Raise ``GrantException``, ``WebhookTargetException`` for a URL that the SSRF
        guard rejects, and ``WebhookLimitException``.
        """
        order = revalidate(incoming)
        grantor.require_scopes({Scope.IMAGE_READ})
        grantor.require_lifetime(None)
        await self.targets.check(order.url, tenant_id=grantor.tenant_id)
        webhook = StoredWebhook(
            guid=WebhookGuid(str(uuid.uuid4())),
            tenant_id=grantor.tenant_id,
            url=order.url,
            events=order.events,
            version=1,
            former_secret_until=None,
            created_at=clock.now(),
            disabled_at=None,
        )

        def insert(data: Repositories) -> None:
            if len(data.webhooks.lock_all(tenant_id=grantor.tenant_id)) >= MOST_WEBHOOKS:
                raise WebhookLimitException(context={"limit": str(MOST_WEBHOOKS)})
            data.webhooks.insert(webhook)
            _audit(data, AuditAction.WEBHOOK_CREATED, webhook, grantor)

        await self.database.write(insert)
        return self._issued(webhook)

    async def list_webhooks(self, *, tenant_id: TenantId) -> list[WebhookDetail]:
        """Return the tenant's webhooks, oldest first, disabled ones included."""
        found = await self.database.read(lambda data: data.webhooks.list_of_tenant(tenant_id=tenant_id))
        return [_detail(webhook) for webhook in found]

    async def rotate_webhook(self, guid: str, incoming: Rotation, *, grantor: Grantor) -> IssuedWebhook:
        """Create a new secret for a webhook; the former one also signs during the grace period.

        Another rotation in that time drops the oldest secret. Raise ``WebhookNotFoundException``, and
        ``GrantException`` for a credential that expires, since the secret does not.
        """
        rotation = revalidate(incoming)
        grantor.require_lifetime(None)

        def rotate(data: Repositories) -> StoredWebhook:
            webhook = _require_own(data, guid, grantor)
            until = clock.now() + timedelta(seconds=rotation.grace_seconds)
            rotated = webhook.model_copy(update={"version": webhook.version + 1, "former_secret_until": until})
            data.webhooks.rotate(rotated, tenant_id=grantor.tenant_id)
            _audit(data, AuditAction.WEBHOOK_ROTATED, rotated, grantor)
            return rotated

        return self._issued(await self.database.write(rotate))

    async def delete_webhook(self, guid: str, *, grantor: Grantor) -> None:
        """Delete a webhook and its pending deliveries. Raise ``WebhookNotFoundException``."""

        def delete(data: Repositories) -> None:
            webhook = _require_own(data, guid, grantor)
            data.webhook_deliveries.delete_of_webhook(guid, tenant_id=grantor.tenant_id)
            data.webhooks.delete(guid, tenant_id=grantor.tenant_id)
            _audit(data, AuditAction.WEBHOOK_DELETED, webhook, grantor)

        await self.database.write(delete)

    async def list_deliveries(self, guid: str, *, tenant_id: TenantId) -> list[DeliveryDetail]:
        """Return the newest deliveries to a webhook, newest first. Raise ``WebhookNotFoundException``."""

        def find(data: Repositories) -> list[StoredDelivery]:
            if data.webhooks.get_own(guid, tenant_id=tenant_id) is None:
                raise WebhookNotFoundException
            return data.webhook_deliveries.list_of_webhook(guid, tenant_id=tenant_id, limit=LISTED_DELIVERIES)

        found = await self.database.read(find)
        return [DeliveryDetail(**each.model_dump(include=set(DeliveryDetail.model_fields))) for each in found]

    def _issued(self, webhook: StoredWebhook) -> IssuedWebhook:
        return IssuedWebhook(detail=_detail(webhook), secret=self.secrets.secret_of(webhook.guid, webhook.version))


def enqueue(data: Repositories, outcome: GenerationOutcome) -> None:
    """Enqueue an event for the tenant's webhooks, in the transaction that settles the generation.

    It is delivered if and only if that commits. A status that is not an event is skipped; for a tenant without webhooks
    this costs one index look-up.
    """
    event = EVENTS.get(outcome.status)
    if event is None:
        return
    for webhook in data.webhooks.list_subscribed(event, tenant_id=outcome.tenant_id):
        data.webhook_deliveries.insert(
            StoredDelivery(
                guid=DeliveryGuid(str(uuid.uuid4())),
                tenant_id=outcome.tenant_id,
                webhook_guid=webhook.guid,
                event=event,
                payload=payload_of(outcome, event),
                status=DeliveryStatus.PENDING,
                attempts=0,
                created_at=outcome.at,
                next_attempt_at=outcome.at,
                response_status=None,
                problem=None,
                finished_at=None,
            )
        )


def erase_prompt(data: Repositories, generation: GenerationGuid, *, tenant_id: TenantId) -> None:
    """Erase a generation's prompt from the tenant's pending deliveries."""
    for delivery in data.webhook_deliveries.list_pending(generation, tenant_id=tenant_id):
        payload = json.loads(delivery.payload)
        payload["data"]["prompt"] = ""
        data.webhook_deliveries.replace_payload(delivery, _to_json(payload), tenant_id=tenant_id)


def payload_of(outcome: GenerationOutcome, event: WebhookEvent) -> str:
    """Return the JSON body for a generation; its paths are this server's."""
    told = {
        "generation": outcome.guid,
        "status": outcome.status,
        "prompt": outcome.prompt,
        "images": [{"guid": guid, "content_url": f"/image/{guid}/content"} for guid in outcome.images],
        "error": outcome.error,
    }
    timestamp = outcome.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _to_json({"type": event, "timestamp": timestamp, "data": told})


def _to_json(payload: dict[str, Any]) -> str:
    return json.dumps(payload, ensure_ascii=False)


def _base64_hmac(key: bytes, content: bytes) -> str:
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def _require_own(data: Repositories, guid: str, grantor: Grantor) -> StoredWebhook:
    webhook = data.webhooks.lock_own(guid, tenant_id=grantor.tenant_id)
    if webhook is None:
        raise WebhookNotFoundException
    return webhook


def _audit(data: Repositories, action: AuditAction, webhook: StoredWebhook, grantor: Grantor) -> None:
    # The rest of the URL may contain the receiver's credential.
    details = {"host": httpx2.URL(webhook.url).host, "events": " ".join(sorted(webhook.events))}
    data.audit_log.append(
        audit.entry(grantor.actor, action, tenant_guid=grantor.tenant_guid, target=webhook.guid, details=details)
    )


def _detail(webhook: StoredWebhook) -> WebhookDetail:
    return WebhookDetail(**webhook.model_dump(include=set(WebhookDetail.model_fields)))
