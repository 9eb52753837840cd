"""Recognize retries that clients send without an Idempotency-Key.

A retry is a request of the same credential with the same content as an order that lost its client before the response
was sent, or whose outcome is unknown. It joins that order and buys nothing. SDKs that send a retry count need not wait
until the loss is noticed. Decisions are made under the lock of the tenant's budget, so that only one of any number of
retries in all processes adopts an order at a time.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from pixyproxy.core import clock
from pixyproxy.core.models.generation import Generation, GenerationStatus
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.database import Repositories

LONGEST_ORDER = timedelta(hours=2)
"""How much earlier than its loss an order may have been made."""
RECENTLY_SECONDS = 10.0
"""How long after an order finished a request marked as a retry matches it, though no loss was noticed."""
NOTICE_SECONDS = 1.0
"""How long a request waits for notice that the client of a matching order is gone; if marked, for its first sending."""


class Verdict(Enum):
    """The result for a request that adopts no order."""

    NEW = auto()
    PERHAPS = auto()
    """An order with the same content is open and its client may be gone, or it may not be claimed yet."""


@dataclass(frozen=True)
class Repetition:
    """A request without an Idempotency-Key. ``content`` identifies its credential and content, ``follower`` itself.

    ``says_so``: it is marked as a retry. ``window_seconds`` is how long after a loss it is recognized.
    """

    content: str
    follower: str
    tenant_id: TenantId
    says_so: bool
    window_seconds: float

    def adopt(self, data: Repositories) -> Generation | Verdict:
        """Adopt the order that this request repeats and return it, or return the verdict."""
        if not self.window_seconds:
            return Verdict.NEW
        moment = clock.seconds()
        lost_since = moment - self.window_seconds
        found = data.generations.list_repeatable(
            self.content,
            tenant_id=self.tenant_id,
            since=datetime.fromtimestamp(int(lost_since), UTC) - LONGEST_ORDER,
            lost_since=lost_since,
            ended_since=datetime.fromtimestamp(int(moment - RECENTLY_SECONDS), UTC),
        )
        # Each retry adopts a different order, as long as one is left that no other adopted.
        for generation in sorted(found, key=lambda each: (each.lost_at is None, each.adopted_at or 0.0, each.id)):
            if self._may_adopt(generation, moment) and self._take(data, generation, moment):
                return generation
        # On a busy machine, the first sending of a retry may not be claimed yet.
        is_early = self.says_so and not found
        return Verdict.PERHAPS if is_early or any(not each.status.is_final for each in found) else Verdict.NEW

    def _take(self, data: Repositories, generation: Generation, moment: float) -> bool:
        return data.generations.adopt(generation, self.follower, tenant_id=self.tenant_id, at=moment) or (
            generation.status is GenerationStatus.UNKNOWN
        )

    def _may_adopt(self, generation: Generation, moment: float) -> bool:
        if generation.lost_at is not None:
            return generation.lost_at >= moment - self.window_seconds
        ended_at = None if generation.finished_at is None else generation.finished_at.timestamp()
        if generation.status is GenerationStatus.UNKNOWN:
            return ended_at is not None and ended_at >= moment - self.window_seconds
        if not self.says_so or generation.status is GenerationStatus.FAILED:
            # The client got the failure, which bought nothing, and wants a new attempt.
            return False
        if not generation.status.is_final:
            return True
        return ended_at is not None and ended_at >= moment - RECENTLY_SECONDS and generation.adopted_at is None
