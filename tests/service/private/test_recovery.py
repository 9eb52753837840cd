"""Recovery: what a crash or an outage left behind is finished, once."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from pixyproxy.core import clock
from pixyproxy.core.exceptions import DatabaseUnavailableException
from pixyproxy.core.models.generation import Generation, GenerationGuid, GenerationStatus, ProcessGuid
from pixyproxy.core.models.image import ImageFilter, ImageGuid, StoredImage
from pixyproxy.core.models.order import InputPicture, ReceivedPicture, UpstreamAnswer
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS, RefreshToken
from pixyproxy.data.database import Database, Repositories, UnitOfWork
from pixyproxy.data.spool import Spool, SpoolEntry, SpoolFolder
from pixyproxy.data.store.local import LocalStore
from pixyproxy.service.private.images import ImageEditor
from pixyproxy.service.private.recovery import FOUND_AT_ONCE, INTERVAL_SECONDS
from tests.service.private.conftest import Outage
from tests.service.private.identity import OPERATOR, Identity
from tests.service.private.processes import PRICE, Process, start_process
from tests.support import pictures
from tests.support.builders import MOMENT, add_generation, find_picture, new_guid, new_order, new_refresh_token
from tests.support.drawing import FakeDrawer

pytestmark = pytest.mark.anyio
ACCEPTED, CALLING, STORED, FAILED, UNKNOWN = GenerationStatus
Result = TypeVar("Result")
MONTH = "2026-11"
PICTURE = pictures.png(32, 16)
MINUTE = timedelta(seconds=60)


def _die(spool: Spool) -> SpoolFolder:
    """The folder of a process of this machine that was killed: a lock that nobody holds."""
    owner = ProcessGuid(new_guid())
    folder = spool.folder_of(owner)
    folder.path.mkdir(parents=True)
    (spool.folder / f"{owner}.lock").touch()
    return folder


def _reserved(data: Repositories, tenant: Tenant, order: dict[str, object]) -> Generation:
    data.budgets.reserve(MONTH, PRICE, tenant_id=tenant.id)
    return add_generation(data, tenant.id, **order)


async def _claim(process: Process, tenant: Tenant, owner: ProcessGuid, **changes: object) -> Generation:
    """A generation of a process, whose lease lasts, with its budget reserved."""
    order: dict[str, object] = {
        "idempotency_key": new_guid(),
        "model": "priced",
        "budget_month": MONTH,
        "reserved_micro_usd": PRICE,
        "lease_owner": owner,
        "lease_until": clock.now() + MINUTE,
    }
    return await process.database.write(lambda data: _reserved(data, tenant, order | changes))


async def _leave(generation: Generation, folder: SpoolFolder, *contents: bytes) -> None:
    """Put an answer with these pictures into a folder, as a process does before it records them."""
    received = []
    for index, content in enumerate(contents):
        folder.picture(generation.guid, index).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        received.append(
            ReceivedPicture(media_type="image/png", byte_size=len(content), sha256=digest, width=32, height=16)
        )
    entry = SpoolEntry(
        generation=generation.guid, upstream="a", pictures=tuple(received), answer=UpstreamAnswer(facts={"created": 1})
    )
    folder.commit(entry)


async def _left_behind(process: Process, tenant: Tenant, folder: SpoolFolder | None = None) -> Generation:
    """What a process leaves that is killed between the upstream's answer and the commit."""
    folder = folder or _die(process.spool)
    generation = await _claim(process, tenant, folder.owner)
    await _leave(generation, folder, PICTURE)
    return generation


async def _images(process: Process, tenant: Tenant) -> list[StoredImage]:
    wanted = ImageFilter(mine=True)
    return await process.database.read(
        lambda data: data.images.list_visible(wanted, tenant_id=tenant.id, before=None, limit=100)
    )


async def _spent_and_reserved(process: Process, tenant: Tenant) -> tuple[int, int]:
    spending = await process.database.read(lambda data: data.budgets.get(MONTH, tenant_id=tenant.id))
    return spending.spent_micro_usd, spending.reserved_micro_usd


@pytest.fixture
async def other(database: Database, store: LocalStore, drawer: FakeDrawer) -> AsyncIterator[Process]:
    """Another process of this machine."""
    started = start_process(database, store, drawer.pooled())
    yield started
    await started.stop()


