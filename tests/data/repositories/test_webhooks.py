"""The ``webhooks`` and ``webhook_deliveries`` repositories."""

from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.models.tenant import Tenant, TenantStatus
from pixyproxy.core.models.webhook import DeliveryStatus, StoredDelivery, StoredWebhook, WebhookEvent
from pixyproxy.data.database import Repositories
from tests.support.builders import LATER, MOMENT, new_guid
from tests.support.webhook_receiver import new_delivery, new_webhook

SECOND = timedelta(seconds=1)
STORED = WebhookEvent.GENERATION_STORED
FAILED = WebhookEvent.GENERATION_FAILED


def _add(data: Repositories, tenant: Tenant, **changes: object) -> StoredWebhook:
    webhook = new_webhook(tenant.id, **changes)
    data.webhooks.insert(webhook)
    return webhook


def _add_delivery(data: Repositories, webhook: StoredWebhook, **changes: object) -> StoredDelivery:
    delivery = new_delivery(webhook, **changes)
    data.webhook_deliveries.insert(delivery)
    return delivery


def _deliveries(data: Repositories, webhook: StoredWebhook) -> list[StoredDelivery]:
    return data.webhook_deliveries.list_of_webhook(webhook.guid, tenant_id=webhook.tenant_id, limit=100)


def test_every_column_of_a_webhook_round_trips(data: Repositories, tenant: Tenant) -> None:
    changes = {"events": [STORED], "version": 7, "former_secret_until": LATER, "disabled_at": LATER + SECOND}
    webhook = _add(data, tenant, url="https://example.com/" + "a" * 1980, **changes)
    assert data.webhooks.get_own(webhook.guid, tenant_id=tenant.id) == webhook


def test_every_column_of_a_delivery_round_trips(data: Repositories, tenant: Tenant) -> None:
    ended = {"status": "failed", "attempts": 8, "next_attempt_at": None, "response_status": 503, "finished_at": LATER}
    delivery = _add_delivery(data, new_webhook(tenant.id), payload="🦊" * 32_000, problem="timeout", **ended)
    assert _deliveries(data, new_webhook(tenant.id, guid=delivery.webhook_guid)) == [delivery]


