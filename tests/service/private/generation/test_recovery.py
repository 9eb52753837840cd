"""Recovery finishes what a crash or an outage left behind, once."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import pytest

from pixyproxy.core import clock
from pixyproxy.core.exceptions import DatabaseUnavailableException
from pixyproxy.core.models.generation import (
    Generation,
    GenerationFilter,
    GenerationGuid,
    GenerationStatus,
    ProcessGuid,
)
from pixyproxy.core.models.image import ImageFilter, ImageGuid, ImagePrompt, StoredImage
from pixyproxy.core.models.order import InputPicture, ReceivedPicture, UpstreamAnswer
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS, RefreshToken
from pixyproxy.data.database import Database, Repositories, UnitOfWork
from pixyproxy.data.files.spool import Spool, SpoolEntry, SpoolFolder
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.private.images import ImageEditor
from pixyproxy.service.private.upstream.scheduling import LEASE_SECONDS
from tests.service.private.conftest import Outage
from tests.service.private.identities import OPERATOR, Identity
from tests.service.private.processes import PRICE, Process, start_process
from tests.support import pictures
from tests.support.builders import MOMENT, add_generation, find_picture, new_guid, new_order, new_refresh_token
from tests.support.drawing import FakeDrawer

pytestmark = pytest.mark.anyio
ACCEPTED, CALLING, STORED, FAILED, UNKNOWN, CANCELLED = GenerationStatus
Result = TypeVar("Result")
MONTH = "2026-11"
PICTURE = pictures.png(32, 16)
MINUTE = timedelta(seconds=60)


def _die(spool: Spool) -> SpoolFolder:
    """Return the folder of a killed process of this machine: its lock is not held."""
    owner = ProcessGuid(new_guid())
    folder = SpoolFolder(spool.folder / owner)
    folder.path.mkdir(parents=True)
    (spool.folder / f"{owner}.lock").touch()
    return folder


def _reserved(data: Repositories, tenant: Tenant, order: dict[str, object]) -> Generation:
    data.budgets.lock(MONTH, tenant_id=tenant.id)
    data.budgets.reserve(MONTH, PRICE, tenant_id=tenant.id)
    return add_generation(data, tenant.id, **order)


async def _claim(process: Process, tenant: Tenant, owner: ProcessGuid | None, **changes: object) -> Generation:
    """Add a process's generation with a valid lease and a reservation; without an owner, one that waits."""
    order: dict[str, object] = {
        "idempotency_key": new_guid(),
        "model": "priced",
        "budget_month": MONTH,
        "reserved_micro_usd": PRICE,
        "lease_owner": owner,
        "lease_until": None if owner is None else clock.now() + MINUTE,
        "status": ACCEPTED if owner is None else CALLING,
        "created_at": clock.now(),
    }
    return await process.database.write(lambda data: _reserved(data, tenant, order | changes))


async def _leave(generation: Generation, folder: SpoolFolder, *contents: bytes) -> None:
    """Write a response with these pictures to a folder, as a process does before recording them."""
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
    """Leave what a process leaves if it is killed between the upstream's response and the commit."""
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


def _trust_leases(process: Process) -> None:
    """Make a process settle orders with expired leases, as it does a minute after its start."""
    process.recovery.renewal.since -= LEASE_SECONDS


@pytest.fixture
async def other(database: Database, store: LocalStore, drawer: FakeDrawer) -> AsyncIterator[Process]:
    """Yield another process on this machine."""
    started = await start_process(database, store, drawer.pooled())
    yield started
    await started.stop()