async def test_a_picture_left_behind_is_recorded_as_what_it_is(process: Process, tenant: Tenant) -> None:
    generation = await _left_behind(process, tenant)
    await process.recovery.recover()
    (image,) = await _images(process, tenant)
    assert (image.guid, image.prompt, image.model) == (generation.image_guids[0], generation.order.prompt, "priced")
    assert (image.filename, image.visibility) == (generation.filename, generation.visibility)
    assert (image.width, image.height, image.byte_size) == (32, 16, len(PICTURE))
    assert image.sha256 == hashlib.sha256(await process.store.read(image.guid, "image/png")).hexdigest()
    stored = await process.generation(generation.guid)
    assert (stored.status, stored.upstream, stored.cost_micro_usd) == (STORED, "a", PRICE)
    assert await _spent_and_reserved(process, tenant) == (PRICE, 0)
    assert list(process.spool.folder.iterdir()) == []


@pytest.mark.parametrize("moved", [0, 1, 2], ids=["none", "one", "both"])
async def test_a_process_that_died_while_pictures_moved_to_the_store_lost_none(
    process: Process, tenant: Tenant, moved: int
) -> None:
    folder = _die(process.spool)
    guids = (ImageGuid(new_guid()), ImageGuid(new_guid()))
    generation = await _claim(process, tenant, folder.owner, order=new_order(count=2), image_guids=guids)
    await _leave(generation, folder, PICTURE, PICTURE)
    for index in range(moved):
        process.store.adopt(folder.picture(generation.guid, index), guids[index], "image/png")
    await process.recovery.recover()
    assert {image.guid for image in await _images(process, tenant)} == set(guids)
    assert [find_picture(process.store, guid) for guid in guids] == ["image/png", "image/png"]


async def test_recoveries_at_once_record_one_image_and_charge_it_once(
    process: Process, other: Process, tenant: Tenant
) -> None:
    await _left_behind(process, tenant)
    await asyncio.gather(*(each.recovery.recover() for each in (process, other) * 3))
    assert len(await _images(process, tenant)) == 1
    assert await _spent_and_reserved(process, tenant) == (PRICE, 0)


async def test_a_picture_whose_record_was_written_is_recorded_and_charged_once(
    process: Process, tenant: Tenant
) -> None:
    folder = _die(process.spool)
    generation = await _left_behind(process, tenant, folder)
    (entry,), _ = await folder.entries()
    stored = await process.engine.finish(generation, entry, folder)
    await process.recovery.recover()
    assert await _images(process, tenant) == list(stored.images)
    assert await _spent_and_reserved(process, tenant) == (PRICE, 0)
    assert list(process.spool.folder.iterdir()) == []


async def test_an_outage_leaves_the_picture_and_its_end_finishes_it(
    process: Process, tenant: Tenant, outage: Outage
) -> None:
    await _left_behind(process, tenant)
    outage.lasts = True
    with pytest.raises(DatabaseUnavailableException):
        await process.recovery.recover()
    outage.lasts = False
    await process.recovery.recover()
    assert len(await _images(process, tenant)) == 1


async def test_a_picture_that_cannot_be_recorded_does_not_keep_the_others_from_it(
    process: Process, tenant: Tenant
) -> None:
    folder = _die(process.spool)
    damaged, whole = [await _left_behind(process, tenant, folder) for _ in range(2)]
    in_the_way = process.store.path(damaged.image_guids[0], "image/png")
    in_the_way.mkdir(parents=True)
    await process.recovery.recover()
    assert [found.guid for found in await _images(process, tenant)] == list(whole.image_guids)
    assert folder.picture(damaged.guid, 0).read_bytes() == PICTURE
    assert (await process.generation(damaged.guid)).status is CALLING
    in_the_way.rmdir()
    await process.recovery.recover()
    assert len(await _images(process, tenant)) == 2
    assert await _spent_and_reserved(process, tenant) == (2 * PRICE, 0)
    assert list(process.spool.folder.iterdir()) == []