def test_tenant_lists_its_own_webhooks_oldest_first(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    webhooks = [_add(data, tenant, disabled_at=disabled_at) for disabled_at in (None, LATER)]
    _add(data, stranger)
    assert data.webhooks.list_of_tenant(tenant_id=tenant.id) == webhooks
    assert data.webhooks.lock_all(tenant_id=tenant.id) == webhooks


def test_enabled_webhook_gets_its_events(data: Repositories, tenant: Tenant) -> None:
    both, stored = _add(data, tenant), _add(data, tenant, events=[STORED])
    _add(data, tenant, disabled_at=LATER)
    assert data.webhooks.list_subscribed(STORED, tenant_id=tenant.id) == [both, stored]
    assert data.webhooks.list_subscribed(FAILED, tenant_id=tenant.id) == [both]


def test_another_tenant_cannot_access_a_webhook(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    webhook = _add(data, tenant)
    assert data.webhooks.get_own(webhook.guid, tenant_id=stranger.id) is None
    assert data.webhooks.lock_own(webhook.guid, tenant_id=stranger.id) is None
    data.webhooks.rotate(webhook.model_copy(update={"version": 2}), tenant_id=stranger.id)
    assert not data.webhooks.disable(webhook.guid, tenant_id=stranger.id, at=LATER)
    data.webhooks.delete(webhook.guid, tenant_id=stranger.id)
    data.webhooks.delete_of_tenant(tenant_id=stranger.id)
    assert data.webhooks.lock_own(webhook.guid, tenant_id=tenant.id) == webhook


def test_rotate_changes_only_version_and_grace_period(data: Repositories, tenant: Tenant) -> None:
    webhook, other = _add(data, tenant), _add(data, tenant)
    rotated = {"version": 2, "former_secret_until": LATER}
    data.webhooks.rotate(webhook.model_copy(update={**rotated, "url": "https://x.y/"}), tenant_id=tenant.id)
    assert data.webhooks.list_of_tenant(tenant_id=tenant.id) == [webhook.model_copy(update=rotated), other]


def test_webhook_is_disabled_once(data: Repositories, tenant: Tenant) -> None:
    webhook = _add(data, tenant)
    assert data.webhooks.disable(webhook.guid, tenant_id=tenant.id, at=MOMENT)
    assert not data.webhooks.disable(webhook.guid, tenant_id=tenant.id, at=LATER)
    expected = webhook.model_copy(update={"disabled_at": MOMENT})
    assert data.webhooks.get_own(webhook.guid, tenant_id=tenant.id) == expected


def test_delete_removes_only_that_webhook(data: Repositories, tenant: Tenant) -> None:
    webhook, other = _add(data, tenant), _add(data, tenant)
    data.webhooks.delete(webhook.guid, tenant_id=tenant.id)
    assert data.webhooks.list_of_tenant(tenant_id=tenant.id) == [other]


def test_delete_of_tenant_removes_only_its_webhooks(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    gone, kept = _add(data, tenant), _add(data, stranger)
    for webhook in (gone, kept):
        _add_delivery(data, webhook)
    data.webhook_deliveries.delete_of_tenant(tenant_id=tenant.id)
    data.webhooks.delete_of_tenant(tenant_id=tenant.id)
    assert (data.webhooks.list_of_tenant(tenant_id=tenant.id), _deliveries(data, gone)) == ([], [])
    assert data.webhooks.list_of_tenant(tenant_id=stranger.id) == [kept]
    assert len(_deliveries(data, kept)) == 1


def test_delivery_guid_is_unique(data: Repositories, tenant: Tenant) -> None:
    delivery = _add_delivery(data, new_webhook(tenant.id))
    with pytest.raises(IntegrityError):
        data.webhook_deliveries.insert(delivery)


def test_delivery_to_a_deleted_webhook_is_accepted(data: Repositories, tenant: Tenant) -> None:
    """The transaction that settles a generation must not fail because a webhook is deleted concurrently."""
    delivery = _add_delivery(data, new_webhook(tenant.id))
    assert data.webhook_deliveries.list_due(tenant_id=tenant.id, at=MOMENT, limit=1) == [delivery]


def test_newest_deliveries_are_listed_first(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    webhook = _add(data, tenant)
    deliveries = [_add_delivery(data, webhook) for _ in range(3)]
    _add_delivery(data, _add(data, tenant))
    assert data.webhook_deliveries.list_of_webhook(webhook.guid, tenant_id=tenant.id, limit=2) == deliveries[:0:-1]
    assert data.webhook_deliveries.list_of_webhook(webhook.guid, tenant_id=stranger.id, limit=2) == []


def test_due_deliveries_are_listed_longest_due_first(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    webhook = _add(data, tenant)
    later, earlier = (_add_delivery(data, webhook, next_attempt_at=MOMENT - n * SECOND) for n in (1, 2))
    _add_delivery(data, webhook, next_attempt_at=MOMENT + SECOND)
    _add_delivery(data, webhook, status="delivered", next_attempt_at=None)
    _add_delivery(data, new_webhook(stranger.id))
    assert data.webhook_deliveries.list_due(tenant_id=tenant.id, at=MOMENT, limit=9) == [earlier, later]
    assert data.webhook_deliveries.list_due(tenant_id=tenant.id, at=MOMENT, limit=1) == [earlier]


def test_active_tenants_with_due_deliveries_are_listed_once(
    data: Repositories, tenant: Tenant, stranger: Tenant
) -> None:
    for owner in (tenant, stranger, tenant):
        _add_delivery(data, new_webhook(owner.id))
    assert data.webhook_deliveries.list_due_tenants(at=MOMENT - SECOND) == []
    assert data.webhook_deliveries.list_due_tenants(at=MOMENT) == [tenant.id, stranger.id]
    data.tenants.update(tenant.model_copy(update={"status": TenantStatus.SUSPENDED}))
    assert data.webhook_deliveries.list_due_tenants(at=MOMENT) == [stranger.id]


def test_only_one_of_two_claims_succeeds(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    webhook = _add(data, tenant)
    delivery = _add_delivery(data, webhook)
    assert not data.webhook_deliveries.claim(delivery, tenant_id=stranger.id, until=LATER)
    assert data.webhook_deliveries.claim(delivery, tenant_id=tenant.id, until=LATER)
    assert not data.webhook_deliveries.claim(delivery, tenant_id=tenant.id, until=LATER + SECOND)
    claimed = delivery.model_copy(update={"attempts": 1, "next_attempt_at": LATER})
    assert _deliveries(data, webhook) == [claimed]
    assert data.webhook_deliveries.claim(claimed, tenant_id=tenant.id, until=LATER + SECOND)


def test_delivery_postponed_since_it_was_read_cannot_be_claimed(data: Repositories, tenant: Tenant) -> None:
    webhook = _add(data, tenant)
    delivery = _add_delivery(data, webhook, attempts=1)
    data.webhook_deliveries.record(delivery.model_copy(update={"next_attempt_at": LATER}), tenant_id=tenant.id)
    assert not data.webhook_deliveries.claim(delivery, tenant_id=tenant.id, until=LATER + SECOND)


@pytest.mark.parametrize(
    ("status", "attempts", "counts"),
    [("failed", 2, True), ("failed", 1, False), ("pending", 1, False), ("delivered", 1, True)],
)
def test_attempt_that_lost_its_claim_counts_only_if_it_succeeded(
    data: Repositories, tenant: Tenant, status: str, attempts: int, *, counts: bool
) -> None:
    webhook = _add(data, tenant)
    delivery = _add_delivery(data, webhook, attempts=2, next_attempt_at=LATER)
    ended = {"status": DeliveryStatus(status), "attempts": attempts, "response_status": 200, "next_attempt_at": None}
    data.webhook_deliveries.record(delivery.model_copy(update=ended), tenant_id=tenant.id)
    (found,) = _deliveries(data, webhook)
    assert found == (delivery.model_copy(update=ended | {"attempts": 2, "payload": ""}) if counts else delivery)


def test_finished_delivery_does_not_change(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    webhook = _add(data, tenant)
    over = _add_delivery(data, webhook, status="delivered", next_attempt_at=None)
    pending = _add_delivery(data, webhook)
    data.webhook_deliveries.record(over.model_copy(update={"status": DeliveryStatus.FAILED}), tenant_id=tenant.id)
    data.webhook_deliveries.record(pending.model_copy(update={"status": DeliveryStatus.FAILED}), tenant_id=stranger.id)
    assert _deliveries(data, webhook) == [pending, over]


def test_fail_pending_fails_only_pending_deliveries_of_that_webhook(data: Repositories, tenant: Tenant) -> None:
    webhook, other = _add(data, tenant), _add(data, tenant)
    over = _add_delivery(data, webhook, status="delivered", next_attempt_at=None)
    pending, kept = _add_delivery(data, webhook), _add_delivery(data, other)
    data.webhook_deliveries.fail_pending(webhook.guid, tenant_id=tenant.id, problem="webhook_disabled", at=LATER)
    given_up = {
        "status": DeliveryStatus.FAILED,
        "problem": "webhook_disabled",
        "payload": "",
        "next_attempt_at": None,
        "finished_at": LATER,
    }
    assert _deliveries(data, webhook) == [pending.model_copy(update=given_up), over]
    assert _deliveries(data, other) == [kept]


def test_delete_of_webhook_removes_only_its_deliveries(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    webhook, other = _add(data, tenant), _add(data, tenant)
    delivery, kept = _add_delivery(data, webhook), _add_delivery(data, other)
    data.webhook_deliveries.delete_of_webhook(webhook.guid, tenant_id=stranger.id)
    assert _deliveries(data, webhook) == [delivery]
    data.webhook_deliveries.delete_of_webhook(webhook.guid, tenant_id=tenant.id)
    assert (_deliveries(data, webhook), _deliveries(data, other)) == ([], [kept])


def test_old_deliveries_of_all_tenants_are_deleted(data: Repositories, tenant: Tenant, stranger: Tenant) -> None:
    webhooks = [_add(data, owner) for owner in (tenant, stranger)]
    for webhook in webhooks:
        _add_delivery(data, webhook, created_at=MOMENT - SECOND)
    kept = [_add_delivery(data, webhook) for webhook in webhooks]
    data.webhook_deliveries.delete_old(before=MOMENT)
    assert [_deliveries(data, webhook) for webhook in webhooks] == [[each] for each in kept]


def test_unknown_webhook_returns_none(data: Repositories, tenant: Tenant) -> None:
    assert data.webhooks.get_own(new_guid(), tenant_id=tenant.id) is None