async def test_left_picture_is_recorded_with_its_details(process: Process, tenant: Tenant) -> None:
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
async def test_crash_while_moving_pictures_loses_none(process: Process, tenant: Tenant, moved: int) -> None:
    folder = _die(process.spool)
    guids = (ImageGuid(new_guid()), ImageGuid(new_guid()))
    generation = await _claim(process, tenant, folder.owner, order=new_order(count=2), image_guids=guids)
    await _leave(generation, folder, PICTURE, PICTURE)
    for index in range(moved):
        process.store.adopt(folder.picture(generation.guid, index), guids[index], "image/png")
    await process.recovery.recover()
    assert {image.guid for image in await _images(process, tenant)} == set(guids)
    assert [find_picture(process.store, guid) for guid in guids] == ["image/png", "image/png"]


async def test_concurrent_recoveries_record_and_charge_once(process: Process, other: Process, tenant: Tenant) -> None:
    await _left_behind(process, tenant)
    await asyncio.gather(*(each.recovery.recover() for each in (process, other) * 3))
    assert len(await _images(process, tenant)) == 1
    assert await _spent_and_reserved(process, tenant) == (PRICE, 0)


async def test_already_recorded_picture_is_charged_once(process: Process, tenant: Tenant) -> None:
    folder = _die(process.spool)
    generation = await _left_behind(process, tenant, folder)
    (entry,), _ = await folder.entries()
    stored = await process.engine.finish(generation, entry, folder)
    await process.recovery.recover()
    assert await _images(process, tenant) == list(stored.images)
    assert await _spent_and_reserved(process, tenant) == (PRICE, 0)
    assert list(process.spool.folder.iterdir()) == []


async def test_picture_is_recorded_after_an_outage(process: Process, tenant: Tenant, outage: Outage) -> None:
    await _left_behind(process, tenant)
    outage.lasts = True
    with pytest.raises(DatabaseUnavailableException):
        await process.recovery.recover()
    outage.lasts = False
    await process.recovery.recover()
    assert len(await _images(process, tenant)) == 1


async def test_unrecordable_picture_does_not_block_others(process: Process, tenant: Tenant) -> None:
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


async def test_entry_of_a_missing_generation_is_removed(process: Process, tenant: Tenant) -> None:
    generation = await _left_behind(process, tenant)
    await process.database.write(
        lambda data: data.connection.exec_driver_sql(f"DELETE FROM generations WHERE id = {generation.id}")
    )
    await process.recovery.recover()
    assert list(process.spool.folder.iterdir()) == []
    assert list(process.store.folder.rglob("*.png")) == []


async def test_left_picture_of_a_deleted_tenant_is_recorded_and_removed(
    identity: Identity, process: Process, tenant: Tenant
) -> None:
    generation = await _left_behind(process, tenant)
    await identity.tenants.delete_tenant(tenant.guid, actor=OPERATOR)
    await process.recovery.recover()
    await process.recovery.removal.remove_all()
    assert await process.database.read(lambda data: data.tenants.get_by_id(tenant.id)) is None
    assert find_picture(process.store, generation.image_guids[0]) is None


async def test_deleted_picture_is_not_recorded_again(process: Process, tenant: Tenant) -> None:
    folder = _die(process.spool)
    generation = await _left_behind(process, tenant, folder)
    (entry,), _ = await folder.entries()
    (image,) = (await process.engine.finish(generation, entry, folder)).images
    await process.database.write(lambda data: data.images.delete(image.guid, tenant_id=tenant.id))
    await process.recovery.recover()
    assert await _images(process, tenant) == []
    assert find_picture(process.store, image.guid) is None
    assert list(process.spool.folder.iterdir()) == []


async def test_entry_of_deleted_pictures_is_removed(process: Process, tenant: Tenant, principal: Principal) -> None:
    folder = _die(process.spool)
    generation = await _left_behind(process, tenant, folder)
    (entry,), _ = await folder.entries()
    (image,) = (await process.engine.finish(generation, entry, folder)).images
    await ImageEditor(process.database, process.store).delete_image(image.guid, principal=principal)
    await process.recovery.recover()
    assert await _images(process, tenant) == []
    assert list(process.spool.folder.iterdir()) == []


