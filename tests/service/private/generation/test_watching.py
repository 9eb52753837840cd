"""Every way to watch a generation shows the same state, from any process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.generation import Generation, GenerationFilter, GenerationGuid, GenerationStatus
from pixyproxy.core.models.order import NewOrder
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.private.generation.settlement import outcome_of, settle
from pixyproxy.service.private.generation.watching import (
    ACCEPTED_ID,
    CALLING_ID,
    FINAL_ID,
    FIRST_PREVIEW_ID,
    GenerationEvent,
    GenerationState,
    GenerationWatcher,
    Preview,
)
from tests.service.private.processes import LONG_ENOUGH, Process, start_process
from tests.support import pictures
from tests.support.builders import add_generation, new_guid
from tests.support.drawing import FakeDrawer

pytestmark = pytest.mark.anyio
ACCEPTED, CALLING, STORED, FAILED, UNKNOWN, CANCELLED = GenerationStatus
WITH_PREVIEWS = NewOrder(prompt="a red fox", previews=2)


@pytest.fixture
async def other(database: Database, store: LocalStore, drawer: FakeDrawer) -> AsyncIterator[GenerationWatcher]:
    """Yield the watcher of another process on this machine."""
    started = await start_process(database, store, drawer.pooled())
    yield started.watcher
    await started.stop()


@pytest.fixture
async def narrow(database: Database, store: LocalStore, drawer: FakeDrawer) -> AsyncIterator[Process]:
    """Yield a process whose upstream has one slot, and whose fake upstream is blocked."""
    drawer.close_gate()
    started = await start_process(database, store, drawer.pooled(concurrency=1))
    yield started
    await started.stop()


async def _follow(
    watcher: GenerationWatcher, guid: GenerationGuid, principal: Principal, *, after: int = 0, until: int = FINAL_ID
) -> list[GenerationEvent]:
    """Return the events between two ids, from after the first to the second inclusive."""
    seen = []
    async with asyncio.timeout(LONG_ENOUGH):
        stream = watcher.events(guid, tenant_id=principal.tenant_id, after=after)
        async with aclosing(stream):  # type: ignore[type-var]  # it is a generator, typed as what clients need
            async for event in stream:
                seen.append(event)
                if event.id >= until:
                    break
    return seen


def _ids(events: list[GenerationEvent]) -> list[int]:
    return [event.id for event in events]


def _final(events: list[GenerationEvent]) -> GenerationState:
    (last,) = [event.what for event in events if event.id == FINAL_ID]
    assert isinstance(last, GenerationState)
    return last


async def test_all_waiting_clients_get_the_same_pictures(
    process: Process, other: GenerationWatcher, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    guid = (await process.submit(principal=principal)).guid
    waiting = [
        asyncio.create_task(watcher.outcome(guid, tenant_id=principal.tenant_id, seconds=LONG_ENOUGH))
        for watcher in (process.watcher, other) * 3
    ]
    await drawer.drawing.wait()
    drawer.open_gate()
    found = await asyncio.gather(*waiting)
    await process.finish()
    found.append(await process.watcher.outcome(guid, tenant_id=principal.tenant_id))
    assert len({each.images for each in found}) == 1
    assert len(drawer.asked) == 1


async def test_cancelled_wait_does_not_affect_other_waits(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    guid = (await process.submit(principal=principal)).guid
    first, second = [
        asyncio.create_task(process.watcher.outcome(guid, tenant_id=principal.tenant_id)) for _ in range(2)
    ]
    await drawer.drawing.wait()
    first.cancel()
    await asyncio.wait([first])
    drawer.open_gate()
    assert (await second).images


async def test_timed_out_wait_does_not_stop_the_work(
    process: Process, other: GenerationWatcher, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    guid = (await process.submit(principal=principal)).guid
    for watcher in (process.watcher, other):
        for seconds in (0, 0.01):
            with pytest.raises(TimeoutError):
                await watcher.outcome(guid, tenant_id=principal.tenant_id, seconds=seconds)
    drawer.open_gate()
    assert (await process.watcher.outcome(guid, tenant_id=principal.tenant_id)).images


@pytest.mark.parametrize(
    ("error", "told_later"),
    [
        (core.PromptRefusedException(context={"a": "b"}), core.PromptRefusedException),
        (core.UpstreamBusyException(retry_after_seconds=7), core.UpstreamBusyException),
        (core.UpstreamAnswerException(), core.UpstreamAnswerException),
        (core.UpstreamSilentException(), core.GenerationUnknownException),
    ],
    ids=lambda value: getattr(value, "code", None),
)
async def test_later_request_gets_the_same_error(
    process: Process,
    principal: Principal,
    drawer: FakeDrawer,
    error: core.ImageGenerationException,
    told_later: type[core.PixyProxyException],
) -> None:
    drawer.error = error
    guid = (await process.submit(principal=principal)).guid
    with pytest.raises(type(error)):
        await process.watcher.outcome(guid, tenant_id=principal.tenant_id)
    await process.finish()
    with pytest.raises(told_later) as caught:
        await process.watcher.outcome(guid, tenant_id=principal.tenant_id)
    assert caught.value.code == told_later.code
    assert caught.value.retry_after_seconds == error.retry_after_seconds
    assert caught.value.context.items() >= error.context.items()


@pytest.mark.parametrize("over", [True, False])
async def test_generation_of_another_tenant_looks_missing(
    process: Process, principal: Principal, other_principal: Principal, drawer: FakeDrawer, *, over: bool
) -> None:
    drawer.close_gate()
    mine = (await process.submit(principal=principal)).guid
    await drawer.drawing.wait()
    if over:
        drawer.open_gate()
        await process.finish()
    for guid in (mine, GenerationGuid(new_guid())):
        with pytest.raises(core.GenerationNotFoundException):
            await process.watcher.outcome(guid, tenant_id=other_principal.tenant_id)
        with pytest.raises(core.GenerationNotFoundException):
            await process.watcher.state(guid, tenant_id=other_principal.tenant_id)
        with pytest.raises(core.GenerationNotFoundException):
            await _follow(process.watcher, guid, other_principal)


async def test_list_is_paged_newest_first_and_per_tenant(
    process: Process, principal: Principal, other_principal: Principal
) -> None:
    made = [await process.make(principal=principal) for _ in range(3)]
    await process.make(principal=other_principal)
    wanted, tenant_id = GenerationFilter(), principal.tenant_id
    first = await process.watcher.list_generations(wanted, tenant_id=tenant_id, limit=2, cursor=None)
    assert first.generations == [made[2], made[1]]
    last = await process.watcher.list_generations(wanted, tenant_id=tenant_id, limit=2, cursor=first.next_cursor)
    assert (last.generations, last.next_cursor) == ([made[0]], None)
    failed = GenerationFilter(status=FAILED)
    assert (await process.watcher.list_generations(failed, tenant_id=tenant_id, limit=2, cursor=None)).generations == []
    for cursor in ("nonsense", first.next_cursor):
        with pytest.raises(core.InvalidCursorException):
            await process.watcher.list_generations(failed, tenant_id=tenant_id, limit=2, cursor=cursor)


async def test_only_waiting_generations_have_a_queue_position(
    narrow: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    guids = [(await narrow.submit(principal=principal)).guid for _ in range(3)]
    state = [await narrow.watcher.state(guid, tenant_id=principal.tenant_id) for guid in guids]
    assert [(each.status, each.position) for each in state] == [(CALLING, None), (ACCEPTED, 1), (ACCEPTED, 2)]
    drawer.open_gate()
    await narrow.finish()
    state = [await narrow.watcher.state(guid, tenant_id=principal.tenant_id) for guid in guids]
    assert [(each.status, each.position) for each in state] == [(STORED, None)] * 3
    assert all(len(each.found.images) == 1 for each in state)


async def test_events_come_once_in_order_and_the_last_has_the_pictures(
    narrow: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    first = (await narrow.submit(principal=principal)).guid
    guid = (await narrow.submit(WITH_PREVIEWS, principal=principal)).guid
    following = asyncio.create_task(_follow(narrow.watcher, guid, principal))
    await _follow(narrow.watcher, guid, principal, until=ACCEPTED_ID)
    drawer.open_gate()
    events = await following
    # Its position in the queue may be reported again; every other event comes once.
    told = [event_id for event_id in _ids(events) if event_id > ACCEPTED_ID]
    assert _ids(events)[0] == ACCEPTED_ID
    assert told == sorted(set(told))
    assert [image.guid for image in _final(events).found.images] == list(_final(events).found.generation.image_guids)
    assert _final(await _follow(narrow.watcher, first, principal)).status is STORED


async def test_previews_are_complete_in_every_process(
    process: Process, other: GenerationWatcher, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    guid = (await process.submit(WITH_PREVIEWS, principal=principal)).guid
    await drawer.drawing.wait()
    for watcher in (process.watcher, other):
        events = await _follow(watcher, guid, principal, until=FIRST_PREVIEW_ID + 1)
        assert _ids(events) == [CALLING_ID, FIRST_PREVIEW_ID, FIRST_PREVIEW_ID + 1]
        shown = [event.what.path.read_bytes() for event in events if isinstance(event.what, Preview)]
        assert shown == [pictures.png(8, 8, seed=0), pictures.png(8, 8, seed=1)]
    drawer.open_gate()
    for watcher in (process.watcher, other):
        assert _final(await _follow(watcher, guid, principal, after=FIRST_PREVIEW_ID + 1)).status is STORED


@pytest.mark.parametrize("after", [0, ACCEPTED_ID, CALLING_ID, FIRST_PREVIEW_ID, FIRST_PREVIEW_ID + 1, FINAL_ID])
async def test_resumed_stream_has_only_new_events(
    process: Process, principal: Principal, drawer: FakeDrawer, after: int
) -> None:
    drawer.close_gate()
    guid = (await process.submit(WITH_PREVIEWS, principal=principal)).guid
    await drawer.drawing.wait()
    following = asyncio.create_task(_follow(process.watcher, guid, principal, after=after))
    await _follow(process.watcher, guid, principal, until=FIRST_PREVIEW_ID + 1)
    drawer.open_gate()
    everything = [CALLING_ID, FIRST_PREVIEW_ID, FIRST_PREVIEW_ID + 1, FINAL_ID]
    assert _ids(await following) == [event_id for event_id in everything if event_id > after]


@pytest.mark.parametrize(
    ("error", "status"),
    [(core.PromptRefusedException(), FAILED), (core.UpstreamSilentException(), UNKNOWN)],
    ids=["failed", "unknown"],
)
async def test_last_event_has_the_outcome(
    process: Process, principal: Principal, drawer: FakeDrawer, error: Exception, status: GenerationStatus
) -> None:
    drawer.error = error
    guid = (await process.submit(principal=principal)).guid
    last = _final(await _follow(process.watcher, guid, principal))
    assert last.status is status
    assert last.found.generation.error is not None
    assert last.found.images == ()


async def test_generation_of_another_machine_is_followed_by_polling(
    database: Database, other: GenerationWatcher, tenant: Tenant, principal: Principal
) -> None:
    def claim(data: Repositories) -> Generation:
        return add_generation(data, tenant.id, status=ACCEPTED, lease_owner=new_guid())

    generation = await database.write(claim)
    stream = other.events(generation.guid, tenant_id=principal.tenant_id, after=0)
    assert (await anext(stream)).id == ACCEPTED_ID
    outcome = outcome_of(core.PromptRefusedException(), asked=True)
    await database.write(lambda data: settle(data, generation, outcome))
    async with asyncio.timeout(LONG_ENOUGH):
        assert _ids([event async for event in stream]) == [FINAL_ID]


async def test_idle_stream_sends_heartbeats(process: Process, principal: Principal, drawer: FakeDrawer) -> None:
    drawer.close_gate()
    guid = (await process.submit(principal=principal)).guid
    await drawer.drawing.wait()
    patient = replace(process.watcher, heartbeat_seconds=0.01)
    seen = []
    async with asyncio.timeout(LONG_ENOUGH):
        async for event in patient.events(guid, tenant_id=principal.tenant_id, after=0):
            seen.append(event)
            if len(seen) == 3:
                drawer.open_gate()
    assert seen[0].id == CALLING_ID
    assert [(event.id, event.what) for event in seen[1:3]] == [(CALLING_ID, None)] * 2
    assert _final(seen).status is STORED


async def test_new_pictures_are_in_memory_and_later_in_files(process: Process, principal: Principal) -> None:
    made = await process.make(principal=principal)
    (content,) = await process.watcher.pictures(made)
    process.store.recent.forget(made.images[0].guid)
    (path,) = await process.watcher.pictures(made)
    assert isinstance(path, Path)
    assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(core.PictureMissingException):
        await process.watcher.pictures(made)
