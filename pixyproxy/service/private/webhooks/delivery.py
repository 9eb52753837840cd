"""Deliver webhook events at least once, retrying until accepted or expired.

Any number of processes deliver at once. A due delivery is claimed with a lease, by compare-and-swap, before it is
posted. If the process dies in between, nothing is lost: it is posted again under the same ``webhook-id``.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version

import httpx2

from pixyproxy.core import clock
from pixyproxy.core.exceptions import PixyProxyException, WebhookTargetException
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.webhook import DeliveryStatus, StoredDelivery, StoredWebhook
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.private.guarded_http import GuardedHttpClient
from pixyproxy.service.private.webhooks.subscriptions import WebhookSecrets

logger = logging.getLogger(__name__)
chance = random.SystemRandom()

INTERVAL_SECONDS = 1.0
FORGET_SECONDS = 3600
KEPT = timedelta(days=30)
AT_ONCE = 8
AT_ONCE_PER_TENANT = 2
"""The concurrent deliveries of one tenant, however slow its receivers are."""
ATTEMPT_SECONDS = 15.0
"""From the DNS look-up of the host to the response head."""
LEASE = timedelta(seconds=60)
"""Longer than an attempt and its record take."""
DELAYS = (5, 30, 120, 600, 3600, 6 * 3600, 24 * 3600)
"""Seconds after each attempt; after the last one the delivery has failed."""
LONGEST_JITTER = 1.2
USER_AGENT = f"PixyProxy/{version('pixyproxy')}"


@dataclass(frozen=True)
class DueDelivery:
    """A delivery that this process has claimed for its next attempt."""

    webhook: StoredWebhook
    delivery: StoredDelivery


@dataclass(frozen=True)
class Answer:
    """The result of an attempt: an HTTP status, or the problem if there was none."""

    status: int | None = None
    problem: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver accepted it."""
        return self.status is not None and httpx2.codes.is_success(self.status)

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants no more deliveries, ever."""
        return self.status == httpx2.codes.GONE


def jitter() -> float:
    """Return a random factor that spreads the retries of deliveries that failed together."""
    return chance.uniform(1, LONGEST_JITTER)


@dataclass(frozen=True)
class WebhookDelivery:
    """Posts due deliveries, at most ``AT_ONCE`` at a time."""

    database: Database
    secrets: WebhookSecrets
    targets: GuardedHttpClient
    now: Callable[[], datetime] = clock.now
    jitter: Callable[[], float] = jitter
    attempt_seconds: float = ATTEMPT_SECONDS

    async def run_forever(self) -> None:
        """Deliver, and delete old deliveries, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forget_forever())
            await self._deliver_forever(group)

    async def claim_due(self, busy: Counter[TenantId]) -> list[DueDelivery]:
        """Claim the deliveries to attempt next; ``busy`` counts the running attempts by tenant.

        Raise ``DatabaseException``.
        """
        at = self.now()
        if busy.total() >= AT_ONCE:
            return []
        waiting = await self.database.read(lambda data: data.webhook_deliveries.list_due_tenants(at=at))
        places = share_places(waiting, busy)
        return await self.database.write(lambda data: _claim(data, places, at)) if places else []

    async def attempt(self, due: DueDelivery) -> None:
        """Post a claimed delivery and record the result; if recording fails, it is due again after its lease."""
        answer = await self._post(due)
        guid, attempts = due.delivery.guid, due.delivery.attempts
        logger.info("webhook delivery %s, attempt %d: %s", guid, attempts, answer.status or answer.problem)
        try:
            if await self.database.write(lambda data: self._record(data, due, answer)):
                logger.warning("webhook %s disabled: its receiver responded 410 Gone", due.webhook.guid)
        except PixyProxyException as error:
            logger.warning("webhook delivery %s could not be recorded: %s", guid, error.code)
        except Exception:
            logger.exception("webhook delivery %s could not be recorded", guid)

    async def forget_old(self) -> None:
        """Delete deliveries older than ``KEPT``. Raise ``DatabaseException``."""
        before = self.now() - KEPT
        await self.database.write(lambda data: data.webhook_deliveries.delete_old(before=before))

    async def _deliver_forever(self, group: asyncio.TaskGroup) -> None:
        running: dict[asyncio.Task[None], TenantId] = {}
        while True:
            try:
                for due in await self.claim_due(Counter(running.values())):
                    running[group.create_task(self.attempt(due))] = due.delivery.tenant_id
            except PixyProxyException as error:
                logger.warning("webhook deliveries could not be claimed and will be retried: %s", error.code)
            except Exception:
                logger.exception("unexpected error while claiming webhook deliveries; will retry")
            if running:
                await asyncio.wait(running, timeout=INTERVAL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(INTERVAL_SECONDS)
            running = {task: tenant_id for task, tenant_id in running.items() if not task.done()}

    async def _forget_forever(self) -> None:
        while True:
            try:
                await self.forget_old()
            except PixyProxyException as error:
                logger.warning("old webhook deliveries could not be deleted and will be retried: %s", error.code)
            except Exception:
                logger.exception("unexpected error while deleting old webhook deliveries; will retry")
            await asyncio.sleep(FORGET_SECONDS)

    async def _post(self, due: DueDelivery) -> Answer:
        at, delivery = self.now(), due.delivery
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": delivery.guid,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self.secrets.signatures(due.webhook, delivery, at=at),
        }
        try:
            async with asyncio.timeout(self.attempt_seconds):
                target = await self.targets.check(due.webhook.url, tenant_id=delivery.tenant_id)
                return Answer(await self.targets.post(target, headers=headers, content=delivery.payload.encode()))
        except WebhookTargetException:
            return Answer(problem="target_refused")
        except (TimeoutError, httpx2.TimeoutException):
            return Answer(problem="timeout")
        except httpx2.TransportError:
            return Answer(problem="unreachable")
        except Exception:
            logger.exception("unexpected error in webhook delivery %s", delivery.guid)
            return Answer(problem="internal_error")

    def _record(self, data: Repositories, due: DueDelivery, answer: Answer) -> bool:
        """Record the result of an attempt; return True if that disabled the webhook."""
        at, delivery = self.now(), due.delivery
        data.webhook_deliveries.record(
            delivery.model_copy(update=self._end(delivery, answer, at)), tenant_id=delivery.tenant_id
        )
        disabled = answer.is_gone and data.webhooks.disable(due.webhook.guid, tenant_id=delivery.tenant_id, at=at)
        if disabled:
            data.webhook_deliveries.fail_pending(
                due.webhook.guid, tenant_id=delivery.tenant_id, problem="webhook_disabled", at=at
            )
        return disabled

    def _end(self, delivery: StoredDelivery, answer: Answer, at: datetime) -> dict[str, object]:
        """Return the changed fields of a delivery after an attempt."""
        told = {"response_status": answer.status, "problem": answer.problem}
        if answer.is_success:
            return told | {"status": DeliveryStatus.DELIVERED, "next_attempt_at": None, "finished_at": at}
        if answer.is_gone or delivery.attempts > len(DELAYS):
            return told | {"status": DeliveryStatus.FAILED, "next_attempt_at": None, "finished_at": at}
        return told | {"next_attempt_at": at + timedelta(seconds=DELAYS[delivery.attempts - 1] * self.jitter())}


