"""Requests that a client sends again without an Idempotency-Key are still the same ones.

An order that lost its client before that was answered, or whose outcome is unknown, is what the next request of the
same credential with the same content asks for: that joins it and buys nothing. SDKs that say how often they have sent a
request need not wait until the loss is noticed. Decided under the lock of the tenant's budget, so that of any number of
repetitions, at any process, each order is taken by one at a time.
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
"""How long after its end a request that says it is repeated is taken for the order's, though nobody noticed a loss."""
NOTICE_SECONDS = 1.0
"""How long a request that does not say so waits for notice that the client of an order like it is gone."""


class Verdict(Enum):
    """What a request is where it repeats no order."""

    NEW = auto()
    PERHAPS = auto()
    """An order of the same content is open, whose client may be gone by now."""


@dataclass(frozen=True)
class Repetition:
    """A request without an Idempotency-Key. ``content`` names its credential and content, ``follower`` itself.

    ``says_so``: it says that it was sent before. ``window_seconds`` is how long after a loss it is recognized.
    """

    content: str
    follower: str
    tenant_id: TenantId
    says_so: bool
    window_seconds: float

    def adopt(self, data: Repositories) -> Generation | Verdict:
        """Return the order that this request repeats, which it follows from now on."""
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
        # Each repetition an order of its own, as long as there is one that no other took.
        for generation in sorted(found, key=lambda each: (each.lost_at is None, each.adopted_at or 0.0, each.id)):
            if self._may_adopt(generation, moment) and self._take(data, generation, moment):
                return generation
        return Verdict.PERHAPS if any(not each.status.is_final for each in found) else Verdict.NEW

    def _take(self, data: Repositories, generation: Generation, moment: float) -> bool:
        return data.generations.adopt(generation, self.follower, tenant_id=self.tenant_id, at=moment) or (
            generation.status is GenerationStatus.UNKNOWN
        )

    def _may_adopt(self, generation: Generation, moment: float) -> bool:
        """Whether this request is a repetition of that order."""
        if generation.lost_at is not None:
            return generation.lost_at >= moment - self.window_seconds
        ended_at = None if generation.finished_at is None else generation.finished_at.timestamp()
        if generation.status is GenerationStatus.UNKNOWN:
            return ended_at is not None and ended_at >= moment - self.window_seconds
        if not self.says_so or generation.status is GenerationStatus.FAILED:
            # A client that was told of a failure, which bought nothing, asks for another attempt.
            return False
        if not generation.status.is_final:
            return True
        return ended_at is not None and ended_at >= moment - RECENTLY_SECONDS and generation.adopted_at is None
