"""Webhooks: creation, rotation, deletion, events and signatures."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    DatabaseException,
    InvalidRequestException,
    WebhookLimitException,
    WebhookNotFoundException,
    WebhookTargetException,
)
from pixyproxy.core.models.api_key import Rotation
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.generation import GenerationStatus
from pixyproxy.core.models.tenant import Tenant, TenantId
from pixyproxy.core.models.webhook import (
    MOST_WEBHOOKS,
    IssuedWebhook,
    NewWebhook,
    StoredDelivery,
    StoredWebhook,
    WebhookEvent,
)
from pixyproxy.data.database import Repositories
from pixyproxy.service.private.guarded_http import open_guarded_http_client
from pixyproxy.service.private.webhooks.subscriptions import EVENTS, WebhookSecrets, WebhookService, enqueue
from tests.service.private.identities import Identity, grantor_of
from tests.support.builders import new_guid
from tests.support.webhook_receiver import new_delivery, new_outcome, new_webhook

pytestmark = pytest.mark.anyio
URL = "https://93.184.216.34/hook?token=secret"
"""An IP address, so that no name server is called; nothing is posted here."""


@pytest.fixture
async def webhooks(identity: Identity) -> AsyncIterator[WebhookService]:
    """Yield the service under test."""
    targets = open_guarded_http_client(())
    yield WebhookService(
        database=identity.database, secrets=WebhookSecrets(SecretStr("the server's own")), targets=targets
    )
    await targets.close()


async def _create(webhooks: WebhookService, tenant: Tenant, *events: WebhookEvent) -> IssuedWebhook:
    order = NewWebhook(url=URL, events=frozenset(events or WebhookEvent))
    return await webhooks.create_webhook(order, grantor=grantor_of(tenant))


async def _stored(webhooks: WebhookService, tenant: Tenant, guid: str) -> StoredWebhook:
    found = await webhooks.database.read(lambda data: data.webhooks.get_own(guid, tenant_id=tenant.id))
    assert found is not None
    return found


def _key(secret: SecretStr) -> bytes:
    prefix, encoded = secret.get_secret_value().split("_")
    assert prefix == "whsec"
    return base64.b64decode(encoded, validate=True)


async def test_webhook_is_created_as_requested(webhooks: WebhookService, tenant: Tenant, stranger: Tenant) -> None:
    issued = await _create(webhooks, tenant, WebhookEvent.GENERATION_FAILED)
    assert (issued.detail.url, issued.detail.events) == (URL, frozenset({WebhookEvent.GENERATION_FAILED}))
    assert await webhooks.list_webhooks(tenant_id=tenant.id) == [issued.detail]
    assert await webhooks.list_webhooks(tenant_id=stranger.id) == []


async def test_each_secret_has_256_unique_bits_and_is_not_stored(webhooks: WebhookService, tenant: Tenant) -> None:
    issued = [await _create(webhooks, tenant) for _ in range(3)]
    assert [len(_key(each.secret)) for each in issued] == [32] * 3
    assert len({each.secret.get_secret_value() for each in issued}) == 3
    stored = await _stored(webhooks, tenant, issued[0].detail.guid)
    assert issued[0].secret.get_secret_value()[6:] not in repr(stored) + repr(issued) + repr(webhooks)


async def test_another_server_secret_gives_other_webhook_secrets(webhooks: WebhookService, tenant: Tenant) -> None:
    issued = await _create(webhooks, tenant)
    other = WebhookSecrets(SecretStr("another"))
    assert other.secret_of(issued.detail.guid, 1) != webhooks.secrets.secret_of(issued.detail.guid, 1) == issued.secret


@pytest.mark.parametrize("url", ["http://93.184.216.34/", "https://127.0.0.1/", "nonsense"])
async def test_forbidden_target_is_rejected(
    webhooks: WebhookService, identity: Identity, tenant: Tenant, url: str
) -> None:
    with pytest.raises(WebhookTargetException):
        await webhooks.create_webhook(NewWebhook(url=url), grantor=grantor_of(tenant))
    assert await webhooks.list_webhooks(tenant_id=tenant.id) == []
    assert await identity.entries() == []


async def test_unvalidated_input_is_rejected(webhooks: WebhookService, tenant: Tenant) -> None:
    order = NewWebhook.model_construct(url=URL, events=frozenset())
    with pytest.raises(InvalidRequestException):
        await webhooks.create_webhook(order, grantor=grantor_of(tenant))


async def test_concurrent_creation_respects_the_webhook_limit(
    webhooks: WebhookService, tenant: Tenant, stranger: Tenant
) -> None:
    made = await asyncio.gather(*(_create(webhooks, tenant) for _ in range(MOST_WEBHOOKS + 4)), return_exceptions=True)
    refused = [each for each in made if isinstance(each, WebhookLimitException)]
    assert len(refused) == 4
    assert len(await webhooks.list_webhooks(tenant_id=tenant.id)) == MOST_WEBHOOKS
    assert await _create(webhooks, stranger)


async def test_webhook_of_another_tenant_looks_missing(
    webhooks: WebhookService, tenant: Tenant, stranger: Tenant
) -> None:
    issued = await _create(webhooks, tenant)
    told = set()
    for guid in (issued.detail.guid, new_guid()):
        for act in (
            webhooks.rotate_webhook(guid, Rotation(), grantor=grantor_of(stranger)),
            webhooks.delete_webhook(guid, grantor=grantor_of(stranger)),
            webhooks.list_deliveries(guid, tenant_id=stranger.id),
        ):
            with pytest.raises(WebhookNotFoundException) as caught:
                await act
            told.add((str(caught.value), str(caught.value.context)))
    assert len(told) == 1
    assert await webhooks.list_webhooks(tenant_id=tenant.id) == [issued.detail]


def _verifies(secret: str, payload: str, headers: dict[str, str]) -> bool:
    """Return whether the standard's own library verifies and reads a payload with a secret."""
    try:
        return bool(Webhook(secret).verify(payload, headers) == json.loads(payload))
    except WebhookVerificationError:
        return False


