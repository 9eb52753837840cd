"""Fair slots: tenants take turns, and within one its members; nobody waits or asks without a bound."""

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
    """Requests that each hold a slot for a moment, and the order in which they got it."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.served: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def add(self, name: str, tenant: TenantId | None, member: str = "a") -> asyncio.Task[None]:
        """Have a request wait, or be served."""
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
    """A crowd that waits because somebody holds a slot; when the block ends all of it is served."""
    crowd = _Crowd(slots)
    async with slots.hold(Requester(by, "a")):
        yield crowd
    await asyncio.gather(*crowd.tasks, return_exceptions=True)


async def _breathe() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_whoever_has_not_been_served_passes_a_crowd_of_one_tenant() -> None:
    async with _taken(FairSlots(1, wait_seconds=20)) as crowd:
        for number in range(4):
            await crowd.add(f"acme {number}", ACME)
        await crowd.add("other", OTHER)
    assert crowd.served == ["other", "acme 0", "acme 1", "acme 2", "acme 3"]


async def test_tenants_take_turns_and_members_within_them_and_those_of_no_tenant_are_one() -> None:
    async with _taken(FairSlots(1, wait_seconds=20), by=OTHER) as crowd:
        for member in ("a", "b"):
            for number in (1, 2):
                await crowd.add(f"acme {member}{number}", ACME, member)
        for member in ("c", "d", "e"):
            await crowd.add(f"nobody {member}", None, member)
    assert crowd.served == ["acme a1", "nobody c", "acme b1", "nobody d", "acme a2", "nobody e", "acme b2"]


async def test_slots_that_are_free_are_given_at_once_and_no_more_of_them() -> None:
    slots = FairSlots(2, wait_seconds=20)
    async with slots.hold(Requester(ACME, "a")), slots.hold(Requester(ACME, "a")):
        crowd = _Crowd(slots)
        waiting = await crowd.add("third", ACME)
        assert crowd.served == []
    await waiting
    async with slots.hold(Requester(ACME, "a")), slots.hold(Requester(ACME, "a")):
        assert crowd.served == ["third"]


async def test_who_waits_too_long_is_told_and_stands_in_nobodys_way() -> None:
    slots = FairSlots(1, wait_seconds=0.01)
    async with slots.hold(Requester(ACME, "a")):
        with pytest.raises(ServerBusyException):
            async with slots.hold(Requester(OTHER, "a")):
                pass
    async with slots.hold(Requester(OTHER, "a")):
        pass


async def test_who_gives_up_while_waiting_or_just_when_served_leaves_the_slot() -> None:
    slots = FairSlots(1, wait_seconds=20)
    crowd = _Crowd(slots)
    async with slots.hold(Requester(ACME, "a")):
        waiting = await crowd.add("waiting", OTHER)
        waiting.cancel()
        await _breathe()
        granted = await crowd.add("granted", OTHER)
    # It has the slot by now, and has yet to notice.
    granted.cancel()
    await _breathe()
    async with slots.hold(Requester(ACME, "a")):
        assert (waiting.cancelled(), granted.cancelled(), crowd.served) == (True, True, [])


async def test_one_requester_has_no_more_under_way_than_it_may() -> None:
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
