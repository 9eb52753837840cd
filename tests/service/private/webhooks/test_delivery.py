"""Delivery of webhooks: at least once, until accepted or expired, with no receiver delaying another."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.models.tenant import Tenant, TenantId, TenantStatus
from pixyproxy.core.models.webhook import StoredDelivery, StoredWebhook, WebhookEvent
from pixyproxy.data.database import Database
from pixyproxy.service.private.guarded_http import (
    RESOLVING_AT_ONCE_PER_TENANT,
    GuardedHttpClient,
    open_guarded_http_client,
)
from pixyproxy.service.private.webhooks.delivery import (
    AT_ONCE,
    AT_ONCE_PER_TENANT,
    DELAYS,
    KEPT,
    LEASE,
    LONGEST_JITTER,
    DueDelivery,
    WebhookDelivery,
    jitter,
    share_places,
)
from pixyproxy.service.private.webhooks.subscriptions import WebhookSecrets
from tests.service.private.conftest import FailingDatabase, Outage
from tests.support.builders import add_tenant
from tests.support.webhook_receiver import OK, WebhookReceiver, new_delivery, new_webhook

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)


@dataclass
class Watch:
    """A clock that stands still until it is moved."""

    at: datetime

    def __call__(self) -> datetime:
        """Return its time."""
        return self.at


@dataclass(frozen=True)
class Post:
    """A delivering process, in small steps, with a test's own clock."""

    delivery: WebhookDelivery
    watch: Watch
    database: Database
    receiver: WebhookReceiver

    async def add_webhook(self, tenant: Tenant, **changes: object) -> StoredWebhook:
        """Add a webhook of the receiver."""
        webhook = new_webhook(tenant.id, **{"url": self.receiver.url(), **changes})
        await self.database.write(lambda data: data.webhooks.insert(webhook))
        return webhook

    async def add(self, webhook: StoredWebhook, **changes: object) -> StoredDelivery:
        """Add a delivery that is due now."""
        times = {"created_at": self.watch.at, "next_attempt_at": self.watch.at}
        delivery = new_delivery(webhook, **{**times, **changes})
        await self.database.write(lambda data: data.webhook_deliveries.insert(delivery))
        return delivery

    async def claim(self) -> list[DueDelivery]:
        """Claim what an idle process would."""
        return await self.delivery.claim_due(Counter())

    async def round(self) -> int:
        """Attempt what is due; return the number of attempts."""
        claimed = await self.claim()
        await asyncio.gather(*(self.delivery.attempt(due) for due in claimed))
        return len(claimed)

    async def stored(self, webhook: StoredWebhook) -> list[StoredDelivery]:
        """Return the webhook's deliveries, newest first."""
        return await self.database.read(
            lambda data: data.webhook_deliveries.list_of_webhook(webhook.guid, tenant_id=webhook.tenant_id, limit=100)
        )


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """Yield the receiver."""
    with WebhookReceiver() as opened:
        yield opened


@pytest.fixture
async def targets() -> AsyncIterator[GuardedHttpClient]:
    """Yield an SSRF guard that allows the receiver."""
    opened = open_guarded_http_client(["127.0.0.1"])
    yield opened
    await opened.close()