async def test_both_secrets_verify_only_within_the_grace_period(webhooks: WebhookService, tenant: Tenant) -> None:
    issued = await _create(webhooks, tenant)
    guid, now = issued.detail.guid, clock.now()
    secrets = [issued.secret.get_secret_value()]
    for _ in range(2):
        rotated = await webhooks.rotate_webhook(guid, Rotation(grace_seconds=60), grantor=grantor_of(tenant))
        secrets.append(rotated.secret.get_secret_value())
    assert len(set(secrets)) == 3
    webhook = await _stored(webhooks, tenant, guid)
    delivery = new_delivery(webhook)
    for seconds, verifying in ((0, secrets[1:]), (120, secrets[2:])):
        at = now + timedelta(seconds=seconds)
        headers = {
            "webhook-id": delivery.guid,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": webhooks.secrets.signatures(webhook, delivery, at=at),
        }
        assert headers["webhook-signature"].count("v1,") == len(verifying)
        assert [secret for secret in secrets if _verifies(secret, delivery.payload, headers)] == verifying


async def test_rotation_without_grace_drops_the_former_secret_at_once(webhooks: WebhookService, tenant: Tenant) -> None:
    issued = await _create(webhooks, tenant)
    rotated = await webhooks.rotate_webhook(issued.detail.guid, Rotation(grace_seconds=0), grantor=grantor_of(tenant))
    webhook = await _stored(webhooks, tenant, issued.detail.guid)
    assert " " not in webhooks.secrets.signatures(webhook, new_delivery(webhook), at=clock.now())
    assert rotated.detail == issued.detail.model_copy(
        update={"former_secret_until": rotated.detail.former_secret_until}
    )


def test_signature_follows_the_standard() -> None:
    """HMAC-SHA256 of ``id.timestamp.body``, computed independently, so that later versions stay compatible."""
    secrets = WebhookSecrets(SecretStr("server"))
    webhook = new_webhook(TenantId(1), guid="5f0c7d1e-0000-4000-8000-000000000001")
    delivery = new_delivery(webhook, guid="5f0c7d1e-0000-4000-8000-000000000002", payload='{"a":"🦊"}')
    assert secrets.secret_of(webhook.guid, 1).get_secret_value() == "whsec_e5J+0p8T15PyMeaq7utB31dd5EnvyYVLczY5JrETEHo="
    assert (
        secrets.signatures(webhook, delivery, at=delivery.created_at)
        == "v1,tNTe/zgZqg/A2TkFuEZMWBRVkLzw+ZbtQ80JfYdZFhI="
    )


async def test_every_change_is_audited_without_secrets(
    webhooks: WebhookService, identity: Identity, tenant: Tenant
) -> None:
    issued = await _create(webhooks, tenant)
    await webhooks.rotate_webhook(issued.detail.guid, Rotation(), grantor=grantor_of(tenant))
    await webhooks.delete_webhook(issued.detail.guid, grantor=grantor_of(tenant))
    entries = await identity.entries()
    actions = [AuditAction.WEBHOOK_DELETED, AuditAction.WEBHOOK_ROTATED, AuditAction.WEBHOOK_CREATED]
    assert [entry.action for entry in entries] == actions
    assert {(entry.target, entry.tenant_guid) for entry in entries} == {(issued.detail.guid, tenant.guid)}
    assert entries[0].details == {"host": "93.184.216.34", "events": "generation.failed generation.stored"}