async def test_an_entry_of_a_generation_that_nobody_knows_any_more_goes(process: Process, tenant: Tenant) -> None:
    generation = await _left_behind(process, tenant)
    await process.database.write(
        lambda data: data.connection.exec_driver_sql(f"DELETE FROM generations WHERE id = {generation.id}")
    )
    await process.recovery.recover()
    assert list(process.spool.folder.iterdir()) == []
    assert list(process.store.folder.rglob("*.png")) == []


async def test_recovery_records_what_a_crash_left_of_a_deleted_tenant_and_then_it_goes_too(
    identity: Identity, process: Process, tenant: Tenant
) -> None:
    generation = await _left_behind(process, tenant)
    await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    await process.recovery.recover()
    await process.recovery.removal.remove_all()
    assert await process.database.read(lambda data: data.tenants.get_by_id(tenant.id)) is None
    assert find_picture(process.store, generation.image_guids[0]) is None


async def test_a_picture_that_was_recorded_and_deleted_is_not_recorded_again(process: Process, tenant: Tenant) -> None:
    folder = _die(process.spool)
    generation = await _left_behind(process, tenant, folder)
    (entry,), _ = await folder.entries()
    (image,) = (await process.engine.finish(generation, entry, folder)).images
    await process.database.write(lambda data: data.images.delete(image.guid, tenant_id=tenant.id))
    await process.recovery.recover()
    assert await _images(process, tenant) == []
    assert find_picture(process.store, image.guid) is None
    assert list(process.spool.folder.iterdir()) == []


async def test_an_entry_whose_pictures_were_recorded_and_deleted_is_removed(
    process: Process, tenant: Tenant, principal: Principal
) -> None:
    folder = _die(process.spool)
    generation = await _left_behind(process, tenant, folder)
    (entry,), _ = await folder.entries()
    (image,) = (await process.engine.finish(generation, entry, folder)).images
    await ImageEditor(process.database, process.store).delete_image(image.guid, principal=principal)
    await process.recovery.recover()
    assert await _images(process, tenant) == []
    assert list(process.spool.folder.iterdir()) == []


async def test_what_a_living_process_has_in_the_spool_is_its_own(
    process: Process, other: Process, tenant: Tenant
) -> None:
    generation = await _left_behind(process, tenant, other.spool.own)
    await process.recovery.recover()
    assert await _images(process, tenant) == []
    assert (await process.generation(generation.guid)).status is CALLING


async def test_a_call_that_its_process_did_not_survive_is_unknown_and_its_budget_held(
    process: Process, tenant: Tenant
) -> None:
    generation = await _claim(process, tenant, _die(process.spool).owner)
    await process.recovery.recover()
    ended = await process.generation(generation.guid)
    assert (ended.status, ended.idempotency_key) == (UNKNOWN, generation.idempotency_key)
    assert await _spent_and_reserved(process, tenant) == (0, PRICE)


@pytest.mark.parametrize(("seconds", "status"), [(-2, UNKNOWN), (60, CALLING)], ids=["over", "lasts"])
async def test_the_lease_of_another_machine_is_respected_until_it_is_over(
    process: Process, tenant: Tenant, seconds: int, status: GenerationStatus
) -> None:
    until = clock.now() + timedelta(seconds=seconds)
    generation = await _claim(process, tenant, ProcessGuid(new_guid()), lease_until=until)
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is status


@pytest.mark.parametrize(("seconds", "status"), [(-2, GenerationStatus.UNKNOWN), (60, GenerationStatus.CALLING)])
async def test_what_this_process_lost_track_of_is_given_up_with_its_lease(
    process: Process, tenant: Tenant, seconds: int, status: GenerationStatus
) -> None:
    until = clock.now() + timedelta(seconds=seconds)
    generation = await _claim(process, tenant, process.spool.owner, lease_until=until, status=GenerationStatus.CALLING)
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is status


async def test_what_a_first_release_left_calling_is_unknown(process: Process, tenant: Tenant) -> None:
    generation = await process.database.write(lambda data: add_generation(data, tenant.id, created_at=MOMENT))
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is UNKNOWN


async def test_a_picture_whose_generation_was_given_up_meanwhile_is_stored(process: Process, tenant: Tenant) -> None:
    """Its machine was away for longer than its lease."""
    folder = process.spool.folder_of(ProcessGuid(new_guid()))
    generation = await _claim(process, tenant, folder.owner, lease_until=clock.now() - MINUTE)
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is UNKNOWN
    folder.path.mkdir(parents=True)
    (process.spool.folder / f"{folder.owner}.lock").touch()
    await _leave(generation, folder, PICTURE)
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is STORED
    assert await _spent_and_reserved(process, tenant) == (PRICE, 0)


