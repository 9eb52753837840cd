"""A few slots for expensive work, shared fairly so that no client starves another."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from pixyproxy.core.exceptions import ServerBusyException, TooManyAtOnceException
from pixyproxy.core.models.tenant import TenantId

MOST_REMEMBERED = 10_000


class Requester(NamedTuple):
    """The client that requests a slot.

    ``tenant`` is None if unknown; ``member`` is an address, or a subject within the tenant.
    """

    tenant: TenantId | None
    member: str


@dataclass(eq=False)
class _Ticket:
    """A waiting request; ``granted`` completes when it gets a slot."""

    requester: Requester
    granted: asyncio.Future[None]


@dataclass
class FairSlots:
    """A limited number (``count``) of slots. The tenant served longest ago is next; within a tenant, the member.

    Requests without a known tenant count as one tenant. ``most_of_requester`` limits how many requests of one requester
    may wait or run at once. Bound to one event loop.
    """

    count: int
    wait_seconds: float
    most_of_requester: float = math.inf
    _running: list[Requester] = field(default_factory=list)
    _waiting: list[_Ticket] = field(default_factory=list)
    _served: dict[TenantId | Requester | None, int] = field(default_factory=dict)
    """The number of the latest grant of each tenant and requester."""
    _grants: int = 0

    @property
    def waiting(self) -> list[Requester]:
        """The waiting requesters, in order of arrival."""
        return [ticket.requester for ticket in self._waiting]

    @asynccontextmanager
    async def hold(self, requester: Requester) -> AsyncIterator[None]:
        """Hold a slot.

        Raise ``TooManyAtOnceException`` beyond ``most_of_requester``, and ``ServerBusyException`` if no slot becomes
        free within ``wait_seconds``.
        """
        await self._acquire(requester)
        try:
            yield
        finally:
            self._release(requester)

    async def _acquire(self, requester: Requester) -> None:
        own = self._running.count(requester) + self.waiting.count(requester)
        if own >= self.most_of_requester:
            raise TooManyAtOnceException
        if len(self._running) < self.count:
            self._grant(requester)
            return
        ticket = _Ticket(requester, asyncio.get_running_loop().create_future())
        self._waiting.append(ticket)
        try:
            async with asyncio.timeout(self.wait_seconds):
                await ticket.granted
        except BaseException as error:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            else:
                # The slot was granted in the same moment; release it.
                self._release(requester)
            if isinstance(error, TimeoutError):
                raise ServerBusyException from error
            raise

    def _grant(self, requester: Requester) -> None:
        self._running.append(requester)
        if len(self._served) > MOST_REMEMBERED:
            self._served.clear()
        self._grants += 1
        self._served[requester.tenant] = self._served[requester] = self._grants

    def _release(self, requester: Requester) -> None:
        self._running.remove(requester)
        if not self._waiting:
            # Without a queue there are no turns to remember.
            self._served.clear()
            return
        following = min(self._waiting, key=self._last_served)
        self._waiting.remove(following)
        self._grant(following.requester)
        following.granted.set_result(None)

    def _last_served(self, ticket: _Ticket) -> tuple[int, int]:
        requester = ticket.requester
        return self._served.get(requester.tenant, 0), self._served.get(requester, 0)
