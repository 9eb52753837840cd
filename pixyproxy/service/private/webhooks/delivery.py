"""Delivery: telling webhooks what they are to be told, at least once, until they have taken it or time is up.

Any number of processes deliver at once. What is due is claimed with a lease, by compare-and-swap, before it is posted;
a process that dies in between loses nothing, and its delivery goes out again under the same ``webhook-id``.
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
from pixyproxy.service.private.guarded_http import SafeTargets
from pixyproxy.service.private.webhooks.subscriptions import WebhookSecrets

logger = logging.getLogger(__name__)
chance = random.SystemRandom()

INTERVAL_SECONDS = 1.0
FORGET_SECONDS = 3600
KEPT = timedelta(days=30)
AT_ONCE = 8
AT_ONCE_PER_TENANT = 2
"""Places that one tenant's receivers can keep busy, however slow they are."""
ATTEMPT_SECONDS = 15.0
"""From the look-up of the host to the head of the answer."""
LEASE = timedelta(seconds=60)
"""Longer than an attempt with its record takes."""
DELAYS = (5, 30, 120, 600, 3600, 6 * 3600, 24 * 3600)
"""Seconds after each attempt; beyond the last the delivery has failed."""
LONGEST_JITTER = 1.2
USER_AGENT = f"PixyProxy/{version('pixyproxy')}"


@dataclass(frozen=True)
class DueDelivery:
    """A delivery whose next attempt is this process's to make."""

    webhook: StoredWebhook
    delivery: StoredDelivery


@dataclass(frozen=True)
class Answer:
    """What came of an attempt: a status of HTTP, or the problem that there was in its place."""

    status: int | None = None
    problem: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver has taken it."""
        return self.status is not None and httpx2.codes.is_success(self.status)

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants nothing more, ever."""
        return self.status == httpx2.codes.GONE


def jitter() -> float:
    """A factor, so that what failed together does not come again together."""
    return chance.uniform(1, LONGEST_JITTER)


@dataclass(frozen=True)
class WebhookDelivery:
    """Posts what is due, no more than ``AT_ONCE`` at a time."""

    database: Database
    secrets: WebhookSecrets
    targets: SafeTargets
    now: Callable[[], datetime] = clock.now
    jitter: Callable[[], float] = jitter
    attempt_seconds: float = ATTEMPT_SECONDS

    async def run_forever(self) -> None:
        """Deliver, and forget what is old, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forget_forever())
            await self._deliver_forever(group)

    async def claim_due(self, busy: Counter[TenantId]) -> list[DueDelivery]:
        """What this process is to attempt next; ``busy`` counts the attempts that are under way, by tenant.

        Raises ``DatabaseException``.
        """
        at = self.now()
        if busy.total() >= AT_ONCE:
            return []
        waiting = await self.database.read(lambda data: data.webhook_deliveries.list_due_tenants(at=at))
        places = share_places(waiting, busy)
        return await self.database.write(lambda data: _claim(data, places, at)) if places else []

    async def attempt(self, due: DueDelivery) -> None:
        """Post a claimed delivery and record what came of it; where that fails it is due again after its lease."""
        answer = await self._post(due)
        guid, attempts = due.delivery.guid, due.delivery.attempts
        logger.info("webhook delivery %s, attempt %d: %s", guid, attempts, answer.status or answer.problem)
        try:
            if await self.database.write(lambda data: self._record(data, due, answer)):
                logger.warning("webhook %s is gone, as its receiver says, and disabled", due.webhook.guid)
        except PixyProxyException as error:
            logger.warning("webhook delivery %s could not be recorded: %s", guid, error.code)
        except Exception:
            logger.exception("webhook delivery %s could not be recorded", guid)

    async def forget_old(self) -> None:
        """Remove what is older than ``KEPT``. Raises ``DatabaseException``."""
        before = self.now() - KEPT
        await self.database.write(lambda data: data.webhook_deliveries.delete_old(before=before))

    async def _deliver_forever(self, group: asyncio.TaskGroup) -> None:
        running: dict[asyncio.Task[None], TenantId] = {}
        while True:
            try:
                for due in await self.claim_due(Counter(running.values())):
                    running[group.create_task(self.attempt(due))] = due.delivery.tenant_id
            except PixyProxyException as error:
                logger.warning("webhook deliveries could not be claimed and will be: %s", error.code)
            except Exception:
                logger.exception("claiming webhook deliveries met something unforeseen and will go on")
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
                logger.warning("old webhook deliveries could not be forgotten yet: %s", error.code)
            except Exception:
                logger.exception("forgetting webhook deliveries met something unforeseen and will go on")
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
            logger.exception("webhook delivery %s met something unforeseen", delivery.guid)
            return Answer(problem="internal_error")

    def _record(self, data: Repositories, due: DueDelivery, answer: Answer) -> bool:
        """Write what came of an attempt; True if that disabled the webhook."""
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
        """The fields of a delivery after an attempt of it."""
        told = {"response_status": answer.status, "problem": answer.problem}
        if answer.is_success:
            return told | {"status": DeliveryStatus.DELIVERED, "next_attempt_at": None, "finished_at": at}
        if answer.is_gone or delivery.attempts > len(DELAYS):
            return told | {"status": DeliveryStatus.FAILED, "next_attempt_at": None, "finished_at": at}
        return told | {"next_attempt_at": at + timedelta(seconds=DELAYS[delivery.attempts - 1] * self.jitter())}


def share_places(waiting: Sequence[TenantId], busy: Counter[TenantId]) -> Counter[TenantId]:
    """How many deliveries of which tenant may begin: those with the fewest under way first, chance among equals."""
    asked = [
        (place, chance.random(), tenant_id)
        for tenant_id in waiting
        for place in range(busy[tenant_id], AT_ONCE_PER_TENANT)
    ]
    return Counter(tenant_id for *_, tenant_id in sorted(asked)[: AT_ONCE - busy.total()])


def _claim(data: Repositories, places: Counter[TenantId], at: datetime) -> list[DueDelivery]:
    """Claim in one order, so that processes that claim at once wait for each other and do not lock crosswise."""
    claimed = []
    for tenant_id, count in sorted(places.items()):
        for delivery in data.webhook_deliveries.list_due(tenant_id=tenant_id, at=at, limit=count):
            if not data.webhook_deliveries.claim(delivery, tenant_id=tenant_id, until=at + LEASE):
                continue
            begun = delivery.model_copy(update={"attempts": delivery.attempts + 1})
            webhook = data.webhooks.get_own(delivery.webhook_guid, tenant_id=tenant_id)
            if webhook is None or webhook.disabled_at is not None:
                # It went while the generation ended.
                end = {"status": DeliveryStatus.FAILED, "next_attempt_at": None, "finished_at": at}
                data.webhook_deliveries.record(begun.model_copy(update=end), tenant_id=tenant_id)
            else:
                claimed.append(DueDelivery(webhook=webhook, delivery=begun))
    return claimed