async def test_spool_of_a_living_process_is_left_alone(process: Process, other: Process, tenant: Tenant) -> None:
    generation = await _left_behind(process, tenant, other.spool.own)
    await process.recovery.recover()
    assert await _images(process, tenant) == []
    assert (await process.generation(generation.guid)).status is CALLING


async def test_call_of_a_dead_process_is_unknown_and_keeps_its_budget(process: Process, tenant: Tenant) -> None:
    generation = await _claim(process, tenant, _die(process.spool).owner)
    await process.recovery.recover()
    ended = await process.generation(generation.guid)
    assert (ended.status, ended.idempotency_key) == (UNKNOWN, generation.idempotency_key)
    assert await _spent_and_reserved(process, tenant) == (0, PRICE)


@pytest.mark.parametrize(("seconds", "status"), [(-2, UNKNOWN), (60, CALLING)], ids=["over", "lasts"])
async def test_lease_of_another_machine_is_respected_until_expiry(
    process: Process, tenant: Tenant, seconds: int, status: GenerationStatus
) -> None:
    until = clock.now() + timedelta(seconds=seconds)
    generation = await _claim(process, tenant, ProcessGuid(new_guid()), lease_until=until)
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is CALLING
    _trust_leases(process)
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is status


@pytest.mark.parametrize(("seconds", "status"), [(-2, GenerationStatus.UNKNOWN), (60, GenerationStatus.CALLING)])
async def test_untracked_order_is_settled_when_its_lease_expires(
    process: Process, tenant: Tenant, seconds: int, status: GenerationStatus
) -> None:
    until = clock.now() + timedelta(seconds=seconds)
    generation = await _claim(process, tenant, process.spool.owner, lease_until=until)
    _trust_leases(process)
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is status


async def test_calling_generation_of_the_first_release_becomes_unknown(process: Process, tenant: Tenant) -> None:
    generation = await process.database.write(lambda data: add_generation(data, tenant.id, created_at=MOMENT))
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is UNKNOWN


async def test_picture_of_a_generation_settled_as_unknown_is_stored(process: Process, tenant: Tenant) -> None:
    """Its machine was unreachable for longer than its lease."""
    folder = SpoolFolder(process.spool.folder / new_guid())
    generation = await _claim(process, tenant, folder.owner, lease_until=clock.now() - MINUTE)
    _trust_leases(process)
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is UNKNOWN
    folder.path.mkdir(parents=True)
    (process.spool.folder / f"{folder.owner}.lock").touch()
    await _leave(generation, folder, PICTURE)
    await process.recovery.recover()
    assert (await process.generation(generation.guid)).status is STORED
    assert await _spent_and_reserved(process, tenant) == (PRICE, 0)


async def test_waiting_order_is_executed_once_by_any_process(
    process: Process, other: Process, tenant: Tenant, drawer: FakeDrawer
) -> None:
    generation = await _claim(process, tenant, None)
    await asyncio.gather(*(each.dispatcher.look() for each in (process, other) * 3))
    for each in (process, other):
        await each.finish()
    stored = await process.generation(generation.guid)
    assert stored.status is STORED
    assert len(drawer.asked) == 1
    assert await _spent_and_reserved(process, tenant) == (PRICE, 0)


async def _claim_edit(process: Process, tenant: Tenant, *, count: int = 1) -> Generation:
    content = InputPicture(field="image", media_type="image/png", byte_size=len(PICTURE), sha256="a" * 64)
    order = new_order(model="priced", inputs=(content,) * count)
    return await _claim(process, tenant, None, order=order)


async def test_edit_without_its_inputs_fails_at_no_cost(process: Process, tenant: Tenant, drawer: FakeDrawer) -> None:
    generation = await _claim_edit(process, tenant)
    await process.dispatcher.look()
    await process.finish()
    ended = await process.generation(generation.guid)
    assert (ended.status, ended.idempotency_key, drawer.asked) == (FAILED, None, [])
    assert ended.error is not None
    assert ended.error.code == "invalid_input_picture"
    assert await _spent_and_reserved(process, tenant) == (0, 0)