def share_places(waiting: Sequence[TenantId], busy: Counter[TenantId]) -> Counter[TenantId]:
    """Return how many deliveries of each tenant may start: fewest running first, at random among equals."""
    asked = [
        (place, chance.random(), tenant_id)
        for tenant_id in waiting
        for place in range(busy[tenant_id], AT_ONCE_PER_TENANT)
    ]
    return Counter(tenant_id for *_, tenant_id in sorted(asked)[: AT_ONCE - busy.total()])


def _claim(data: Repositories, places: Counter[TenantId], at: datetime) -> list[DueDelivery]:
    """Claim in one order, so that concurrent processes wait for each other instead of deadlocking."""
    claimed = []
    for tenant_id, count in sorted(places.items()):
        for delivery in data.webhook_deliveries.list_due(tenant_id=tenant_id, at=at, limit=count):
            if not data.webhook_deliveries.claim(delivery, tenant_id=tenant_id, until=at + LEASE):
                continue
            begun = delivery.model_copy(update={"attempts": delivery.attempts + 1})
            webhook = data.webhooks.get_own(delivery.webhook_guid, tenant_id=tenant_id)
            if webhook is None or webhook.disabled_at is not None:
                # The webhook was deleted while the generation finished.
                end = {"status": DeliveryStatus.FAILED, "next_attempt_at": None, "finished_at": at}
                data.webhook_deliveries.record(begun.model_copy(update=end), tenant_id=tenant_id)
            else:
                claimed.append(DueDelivery(webhook=webhook, delivery=begun))
    return claimed