async def test_what_was_only_accepted_is_executed_once(
    process: Process, other: Process, tenant: Tenant, drawer: FakeDrawer
) -> None:
    generation = await _claim(process, tenant, _die(process.spool).owner, status=ACCEPTED)
    # Whichever finds it first executes it.
    owners = {process.spool.owner, other.spool.owner}
    await asyncio.gather(*(each.recovery.recover() for each in (process, other) * 3))
    for each in (process, other):
        await each.finish()
    stored = await process.generation(generation.guid)
    assert stored.status is STORED
    assert stored.lease_owner in owners
    assert len(drawer.asked) == 1
    assert await _spent_and_reserved(process, tenant) == (PRICE, 0)


async def _claim_edit(process: Process, tenant: Tenant, owner: ProcessGuid, *, count: int = 1) -> Generation:
    content = InputPicture(field="image", media_type="image/png", byte_size=len(PICTURE), sha256="a" * 64)
    order = new_order(model="priced", inputs=(content,) * count)
    return await _claim(process, tenant, owner, status=ACCEPTED, order=order, lease_until=None)


async def test_the_pictures_of_an_accepted_edit_come_along(
    process: Process, tenant: Tenant, drawer: FakeDrawer
) -> None:
    folder = _die(process.spool)
    generation = await _claim_edit(process, tenant, folder.owner)
    folder.input(generation.guid, 0).write_bytes(PICTURE)
    await process.recovery.recover()
    await process.finish()
    assert drawer.inputs == [[PICTURE]]
    assert (await process.generation(generation.guid)).status is STORED
    assert process.spooled == []


async def test_an_edit_whose_pictures_are_on_another_machine_failed_and_costs_nothing(
    process: Process, tenant: Tenant, drawer: FakeDrawer
) -> None:
    generation = await _claim_edit(process, tenant, ProcessGuid(new_guid()))
    await process.recovery.recover()
    ended = await process.generation(generation.guid)
    assert (ended.status, ended.idempotency_key, drawer.asked) == (FAILED, None, [])
    assert ended.error is not None
    assert ended.error.code == "invalid_input_picture"
    assert await _spent_and_reserved(process, tenant) == (0, 0)


async def test_an_edit_whose_pictures_a_living_process_has_is_left_to_it(
    process: Process, other: Process, tenant: Tenant, drawer: FakeDrawer
) -> None:
    folder = _die(process.spool)
    generation = await _claim_edit(process, tenant, folder.owner, count=2)
    other.spool.own.input(generation.guid, 0).write_bytes(b"0")
    folder.input(generation.guid, 1).write_bytes(b"1")
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is ACCEPTED
    assert folder.input(generation.guid, 1).is_file()
    await other.recovery.recover()
    await other.finish()
    assert (await process.generation(generation.guid)).status is STORED
    assert drawer.inputs == [[b"0", b"1"]]