async def test_order_files_stay_until_the_order_finishes(
    process: Process, tenant: Tenant, drawer: FakeDrawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixyproxy.service.private.generation.recovery.ORDER_FILES_KEPT", timedelta(0))
    monkeypatch.setattr("pixyproxy.service.private.generation.recovery.INTERVAL_SECONDS", 0.05)
    files = process.store.orders
    old, young = GenerationGuid(new_guid()), GenerationGuid(new_guid())
    for guid in (old, young):
        files.prepare(guid)
    os.utime(files.folder / old, (0, 0))
    process.slots.open = False
    generation = await _claim_edit(process, tenant)
    files.prepare(generation.guid)
    files.input(generation.guid, 0).write_bytes(PICTURE)

    async def swept() -> bool:
        return not (files.folder / old).exists()

    async def over() -> bool:
        return not (files.folder / generation.guid).exists()

    async with _recovering(process):
        await _eventually(swept)
        assert files.input(generation.guid, 0).is_file()
        process.slots.open = True
        await _eventually(over)
    assert drawer.inputs == [[PICTURE]]
    # It may belong to an order that is about to be claimed.
    assert (files.folder / young).is_dir()


async def test_folder_stays_until_all_abandoned_generations_are_settled(
    process: Process, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixyproxy.service.private.generation.recovery.GENERATIONS_AT_ONCE", 1)
    folder = _die(process.spool)
    claimed = [await _claim(process, tenant, folder.owner) for _ in range(3)]
    rounds = []
    for _ in range(3):
        await process.recovery.recover()
        ended = [(await process.generation(each.guid)).status is UNKNOWN for each in claimed]
        rounds.append((ended.count(True), folder.path.exists()))
    assert rounds == [(2, True), (3, True), (3, False)]


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  (files and rows have no event to wait for)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _recovering(process: Process) -> AsyncIterator[None]:
    """Run recovery rounds, as a server does, until the exit."""
    running = asyncio.create_task(process.recovery.run_forever())
    yield
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_stopping_process_releases_waiting_orders_at_once(
    database: Database,
    store: LocalStore,
    tenant: Tenant,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pixyproxy.service.private.detached.LEAST_SECONDS", 0)
    drawer, stopping_drawer = FakeDrawer(), FakeDrawer()
    stopping_drawer.close_gate()
    stopping = await start_process(database, store, stopping_drawer.pooled(concurrency=1))
    submitted = [await stopping.submit(ImagePrompt(prompt=each, model="priced"), principal=principal) for each in "ab"]
    await stopping_drawer.drawing.wait()
    await stopping.stop()
    process = await start_process(database, store, drawer.pooled(concurrency=1))
    stored = await process.watcher.outcome(submitted[1].guid, tenant_id=tenant.id, seconds=20)
    await process.finish()
    assert (await process.generation(submitted[0].guid)).status is UNKNOWN
    assert (len(stopping_drawer.asked), len(drawer.asked)) == (1, 1)
    assert stored.generation.lease_owner == process.spool.owner
    spending = await process.spending(stored.generation)
    assert (spending.spent_micro_usd, spending.reserved_micro_usd) == (PRICE, PRICE)
    await process.stop()


async def test_process_does_not_settle_its_running_orders(process: Process, tenant: Tenant, drawer: FakeDrawer) -> None:
    """A database outage longer than a lease prevented its renewal."""
    drawer.close_gate()
    generation = await _claim(process, tenant, None)
    await process.dispatcher.look()
    await drawer.drawing.wait()
    _trust_leases(process)
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
async def test_recovery_sweeps_at_start_and_survives_an_outage(
    process: Process,
    tenant: Tenant,
    outage: Outage,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pixyproxy.service.private.generation.recovery.INTERVAL_SECONDS", 0.05)
    await _left_behind(process, tenant)
    staged = process.store.folder / ".incoming" / "dead"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"half")
    os.utime(staged, (0, 0))

    async def failed() -> bool:
        return not staged.exists() and "recovery round failed and will be retried: database_unavailable" in caplog.text

    async def recorded() -> bool:
        return bool(await _images(process, tenant))

    outage.lasts = True
    async with _recovering(process):
        await _eventually(failed)
        outage.lasts = False
        await _eventually(recorded)


async def test_revoked_sign_in_is_kept_until_its_access_tokens_expire(process: Process, tenant: Tenant) -> None:
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
async def test_decided_retained_answers_are_removed(process: Process, tenant: Tenant) -> None:
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


@dataclass(frozen=True, kw_only=True)
class _CommitLosingDatabase(Database):
    """A real database that loses the result of its next COMMIT if requested; then it may be unavailable."""

    losing: asyncio.Event = field(default_factory=asyncio.Event)
    away: asyncio.Event = field(default_factory=asyncio.Event)
    is_lost: bool = False

    async def _run(self, work: UnitOfWork[Result], *, writes: bool) -> Result:
        if self.away.is_set():
            raise DatabaseUnavailableException
        result = await super()._run(work, writes=writes)
        if writes and self.losing.is_set():
            self.losing.clear()
            if self.is_lost:
                self.away.set()
            error = DatabaseUnavailableException()
            error.in_doubt = True
            raise error
        return result


def _losing(database: Database, *, is_lost: bool = False) -> _CommitLosingDatabase:
    return _CommitLosingDatabase(
        database.engine, database.slots, database.writers, database.wait_seconds, is_lost=is_lost
    )


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_claim_in_doubt_is_found_and_executed(
    database: Database, store: LocalStore, drawer: FakeDrawer, principal: Principal
) -> None:
    losing = _losing(database)
    process = await start_process(losing, store, drawer.pooled())
    losing.losing.set()
    made = await process.make(principal=principal)
    assert made.generation.status is STORED
    assert len(drawer.asked) == 1
    await process.stop()


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("waits", [True, False])
async def test_claim_in_doubt_that_exists_is_failed_without_a_call(  # noqa: PLR0913  (fixtures)
    database: Database, store: LocalStore, drawer: FakeDrawer, tenant: Tenant, principal: Principal, *, waits: bool
) -> None:
    losing = _losing(database, is_lost=True)
    process = await start_process(losing, store, drawer.pooled())
    process.slots.open = not waits
    losing.losing.set()
    with pytest.raises(DatabaseUnavailableException):
        await process.submit(ImagePrompt(prompt="a", model="priced"), principal=principal, key="k")
    losing.away.clear()

    async def is_ended() -> bool:
        (page,) = [
            await process.watcher.list_generations(GenerationFilter(), tenant_id=tenant.id, limit=9, cursor=None)
        ]
        return [each.generation.status for each in page.generations] == [FAILED]

    await _eventually(is_ended)
    process.slots.open = True
    await process.dispatcher.look()
    await process.finish()
    assert drawer.asked == []
    assert await process.of_key("k", principal=principal) is None
    await process.stop()


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_orders_started_in_doubt_are_requeued_and_executed_once(
    database: Database, store: LocalStore, drawer: FakeDrawer, principal: Principal
) -> None:
    losing = _losing(database)
    process = await start_process(losing, store, drawer.pooled())
    process.slots.open = False
    submitted = await process.submit(principal=principal)
    process.slots.open = True
    losing.losing.set()
    stored = await process.watcher.outcome(submitted.guid, tenant_id=principal.tenant_id, seconds=20)
    assert stored.generation.version >= 3
    assert len(drawer.asked) == 1
    await process.stop()


async def test_folder_with_an_unreadable_entry_stays_unchanged(process: Process, tenant: Tenant) -> None:
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
