"""Fair slots: tenants take turns, and members within a tenant; waits and requests are limited."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pixyproxy.core.exceptions import ServerBusyException, TooManyAtOnceException
from pixyproxy.core.fair_slots import FairSlots, Requester
from pixyproxy.core.models.tenant import TenantId

pytestmark = pytest.mark.anyio
ACME, OTHER = TenantId(1), TenantId(2)


class _Crowd:
    """Requests that each hold a slot briefly, and the order in which they got it."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.served: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def add(self, name: str, tenant: TenantId | None, member: str = "a") -> asyncio.Task[None]:
        """Start a request, which waits or is served."""
        task = asyncio.create_task(self._hold(name, Requester(tenant, member)))
        self.tasks.append(task)
        await _breathe()
        return task

    async def _hold(self, name: str, requester: Requester) -> None:
        async with self.slots.hold(requester):
            self.served.append(name)
            await asyncio.sleep(0)


@asynccontextmanager
async def _taken(slots: FairSlots, by: TenantId = ACME) -> AsyncIterator[_Crowd]:
    """Yield a crowd that waits because a slot is held; serve all of it when the block ends."""
    crowd = _Crowd(slots)
    async with slots.hold(Requester(by, "a")):
        yield crowd
    await asyncio.gather(*crowd.tasks, return_exceptions=True)


async def _breathe() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_unserved_tenant_overtakes_requests_of_a_served_tenant() -> None:
    async with _taken(FairSlots(1, wait_seconds=20)) as crowd:
        for number in range(4):
            await crowd.add(f"acme {number}", ACME)
        await crowd.add("other", OTHER)
    assert crowd.served == ["other", "acme 0", "acme 1", "acme 2", "acme 3"]


async def test_tenants_take_turns_then_members_and_requests_without_tenant_count_as_one() -> None:
    async with _taken(FairSlots(1, wait_seconds=20), by=OTHER) as crowd:
        for member in ("a", "b"):
            for number in (1, 2):
                await crowd.add(f"acme {member}{number}", ACME, member)
        for member in ("c", "d", "e"):
            await crowd.add(f"nobody {member}", None, member)
    assert crowd.served == ["acme a1", "nobody c", "acme b1", "nobody d", "acme a2", "nobody e", "acme b2"]


async def test_only_free_slots_are_granted_at_once() -> None:
    slots = FairSlots(2, wait_seconds=20)
    async with slots.hold(Requester(ACME, "a")), slots.hold(Requester(ACME, "a")):
        crowd = _Crowd(slots)
        waiting = await crowd.add("third", ACME)
        assert crowd.served == []
    await waiting
    async with slots.hold(Requester(ACME, "a")), slots.hold(Requester(ACME, "a")):
        assert crowd.served == ["third"]


async def test_request_that_times_out_gets_error_and_leaves_the_queue() -> None:
    slots = FairSlots(1, wait_seconds=0.01)
    async with slots.hold(Requester(ACME, "a")):
        with pytest.raises(ServerBusyException):
            async with slots.hold(Requester(OTHER, "a")):
                pass
    async with slots.hold(Requester(OTHER, "a")):
        pass


async def test_cancelled_request_releases_its_slot() -> None:
    slots = FairSlots(1, wait_seconds=20)
    crowd = _Crowd(slots)
    async with slots.hold(Requester(ACME, "a")):
        waiting = await crowd.add("waiting", OTHER)
        waiting.cancel()
        await _breathe()
        granted = await crowd.add("granted", OTHER)
    # It has been granted the slot, but its task has not run yet.
    granted.cancel()
    await _breathe()
    async with slots.hold(Requester(ACME, "a")):
        assert (waiting.cancelled(), granted.cancelled(), crowd.served) == (True, True, [])


async def test_requests_of_one_requester_are_limited() -> None:
    slots = FairSlots(1, wait_seconds=20, most_of_requester=3)
    async with _taken(slots) as crowd:
        await crowd.add("second", ACME)
        await crowd.add("third", ACME)
        with pytest.raises(TooManyAtOnceException) as caught:
            async with slots.hold(Requester(ACME, "a")):
                pass
        assert caught.value.retry_after_seconds
        await crowd.add("another member", ACME, "b")
    async with slots.hold(Requester(ACME, "a")):
        assert crowd.served == ["another member", "second", "third"]