async def test_a_folder_stays_while_more_generations_are_abandoned_than_one_round_finds(
    process: Process, tenant: Tenant, drawer: FakeDrawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixyproxy.service.private.recovery.GENERATIONS_AT_ONCE", 1)
    older = await _claim(process, tenant, ProcessGuid(new_guid()), lease_until=None)
    folder = _die(process.spool)
    edit = await _claim_edit(process, tenant, folder.owner)
    folder.input(edit.guid, 0).write_bytes(PICTURE)
    statuses = []
    for _ in range(2):
        await process.recovery.recover()
        await process.finish()
        statuses.append([(await process.generation(each.guid)).status for each in (older, edit)])
    assert statuses == [[UNKNOWN, ACCEPTED], [UNKNOWN, STORED]]
    assert drawer.inputs == [[PICTURE]]


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  (files and rows have no event to wait for)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _recovering(process: Process) -> AsyncIterator[None]:
    """Recover in rounds, as a server does, until the exit."""
    running = asyncio.create_task(process.recovery.run_forever())
    yield
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_recoveries_at_once_do_not_take_each_others_pictures_for_missing(
    process: Process, other: Process, tenant: Tenant, drawer: FakeDrawer
) -> None:
    folder = _die(process.spool)
    generations = [await _claim_edit(process, tenant, folder.owner, count=3) for _ in range(5)]
    for generation in generations:
        for index in range(3):
            folder.input(generation.guid, index).write_bytes(PICTURE)

    async def taken_over() -> bool:
        await asyncio.gather(*(each.recovery.recover() for each in (process, other) * 3))
        return ACCEPTED not in {(await process.generation(each.guid)).status for each in generations}

    await _eventually(taken_over)
    for each in (process, other):
        await each.finish()
    assert {(await process.generation(each.guid)).status for each in generations} == {STORED}
    assert drawer.inputs == [[PICTURE] * 3] * 5


async def test_an_order_that_cannot_be_taken_over_does_not_keep_the_others_from_it(
    process: Process, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    folder = _die(process.spool)
    edit = await _claim_edit(process, tenant, folder.owner)
    folder.input(edit.guid, 0).write_bytes(PICTURE)
    called = await _claim(process, tenant, folder.owner)
    other = await _claim(process, tenant, ProcessGuid(new_guid()), lease_until=None)
    in_the_way = process.spool.folder / process.spool.owner
    in_the_way.write_bytes(b"")
    await process.recovery.recover()
    statuses = [(await process.generation(each.guid)).status for each in (edit, called, other)]
    assert statuses == [ACCEPTED, UNKNOWN, UNKNOWN]
    assert f"recovery could not finish generation {edit.guid} and will go on" in caplog.text
    in_the_way.unlink()
    await process.recovery.recover()
    await process.finish()
    assert (await process.generation(edit.guid)).status is STORED
    assert process.spooled == []


def _process_with_one_place(database: Database, store: LocalStore) -> tuple[Process, FakeDrawer]:
    """A process that draws one order, at a gate that is closed, and in which one more may wait."""
    drawer = FakeDrawer()
    drawer.close_gate()
    return start_process(database, store, drawer.pooled(concurrency=1), queue_size=1), drawer


async def test_what_no_upstream_can_draw_any_more_failed_and_costs_nothing(
    database: Database, store: LocalStore, tenant: Tenant
) -> None:
    process, drawer = _process_with_one_place(database, store)
    folder = _die(process.spool)
    claimed = [await _claim(process, tenant, folder.owner, status=ACCEPTED) for _ in range(3)]
    await process.recovery.recover()
    statuses = [(await process.generation(each.guid)).status for each in claimed]
    assert statuses[1:] == [ACCEPTED, FAILED]
    drawer.open_gate()
    await process.finish()
    assert [(await process.generation(each.guid)).status for each in claimed] == [STORED, STORED, FAILED]
    assert await _spent_and_reserved(process, tenant) == (2 * PRICE, 0)
    await process.stop()


async def test_a_process_that_stops_leaves_what_it_has_accepted_to_others_at_once(  # noqa: PLR0913, PLR0917
    database: Database,
    store: LocalStore,
    process: Process,
    tenant: Tenant,
    drawer: FakeDrawer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pixyproxy.service.private.detached.LEAST_SECONDS", 0)
    stopping_drawer = FakeDrawer()
    stopping_drawer.close_gate()
    stopping = start_process(database, store, stopping_drawer.pooled(concurrency=1))
    folder = _die(process.spool)
    claimed = [await _claim(process, tenant, folder.owner, status=ACCEPTED) for _ in range(2)]
    await stopping.recovery.recover()
    await stopping_drawer.drawing.wait()
    await stopping.stop()
    await process.recovery.recover()
    await process.finish()
    assert [(await process.generation(each.guid)).status for each in claimed] == [UNKNOWN, STORED]
    assert (len(stopping_drawer.asked), len(drawer.asked)) == (1, 1)
    assert await _spent_and_reserved(process, tenant) == (PRICE, PRICE)


async def test_a_process_does_not_give_up_what_it_works_on_itself(
    process: Process, tenant: Tenant, drawer: FakeDrawer
) -> None:
    """A database that was away for longer than a lease kept it from being renewed."""
    drawer.close_gate()
    generation = await _claim(process, tenant, _die(process.spool).owner, status=ACCEPTED)
    await process.recovery.recover()
    await drawer.drawing.wait()
    await process.database.write(
        lambda data: data.connection.exec_driver_sql("UPDATE generations SET lease_until = '2026-01-01 00:00:00'")
    )
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is CALLING
    drawer.open_gate()
    await process.finish()
    assert (await process.generation(generation.guid)).status is STORED
    assert len(drawer.asked) == 1


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_it_sweeps_at_the_start_and_goes_on_through_an_outage(
    process: Process,
    tenant: Tenant,
    outage: Outage,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pixyproxy.service.private.recovery.INTERVAL_SECONDS", 0.05)
    await _left_behind(process, tenant)
    staged = process.store.folder / ".incoming" / "dead"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"half")
    os.utime(staged, (0, 0))

    async def failed() -> bool:
        return not staged.exists() and "recovery could not finish and will go on: database_unavailable" in caplog.text

    async def recorded() -> bool:
        return bool(await _images(process, tenant))

    outage.lasts = True
    async with _recovering(process):
        await _eventually(failed)
        outage.lasts = False
        await _eventually(recorded)


async def test_a_revoked_sign_in_is_known_until_the_last_of_its_access_tokens_has_expired(
    process: Process, tenant: Tenant
) -> None:
    """Access tokens live up to a day; the refresh token of the same sign-in may expire before them."""
    last_use = clock.now() - timedelta(seconds=LONGEST_TOKEN_SECONDS)
    kept, forgotten = [
        new_refresh_token(tenant.id, revoked_at=MOMENT, expires_at=last_use + difference)
        for difference in (MINUTE, -MINUTE)
    ]

    async def is_revoked(token: RefreshToken) -> bool:
        return await process.database.read(
            lambda data: data.refresh_tokens.is_session_revoked(token.session_guid, tenant_id=tenant.id)
        )

    async def is_forgotten() -> bool:
        return not await is_revoked(forgotten)

    await process.database.write(lambda data: _add_refresh_tokens(data, kept, forgotten))
    assert await is_revoked(forgotten)
    async with _recovering(process):
        await _eventually(is_forgotten)
    assert await is_revoked(kept)


def _add_refresh_tokens(data: Repositories, *tokens: RefreshToken) -> None:
    for token in tokens:
        data.refresh_tokens.insert(token)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_it_lets_go_of_answers_that_were_decided_on_elsewhere(process: Process, tenant: Tenant) -> None:
    unknown = await process.database.write(lambda data: add_generation(data, tenant.id, status=UNKNOWN))
    for guid in (unknown.guid, GenerationGuid(new_guid())):
        file = process.engine.answers.begin(guid)
        file.write(b"an answer")
        process.engine.answers.commit(file, pictures=[])

    async def removed() -> bool:
        return process.spooled == [f"{unknown.guid}.answer"]

    running = asyncio.create_task(process.recovery.run_forever())
    await _eventually(removed)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("status", [ACCEPTED, CALLING])
async def test_claims_of_which_nobody_could_know_end_unasked(
    process: Process, tenant: Tenant, drawer: FakeDrawer, status: GenerationStatus
) -> None:
    generation = await _claim(process, tenant, process.spool.owner, status=status)
    for guid in (*(new_guid() for _ in range(FOUND_AT_ONCE)), generation.guid):
        process.jobs.doubtful.add(GenerationGuid(guid))
    await _recover_doubtful(process)
    ended = await process.generation(generation.guid)
    assert (ended.status, ended.idempotency_key, drawer.asked) == (FAILED, None, [])
    assert await _spent_and_reserved(process, tenant) == (0, 0)


@dataclass(frozen=True, kw_only=True)
class _CommitLosingDatabase(Database):
    """A real database that commits its first change without saying so, and holds the read after that until it may."""

    lost: asyncio.Event = field(default_factory=asyncio.Event)
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    may_read: asyncio.Event = field(default_factory=asyncio.Event)

    async def _run(self, work: UnitOfWork[Result], *, writes: bool) -> Result:
        if self.lost.is_set() and not self.reading.is_set():
            self.reading.set()
            await self.may_read.wait()
        result = await super()._run(work, writes=writes)
        if writes and not self.lost.is_set():
            self.lost.set()
            raise DatabaseUnavailableException
        return result


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_claim_that_is_looked_for_after_its_commit_was_lost_is_not_ended_meanwhile(
    database: Database, store: LocalStore, drawer: FakeDrawer, principal: Principal
) -> None:
    losing = _CommitLosingDatabase(database.engine, database.slots, database.writers, database.wait_seconds)
    process = start_process(losing, store, drawer.pooled())
    submitting = asyncio.create_task(process.submit(principal=principal))
    await losing.reading.wait()
    running = asyncio.create_task(process.recovery.run_forever())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running, INTERVAL_SECONDS / 2)
    losing.may_read.set()
    submission = await submitting
    await process.finish()
    assert (await process.generation(submission.guid)).status is STORED
    await process.stop()


async def test_an_accepted_claim_that_was_forgotten_is_executed_once_when_its_lease_is_over(
    process: Process, tenant: Tenant, drawer: FakeDrawer
) -> None:
    over = clock.now() - MINUTE
    generation = await _claim(process, tenant, process.spool.owner, status=ACCEPTED, lease_until=over)
    for _ in range(2):
        await process.recovery.recover()
        await process.finish()
    assert (await process.generation(generation.guid)).status is STORED
    assert len(drawer.asked) == 1


async def test_a_folder_whose_entry_cannot_be_read_stays_as_it_is(process: Process, tenant: Tenant) -> None:
    folder = _die(process.spool)
    generation = await _left_behind(process, tenant, folder)
    (path,) = folder.path.glob("*.json")
    content = path.read_bytes()
    path.write_bytes(b"")
    await process.recovery.recover()
    assert folder.picture(generation.guid, 0).is_file()
    path.write_bytes(content)
    await process.recovery.recover()
    assert len(await _images(process, tenant)) == 1


async def _recover_doubtful(process: Process) -> None:
    """Go through rounds of recovery until nothing is in doubt."""

    async def known() -> bool:
        return process.jobs.doubtful.list_all() == []

    async with _recovering(process):
        await _eventually(known)


async def test_what_was_refused_is_ended_and_never_executed_however_late_that_is(
    process: Process, tenant: Tenant, drawer: FakeDrawer
) -> None:
    """Its lease is over, as after a long outage, and ending it has failed so far."""
    claim = await _claim(process, tenant, process.spool.owner, status=ACCEPTED, lease_until=clock.now() - MINUTE)
    process.jobs.doubtful.add(claim.guid)
    await process.recovery.recover()
    assert (await process.generation(claim.guid)).status is ACCEPTED
    await _recover_doubtful(process)
    await process.finish()
    assert (await process.generation(claim.guid)).status is FAILED
    assert drawer.asked == []
    assert await _spent_and_reserved(process, tenant) == (0, 0)


async def test_what_was_refused_and_is_executed_on_another_machine_is_left_to_that(
    process: Process, database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    drawer = FakeDrawer()
    drawer.close_gate()
    far = start_process(database, LocalStore(tmp_path / "far" / "images", room_bytes=1), drawer.pooled())
    claim = await _claim(process, tenant, process.spool.owner, status=ACCEPTED, lease_until=clock.now() - MINUTE)
    process.jobs.doubtful.add(claim.guid)
    await far.recovery.recover()
    await drawer.drawing.wait()
    await _recover_doubtful(process)
    drawer.open_gate()
    await far.finish()
    assert (await process.generation(claim.guid)).status is STORED
    assert find_picture(far.store, claim.image_guids[0])
    assert await _spent_and_reserved(process, tenant) == (PRICE, 0)
    await far.stop()


async def test_the_pictures_of_an_edit_that_finds_no_place_are_removed(
    database: Database, store: LocalStore, tenant: Tenant
) -> None:
    process, drawer = _process_with_one_place(database, store)
    folder = _die(process.spool)
    edits = [await _claim_edit(process, tenant, folder.owner) for _ in range(3)]
    for edit in edits:
        folder.input(edit.guid, 0).write_bytes(PICTURE)
    await process.recovery.recover()
    drawer.open_gate()
    await process.finish()
    assert [(await process.generation(edit.guid)).status for edit in edits] == [STORED, STORED, FAILED]
    assert process.spooled == []
    await process.stop()