@pytest.fixture
def post(database: Database, receiver: WebhookReceiver, targets: GuardedHttpClient) -> Post:
    """Return the delivery under test."""
    watch = Watch(clock.now())
    delivery = WebhookDelivery(
        database=database,
        secrets=WebhookSecrets(SecretStr("server")),
        targets=targets,
        now=watch,
        jitter=lambda: 1.0,
    )
    return Post(delivery=delivery, watch=watch, database=database, receiver=receiver)


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  (rows and another thread's list have no event to wait for)
            await asyncio.sleep(0.01)


async def test_request_follows_the_standard(post: Post, tenant: Tenant) -> None:
    webhook = await post.add_webhook(tenant)
    delivery = await post.add(webhook)
    assert await post.round() == 1
    (received,) = post.receiver.received
    assert received.body.decode() == delivery.payload
    secret = post.delivery.secrets.secret_of(webhook.guid, 1).get_secret_value()
    assert received.verified(secret) == {"prompt": "a 🦊"}
    assert received.path == "/hook?token=1"
    assert received.headers["host"] == f"127.0.0.1:{post.receiver.port}"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["user-agent"].startswith("PixyProxy/")
    assert (received.id, received.headers["webhook-timestamp"]) == (
        delivery.guid,
        str(int(post.watch.at.timestamp())),
    )


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_accepted_delivery_is_finished(post: Post, tenant: Tenant, status: int) -> None:
    webhook = await post.add_webhook(tenant)
    delivery = await post.add(webhook)
    post.receiver.statuses = [status]
    await post.round()
    post.watch.at += timedelta(days=2)
    assert await post.round() == 0
    ended = {"status": "delivered", "attempts": 1, "response_status": status, "next_attempt_at": None, "payload": ""}
    finished_at = post.watch.at - timedelta(days=2)
    assert await post.stored(webhook) == [delivery.model_copy(update=ended | {"finished_at": finished_at})]


async def test_rejected_delivery_is_retried_with_back_off_until_it_expires(post: Post, tenant: Tenant) -> None:
    webhook = await post.add_webhook(tenant)
    await post.add(webhook)
    post.receiver.statuses = [500, 404, 302, 429, 503, 400, 501, 500]
    for number, delay in enumerate(DELAYS, 1):
        assert await post.round() == 1
        (waiting,) = await post.stored(webhook)
        assert (waiting.status, waiting.attempts) == ("pending", number)
        assert waiting.next_attempt_at == post.watch.at + delay * SECOND
        post.watch.at += (delay - 1) * SECOND
        assert await post.round() == 0
        post.watch.at += SECOND
    assert await post.round() == 1
    (over,) = await post.stored(webhook)
    assert (over.status, over.attempts, over.response_status) == ("failed", len(DELAYS) + 1, 500)
    assert (over.next_attempt_at, over.finished_at) == (None, post.watch.at)
    post.watch.at += timedelta(days=7)
    assert await post.round() == 0
    ids = [received.id for received in post.receiver.received]
    assert (len(ids), len(set(ids))) == (len(DELAYS) + 1, 1)
    assert len({received.body for received in post.receiver.received}) == 1
    assert len({received.headers["webhook-signature"] for received in post.receiver.received}) == len(ids)


async def test_recovered_receiver_gets_the_delivery(post: Post, tenant: Tenant) -> None:
    webhook = await post.add_webhook(tenant)
    await post.add(webhook)
    post.receiver.statuses = [503]
    await post.round()
    post.watch.at += DELAYS[0] * SECOND
    await post.round()
    (over,) = await post.stored(webhook)
    assert (over.status, over.attempts, over.response_status, over.problem) == ("delivered", 2, 204, None)


async def test_unreachable_receiver_is_retried(post: Post, tenant: Tenant) -> None:
    with WebhookReceiver() as closed:
        url = closed.url()
    webhook = await post.add_webhook(tenant, url=url)
    await post.add(webhook)
    await post.round()
    (waiting,) = await post.stored(webhook)
    assert (waiting.status, waiting.problem, waiting.response_status) == ("pending", "unreachable", None)


async def test_silent_receiver_times_out_and_is_retried(post: Post, tenant: Tenant) -> None:
    webhook = await post.add_webhook(tenant)
    await post.add(webhook)
    post.receiver.hang()
    await replace(post, delivery=replace(post.delivery, attempt_seconds=0.2)).round()
    (waiting,) = await post.stored(webhook)
    assert (waiting.status, waiting.problem, waiting.response_status) == ("pending", "timeout", None)


async def test_unexpected_error_is_logged_and_retried(
    post: Post, targets: GuardedHttpClient, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_host: str) -> list[str]:
        raise ZeroDivisionError

    webhook = await post.add_webhook(tenant)
    await post.add(webhook)
    unforeseen = replace(post.delivery, targets=replace(targets, resolve=fail))
    await replace(post, delivery=unforeseen).round()
    (waiting,) = await post.stored(webhook)
    assert (waiting.status, waiting.problem) == ("pending", "internal_error")
    assert "unexpected error in webhook delivery" in caplog.text


async def test_response_body_and_cookies_are_ignored(post: Post, tenant: Tenant) -> None:
    webhook = await post.add_webhook(tenant)
    post.receiver.statuses, post.receiver.headers = [OK, OK], {"Set-Cookie": "a=b; Path=/"}
    post.receiver.endless = True
    for _ in range(2):
        await post.add(webhook)
        assert await post.round() == 1
    assert {delivery.status for delivery in await post.stored(webhook)} == {"delivered"}
    assert ["cookie" in received.headers for received in post.receiver.received] == [False, False]


async def test_crash_before_posting_leaves_the_delivery_to_another_process(post: Post, tenant: Tenant) -> None:
    webhook = await post.add_webhook(tenant)
    delivery = await post.add(webhook)
    assert len(await post.claim()) == 1
    post.watch.at += LEASE - SECOND
    assert await post.round() == 0
    post.watch.at += SECOND
    assert await post.round() == 1
    assert [received.id for received in post.receiver.received] == [delivery.guid]
    (over,) = await post.stored(webhook)
    assert (over.status, over.attempts) == ("delivered", 2)


async def test_crash_after_posting_repeats_the_delivery_with_the_same_id(
    post: Post, tenant: Tenant, outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    webhook = await post.add_webhook(tenant)
    delivery = await post.add(webhook)
    (due,) = await post.claim()
    database = post.database
    failing = FailingDatabase(database.engine, database.slots, database.writers, database.wait_seconds, outage=outage)
    outage.lasts = True
    with caplog.at_level(logging.WARNING):
        await replace(post.delivery, database=failing).attempt(due)
    assert "could not be recorded: database_unavailable" in caplog.text
    post.watch.at += LEASE
    await post.round()
    assert [received.id for received in post.receiver.received] == [delivery.guid] * 2
    (over,) = await post.stored(webhook)
    assert over.status == "delivered"


async def test_concurrent_processes_claim_each_delivery_once(post: Post, tenant: Tenant, stranger: Tenant) -> None:
    for owner in (tenant, stranger):
        webhook = await post.add_webhook(owner)
        for _ in range(AT_ONCE_PER_TENANT):
            await post.add(webhook)
    claimed = [due for found in await asyncio.gather(*(post.claim() for _ in range(6))) for due in found]
    guids = [due.delivery.guid for due in claimed]
    assert len(guids) == len(set(guids)) == 2 * AT_ONCE_PER_TENANT


async def test_gone_receiver_gets_no_more_deliveries(
    post: Post, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    gone, other = await post.add_webhook(tenant), await post.add_webhook(tenant)
    await post.add(gone)
    later = await post.add(gone, next_attempt_at=post.watch.at + 60 * SECOND)
    kept = await post.add(other, next_attempt_at=post.watch.at + 60 * SECOND)
    post.receiver.statuses = [410]
    with caplog.at_level(logging.INFO):
        await post.round()
    disabled = await post.database.read(lambda data: data.webhooks.get_own(gone.guid, tenant_id=tenant.id))
    assert disabled == gone.model_copy(update={"disabled_at": post.watch.at})
    waiting, answered = await post.stored(gone)
    assert (answered.status, answered.response_status, answered.problem) == ("failed", 410, None)
    assert (waiting.guid, waiting.status, waiting.problem) == (later.guid, "failed", "webhook_disabled")
    assert await post.stored(other) == [kept]
    subscribed = await post.database.read(
        lambda data: data.webhooks.list_subscribed(WebhookEvent.GENERATION_STORED, tenant_id=tenant.id)
    )
    assert subscribed == [other]
    assert f"webhook {gone.guid} disabled: its receiver responded 410 Gone" in caplog.text
    assert "token=1" not in caplog.text


@pytest.mark.parametrize("change", ["deleted", "disabled"])
async def test_deliveries_of_a_deleted_webhook_fail(post: Post, tenant: Tenant, change: str) -> None:
    webhook = new_webhook(tenant.id, url=post.receiver.url())
    if change == "disabled":
        webhook = await post.add_webhook(tenant, disabled_at=post.watch.at)
    await post.add(webhook)
    assert await post.round() == 0
    (over,) = await post.stored(webhook)
    assert (over.status, over.next_attempt_at) == ("failed", None)
    assert post.receiver.received == []


async def test_suspended_tenant_gets_deliveries_when_active_again(post: Post, tenant: Tenant) -> None:
    await post.add(await post.add_webhook(tenant))
    for status, attempts in ((TenantStatus.SUSPENDED, 0), (TenantStatus.ACTIVE, 1)):
        changed = tenant.model_copy(update={"status": status})
        await post.database.write(lambda data, changed=changed: data.tenants.update(changed))  # type: ignore[misc]
        assert await post.round() == attempts


async def test_slow_receiver_does_not_delay_other_tenants(post: Post, tenant: Tenant, stranger: Tenant) -> None:
    """However many deliveries of one tenant wait, another's are sent meanwhile."""
    post.receiver.hang()
    slow = await post.add_webhook(tenant)
    for _ in range(3 * AT_ONCE):
        await post.add(slow, next_attempt_at=post.watch.at - 60 * SECOND)
    with WebhookReceiver() as quick:
        webhook = await post.add_webhook(stranger, url=quick.url())
        for _ in range(5):
            await post.add(webhook)
        running = asyncio.create_task(post.delivery.run_forever())

        async def told() -> bool:
            return len(quick.received) == 5

        await _eventually(told)
        assert len(post.receiver.received) == AT_ONCE_PER_TENANT
        post.receiver.released.set()
        await _stop(running)


async def test_hanging_name_server_does_not_delay_other_tenants(
    post: Post, targets: GuardedHttpClient, tenant: Tenant, stranger: Tenant
) -> None:
    asked: list[str] = []

    async def resolve(host: str) -> list[str]:
        asked.append(host)
        if host == "slow.example":
            await asyncio.sleep(3600)
        return ["127.0.0.1"]

    slow = await post.add_webhook(tenant, url="https://slow.example/hook")
    for _ in range(RESOLVING_AT_ONCE_PER_TENANT + 1):
        await post.add(slow)
    impatient = replace(post.delivery, targets=replace(targets, resolve=resolve), attempt_seconds=0.05)
    rounds = [await replace(post, delivery=impatient).round() for _ in range(3)]
    assert rounds == [AT_ONCE_PER_TENANT, AT_ONCE_PER_TENANT, 1]
    told = Counter(delivery.problem for delivery in await post.stored(slow))
    assert told == {"timeout": RESOLVING_AT_ONCE_PER_TENANT + 1}
    assert asked == ["slow.example"] * RESOLVING_AT_ONCE_PER_TENANT
    webhook = await post.add_webhook(stranger)
    await post.add(webhook)
    await replace(post, delivery=replace(impatient, attempt_seconds=20)).round()
    assert (await post.stored(webhook))[0].status == "delivered"


async def _stop(running: asyncio.Task[None]) -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_delivery_survives_an_outage(
    post: Post, tenant: Tenant, outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    webhook = await post.add_webhook(tenant)
    database = post.database
    failing = FailingDatabase(database.engine, database.slots, database.writers, database.wait_seconds, outage=outage)
    await post.add(webhook)
    outage.lasts = True
    running = asyncio.create_task(replace(post.delivery, database=failing).run_forever())

    async def warned() -> bool:
        return all(text in caplog.text for text in ("could not be claimed", "could not be deleted"))

    async def told() -> bool:
        return (await post.stored(webhook))[0].status == "delivered"

    await _eventually(warned)
    outage.lasts = False
    await _eventually(told)
    await _stop(running)
    assert [delivery.status for delivery in await post.stored(webhook)] == ["delivered"]


async def test_old_deliveries_are_deleted(post: Post, tenant: Tenant) -> None:
    webhook = await post.add_webhook(tenant)
    await post.add(webhook, created_at=post.watch.at - KEPT - SECOND, next_attempt_at=None, status="failed")
    kept = await post.add(webhook, created_at=post.watch.at - KEPT, next_attempt_at=None, status="failed")
    running = asyncio.create_task(post.delivery.run_forever())

    async def forgotten() -> bool:
        return await post.stored(webhook) == [kept]

    await _eventually(forgotten)
    await _stop(running)
    assert await post.stored(webhook) == [kept]


def _share(waiting: list[int], busy: dict[int, int]) -> Counter[TenantId]:
    tenants = [TenantId(number) for number in waiting]
    return share_places(tenants, Counter({TenantId(number): count for number, count in busy.items()}))


@pytest.mark.parametrize(
    ("waiting", "busy", "expected"),
    [
        ([], {}, {}),
        ([1], {}, {1: 2}),
        ([1], {1: 1}, {1: 1}),
        ([1], {1: 2}, {}),
        ([1, 2], {1: 2}, {2: 2}),
        ([1, 2, 3, 4], {}, {1: 2, 2: 2, 3: 2, 4: 2}),
        ([1, 2, 3, 4, 5, 6, 7, 8], {}, dict.fromkeys(range(1, 9), 1)),
        ([1, 9], {1: 1, 2: 2, 3: 2, 4: 2}, {9: 1}),
        ([1, 9], {2: 2, 3: 2, 4: 2, 5: 2}, {}),
    ],
)
def test_slots_go_first_to_tenants_with_the_fewest_running(
    waiting: list[int], busy: dict[int, int], expected: dict[int, int]
) -> None:
    assert _share(waiting, busy) == expected


def test_equal_tenants_are_chosen_at_random() -> None:
    busy = {1: 2, 2: 2, 3: 2, 4: 1}
    assert {min(_share([5, 6, 7], busy)) for _ in range(200)} == {5, 6, 7}


async def test_process_without_free_slots_claims_nothing(post: Post, tenant: Tenant) -> None:
    await post.add(await post.add_webhook(tenant))
    assert await post.delivery.claim_due(Counter({TenantId(0): AT_ONCE})) == []
    assert await post.delivery.claim_due(Counter({tenant.id: AT_ONCE_PER_TENANT})) == []
    assert len(await post.claim()) == 1


def test_jitter_is_small_and_never_early() -> None:
    drawn = {jitter() for _ in range(100)}
    assert len(drawn) > 1
    assert min(drawn) >= 1
    assert max(drawn) <= LONGEST_JITTER


async def test_more_tenants_than_slots_are_all_served(post: Post) -> None:
    webhooks = []
    for _ in range(AT_ONCE + 2):
        webhooks.append(await post.add_webhook(await post.database.write(add_tenant)))
        await post.add(webhooks[-1])
    assert [await post.round(), await post.round()] == [AT_ONCE, 2]
    assert {(await post.stored(webhook))[0].status for webhook in webhooks} == {"delivered"}