async def test_change_without_audit_is_rolled_back(
    webhooks: WebhookService, identity: Identity, tenant: Tenant
) -> None:
    issued = await _create(webhooks, tenant)
    await identity.break_audit_log()
    for act in (
        _create(webhooks, tenant),
        webhooks.rotate_webhook(issued.detail.guid, Rotation(), grantor=grantor_of(tenant)),
        webhooks.delete_webhook(issued.detail.guid, grantor=grantor_of(tenant)),
    ):
        with pytest.raises(DatabaseException):
            await act
    assert await webhooks.list_webhooks(tenant_id=tenant.id) == [issued.detail]


async def _enqueued(webhooks: WebhookService, tenant: Tenant, webhook: IssuedWebhook) -> list[StoredDelivery]:
    guid = webhook.detail.guid
    return await webhooks.database.read(
        lambda data: data.webhook_deliveries.list_of_webhook(guid, tenant_id=tenant.id, limit=100)
    )


async def test_event_is_enqueued_for_each_subscribed_webhook(
    webhooks: WebhookService, tenant: Tenant, stranger: Tenant
) -> None:
    both = await _create(webhooks, tenant)
    failed = await _create(webhooks, tenant, WebhookEvent.GENERATION_FAILED)
    other = await _create(webhooks, stranger)
    image = new_guid()
    outcome = new_outcome(tenant.id, images=[image])
    await webhooks.database.write(lambda data: enqueue(data, outcome))
    (delivery,) = await _enqueued(webhooks, tenant, both)
    assert json.loads(delivery.payload) == {
        "type": "generation.stored",
        "timestamp": "2026-11-21T09:15:02Z",
        "data": {
            "generation": outcome.guid,
            "status": "stored",
            "prompt": outcome.prompt,
            "images": [{"guid": image, "content_url": f"/image/{image}/content"}],
            "error": None,
        },
    }
    assert await _enqueued(webhooks, tenant, failed) == await _enqueued(webhooks, stranger, other) == []


async def test_failure_event_has_its_error_code(webhooks: WebhookService, tenant: Tenant) -> None:
    failed = await _create(webhooks, tenant, WebhookEvent.GENERATION_FAILED)
    outcome = new_outcome(tenant.id, GenerationStatus.FAILED, error="prompt_refused")
    await webhooks.database.write(lambda data: enqueue(data, outcome))
    (delivery,) = await _enqueued(webhooks, tenant, failed)
    told = json.loads(delivery.payload)
    assert (told["type"], told["data"]["error"], told["data"]["images"]) == ("generation.failed", "prompt_refused", [])


@pytest.mark.parametrize("status", sorted(set(GenerationStatus) - set(EVENTS)))
async def test_open_or_unknown_outcome_enqueues_nothing(
    webhooks: WebhookService, tenant: Tenant, status: GenerationStatus
) -> None:
    webhook = await _create(webhooks, tenant)
    await webhooks.database.write(lambda data: enqueue(data, new_outcome(tenant.id, status)))
    assert await _enqueued(webhooks, tenant, webhook) == []


async def test_rolled_back_outcome_enqueues_nothing(webhooks: WebhookService, tenant: Tenant) -> None:
    webhook = await _create(webhooks, tenant)

    def fail(data: Repositories) -> None:
        enqueue(data, new_outcome(tenant.id))
        raise WebhookLimitException

    with pytest.raises(WebhookLimitException):
        await webhooks.database.write(fail)
    assert await _enqueued(webhooks, tenant, webhook) == []


async def test_deleting_a_webhook_deletes_its_deliveries(webhooks: WebhookService, tenant: Tenant) -> None:
    deleted, kept = await _create(webhooks, tenant), await _create(webhooks, tenant)
    await webhooks.database.write(lambda data: enqueue(data, new_outcome(tenant.id)))
    await webhooks.delete_webhook(deleted.detail.guid, grantor=grantor_of(tenant))
    assert await webhooks.list_webhooks(tenant_id=tenant.id) == [kept.detail]
    assert await _enqueued(webhooks, tenant, deleted) == []
    (listed,) = await webhooks.list_deliveries(kept.detail.guid, tenant_id=tenant.id)
    assert (listed.status, listed.attempts, listed.event) == ("pending", 0, "generation.stored")


async def test_removing_a_tenant_deletes_its_webhooks(
    webhooks: WebhookService, identity: Identity, tenant: Tenant
) -> None:
    await _create(webhooks, tenant)
    await webhooks.database.write(lambda data: enqueue(data, new_outcome(tenant.id)))
    await identity.removal.remove(tenant)
    assert [await identity.count(table) for table in ("webhooks", "webhook_deliveries", "tenants")] == [0, 0, 0]
