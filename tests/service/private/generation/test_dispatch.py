"""Any process with capacity starts waiting orders, and none beyond its capacity."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from pixyproxy.core.models.generation import GenerationStatus
from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.models.principal import Principal
from pixyproxy.data.database import Database, UnitOfWork
from pixyproxy.data.files.store.local import LocalStore
from tests.service.private.processes import LONG_ENOUGH, Process, start_process
from tests.support.drawing import FakeDrawer

pytestmark = pytest.mark.anyio
ACCEPTED, CALLING, STORED, *_ = GenerationStatus


@pytest.fixture
def backend() -> str:
    """SQLite only: the SQL of the decisions is tested on both elsewhere."""
    return "sqlite"


async def _statuses(process: Process, guids: Sequence[str]) -> list[GenerationStatus]:
    return [(await process.generation(guid)).status for guid in guids]


async def test_process_executes_at_most_its_limit_at_once(
    database: Database, store: LocalStore, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    process = await start_process(database, store, drawer.pooled(), at_once=2)
    guids = [(await process.submit(principal=principal)).guid for _ in range(5)]
    await process.dispatcher.look()
    assert await _statuses(process, guids) == [CALLING] * 2 + [ACCEPTED] * 3
    other = await start_process(database, store, drawer.pooled(), at_once=2)
    await other.dispatcher.look()
    assert await _statuses(process, guids) == [CALLING] * 4 + [ACCEPTED]
    owners = [(await process.generation(guid)).lease_owner for guid in guids]
    assert owners == [process.spool.owner] * 2 + [other.spool.owner] * 2 + [None]
    drawer.open_gate()
    async with asyncio.timeout(LONG_ENOUGH):
        for guid in guids:
            await process.watcher.outcome(guid, tenant_id=principal.tenant_id)
    for each in (process, other):
        await each.finish()
        assert each.slots.used == 0
        await each.stop()
    assert len(drawer.asked) == 5


async def test_stopping_process_takes_no_orders_and_another_does(
    database: Database, store: LocalStore, principal: Principal, drawer: FakeDrawer
) -> None:
    process = await start_process(database, store, drawer.pooled(concurrency=1))
    drawer.close_gate()
    first = (await process.submit(principal=principal)).guid
    await drawer.drawing.wait()
    process.slots.open = False
    waiting = (await process.submit(principal=principal)).guid
    drawer.open_gate()
    await process.finish()
    await process.dispatcher.look()
    assert await _statuses(process, [first, waiting]) == [STORED, ACCEPTED]
    other = await start_process(database, store, drawer.pooled(concurrency=1))
    made = await other.watcher.outcome(waiting, tenant_id=principal.tenant_id, seconds=LONG_ENOUGH)
    assert len(made.images) == 1
    for each in (process, other):
        await each.stop()


async def test_orders_for_another_processs_upstream_are_left_to_it(
    database: Database, store: LocalStore, principal: Principal
) -> None:
    one, two = FakeDrawer(name="one"), FakeDrawer(name="two")
    at_two = replace(two.pooled(), models=("sketch",))
    both = await start_process(database, store, replace(one.pooled(), models=("flare",)), at_two)
    only = await start_process(database, store, replace(one.pooled(), models=("flare",)))
    both.slots.open = False
    sketch = (await both.submit(ImagePrompt(prompt="a", model="sketch"), principal=principal)).guid
    flare = (await both.submit(ImagePrompt(prompt="a", model="flare"), principal=principal)).guid
    await only.watcher.outcome(flare, tenant_id=principal.tenant_id, seconds=LONG_ENOUGH)
    assert await _statuses(only, [sketch]) == [ACCEPTED]
    both.slots.open = True
    await both.watcher.outcome(sketch, tenant_id=principal.tenant_id, seconds=LONG_ENOUGH)
    assert (len(one.asked), len(two.asked)) == (1, 1)
    for each in (both, only):
        await each.finish()
        await each.stop()


async def test_process_holds_its_lock_before_it_owns_an_order(
    process: Process, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then does its machine notice at once that it is dead."""
    held = []
    decide = process.slots.decide

    async def watched(database: Database, work: UnitOfWork[Any]) -> object:
        held.append(process.spool.is_held)
        return await decide(database, work)

    monkeypatch.setattr(process.slots, "decide", watched)
    await process.make(principal=principal)
    assert set(held) == {True}
