"""Executing a generation: one call to an upstream, its response retained, its outcome recorded."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.generation import Generation, GenerationStatus, Resolution
from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.models.order import NewOrder, UpstreamAnswer
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.private.generation.resolution import OperationsService
from pixyproxy.service.private.images import ImageEditor
from pixyproxy.service.private.retained_answers import remove_decided
from pixyproxy.service.private.upstream.scheduling import LEASE_SECONDS
from tests.service.private.conftest import FailingDatabase, Outage
from tests.service.private.identities import OPERATOR
from tests.service.private.processes import PRICE, Process, start_process
from tests.support.drawing import FakeDrawer

pytestmark = pytest.mark.anyio
ACCEPTED, CALLING, STORED, FAILED, UNKNOWN, CANCELLED = GenerationStatus
PRICED = ImagePrompt(prompt="a red fox", model="priced")
DID_NOTHING = [
    core.UpstreamBusyException(),
    core.UpstreamUnreachableException(),
    core.UpstreamCredentialException(),
    core.UpstreamFundsException(),
    core.UpstreamAddressException(),
]
UNUSABLE = b'{"data": [{"b64_json": "PHN2Zz48L3N2Zz4="}]}'
MAY_HAVE_DONE_SOMETHING: dict[Exception, GenerationStatus] = {
    core.UpstreamErrorException(): FAILED,
    core.UpstreamSilentException(): UNKNOWN,
    core.UpstreamTimeoutException(): UNKNOWN,
    core.UpstreamAnswerException(): FAILED,
    core.PictureUnusableException(): UNKNOWN,
    core.PromptRefusedException(): FAILED,
    ZeroDivisionError(): UNKNOWN,
}
"""The outcome of a generation for each failure of its upstream."""


def _name(error: BaseException) -> str:
    return type(error).__name__


@pytest.fixture
def failing() -> FakeDrawer:
    """Return an upstream that is called first, since the other has no free slot until then.

    It fails as the test sets it.
    """
    return FakeDrawer(name="failing")


@pytest.fixture
async def pair(
    shaky: FailingDatabase, store: LocalStore, failing: FakeDrawer, drawer: FakeDrawer
) -> AsyncIterator[Process]:
    """Yield a process that has both upstreams."""
    started = await start_process(shaky, store, failing.pooled(), drawer.pooled())
    yield started
    await started.stop()


async def _end(process: Process, principal: Principal, order: ImagePrompt | NewOrder = PRICED) -> Generation:
    """Execute an order and return its generation."""
    submitted = await process.submit(order, principal=principal, key="k")
    await process.finish()
    return await process.generation(submitted.guid)


async def _spent_and_reserved(process: Process, generation: Generation) -> tuple[int, int]:
    spending = await process.spending(generation)
    return spending.spent_micro_usd, spending.reserved_micro_usd


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  (rows have no event to wait for)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("error", DID_NOTHING, ids=_name)
async def test_another_upstream_is_called_if_the_first_did_nothing(
    pair: Process, principal: Principal, failing: FakeDrawer, drawer: FakeDrawer, error: Exception
) -> None:
    failing.error = error
    for _ in range(8):
        made = await pair.make(PRICED, principal=principal)
        assert made.generation.upstream == drawer.name
    await pair.finish()
    assert len(drawer.asked) == 8
    assert await _spent_and_reserved(pair, made.generation) == (8 * PRICE, 0)


@pytest.mark.parametrize("error", MAY_HAVE_DONE_SOMETHING, ids=_name)
async def test_no_other_upstream_is_called_after_a_possible_purchase(
    pair: Process, principal: Principal, failing: FakeDrawer, drawer: FakeDrawer, error: Exception
) -> None:
    failing.error = drawer.error = error
    ended = await _end(pair, principal)
    assert ended.status is MAY_HAVE_DONE_SOMETHING[error]
    assert len(failing.asked) + len(drawer.asked) == 1


@pytest.mark.parametrize("error", DID_NOTHING, ids=_name)
async def test_each_upstream_is_called_once_and_the_last_error_returned(
    pair: Process, principal: Principal, failing: FakeDrawer, drawer: FakeDrawer, error: core.ImageGenerationException
) -> None:
    failing.error = drawer.error = error
    ended = await _end(pair, principal)
    assert (ended.status, ended.idempotency_key) == (FAILED, None)
    assert ended.error is not None
    assert ended.error.code == error.code
    assert (len(failing.asked), len(drawer.asked)) == (1, 1)
    assert await _spent_and_reserved(pair, ended) == (0, 0)


@pytest.mark.parametrize("first", ["limit", "key"])
async def test_limit_of_one_upstream_is_the_reported_error(
    pair: Process, principal: Principal, failing: FakeDrawer, drawer: FakeDrawer, first: str
) -> None:
    errors = [core.UpstreamBusyException(retry_after_seconds=7), core.UpstreamCredentialException()]
    failing.error, drawer.error = errors if first == "limit" else reversed(errors)
    ended = await _end(pair, principal)
    assert ended.error is not None
    assert (ended.error.code, ended.error.retry_after_seconds) == ("upstream_busy", 7)
    assert (len(failing.asked), len(drawer.asked)) == (1, 1)


@pytest.mark.parametrize(
    ("error", "status", "keeps_key", "reserved"),
    [
        (core.UpstreamErrorException(), FAILED, False, 0),
        (core.PromptRefusedException(), FAILED, False, 0),
        (core.UpstreamAnswerException(), FAILED, True, 0),
        (core.PictureUnusableException(), UNKNOWN, True, PRICE),
        (core.UpstreamSilentException(), UNKNOWN, True, PRICE),
        (core.UpstreamTimeoutException(), UNKNOWN, True, PRICE),
        (core.ImageStorageException(), UNKNOWN, True, PRICE),
        (ZeroDivisionError(), UNKNOWN, True, PRICE),
    ],
    ids=lambda value: _name(value) if isinstance(value, Exception) else None,
)
async def test_error_determines_status_reservation_and_key(  # noqa: PLR0913, PLR0917  (a table, and where it happens)
    process: Process,
    principal: Principal,
    drawer: FakeDrawer,
    error: Exception,
    status: GenerationStatus,
    reserved: int,
    *,
    keeps_key: bool,
) -> None:
    drawer.error = error
    ended = await _end(process, principal)
    assert (ended.status, ended.idempotency_key) == (status, "k" if keeps_key else None)
    assert ended.finished_at is not None
    assert ended.error is not None
    assert ended.error.code == getattr(error, "code", "internal_error")
    assert await _spent_and_reserved(process, ended) == (0, reserved)
    assert process.spooled == []


async def test_unexpected_error_is_logged_and_not_shown(
    process: Process, principal: Principal, drawer: FakeDrawer, caplog: pytest.LogCaptureFixture
) -> None:
    drawer.error = ZeroDivisionError("a secret")
    ended = await _end(process, principal)
    assert ended.error is not None
    assert "secret" not in ended.error.detail
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert ended.guid in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("error", [core.UpstreamSilentException(), core.UpstreamAnswerException()], ids=_name)
async def test_pictures_before_a_broken_response_are_stored_and_charged(
    process: Process, principal: Principal, drawer: FakeDrawer, error: Exception
) -> None:
    drawer.error, drawer.given = error, 2
    ended = await _end(process, principal, NewOrder(prompt="a", model="priced", count=3))
    assert (ended.status, ended.image_count, ended.cost_micro_usd) == (STORED, 2, 2 * PRICE)
    made = await process.watcher.outcome(ended.guid, tenant_id=principal.tenant_id)
    assert tuple(image.guid for image in made.images) == ended.image_guids[:2]
    assert await _spent_and_reserved(process, ended) == (2 * PRICE, 0)
    assert process.spooled == []


async def test_invalid_picture_is_rejected_and_earlier_ones_are_stored(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.content = b"no picture, whatever it says"
    ended = await _end(process, principal)
    assert (ended.status, ended.cost_micro_usd) == (UNKNOWN, None)
    assert process.spooled == []
    assert list(process.store.folder.rglob("*.png")) == []


async def _keep_an_answer(
    process: Process, principal: Principal, drawer: FakeDrawer, *, pictures: int = 0
) -> Generation:
    """Order two pictures; the response has this many valid pictures, and one that cannot be stored."""
    drawer.error, drawer.given, drawer.unusable = core.PictureUnusableException(), pictures, UNUSABLE
    return await _end(process, principal, NewOrder(prompt="a", model="priced", count=2))


async def test_unusable_answer_is_retained_until_resolved(
    process: Process, principal: Principal, drawer: FakeDrawer, caplog: pytest.LogCaptureFixture
) -> None:
    ended = await _keep_an_answer(process, principal, drawer)
    assert (ended.status, ended.upstream, ended.idempotency_key) == (UNKNOWN, drawer.name, "k")
    assert await _spent_and_reserved(process, ended) == (0, 2 * PRICE)
    (kept,) = process.engine.answers.list_all()
    assert (kept.guid, kept.byte_size) == (ended.guid, len(UNUSABLE))
    assert kept.paths[0].read_bytes() == UNUSABLE
    assert f"generation {ended.guid} was paid for, and its picture cannot be stored: see {kept.paths[0]}" in caplog.text
    await process.recovery.recover()
    await remove_decided(process.database, process.engine.answers)
    assert process.spooled == [f"{ended.guid}.answer"]
    operations = OperationsService(process.database, process.engine.answers)
    await operations.resolve_generation(ended.guid, Resolution(bought=True), actor=OPERATOR)
    assert process.spooled == []


async def test_partly_stored_answer_is_retained_until_its_pictures_are_erased(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    ended = await _keep_an_answer(process, principal, drawer, pictures=1)
    assert (ended.status, ended.image_count, ended.cost_micro_usd) == (STORED, 1, PRICE)
    await remove_decided(process.database, process.engine.answers)
    assert process.spooled == [f"{ended.guid}.answer"]
    editor = ImageEditor(process.database, process.store)
    await editor.delete_image(ended.image_guids[0], principal=principal)
    await remove_decided(process.database, process.engine.answers)
    assert process.spooled == []


async def test_decoded_part_of_an_unusable_picture_is_retained(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    submitted = await process.submit(PRICED, principal=principal)
    await drawer.drawing.wait()
    drawer.error, drawer.given, drawer.unusable = core.PictureUnusableException(), 0, UNUSABLE
    drawer.begun = b"\x89PNG\r\n\x1a\n and then"
    drawer.open_gate()
    await process.finish()
    assert process.spooled == [f"{submitted.guid}.0.picture", f"{submitted.guid}.answer"]
    (kept,) = process.engine.answers.list_all()
    assert kept.byte_size == len(drawer.begun) + len(UNUSABLE)


async def test_answer_beyond_the_limit_is_not_retained_and_unknown(
    process: Process, principal: Principal, drawer: FakeDrawer, caplog: pytest.LogCaptureFixture
) -> None:
    full = replace(process.engine.answers, most_bytes=1)
    claims = replace(process.service.claims, engine=replace(process.engine, answers=full))
    crowded = replace(process, service=replace(process.service, claims=claims))
    await _keep_an_answer(crowded, principal, drawer)
    other = await crowded.submit(PRICED, principal=principal)
    await crowded.finish()
    assert (await crowded.generation(other.guid)).status is UNKNOWN
    assert [kept.guid for kept in full.list_all()] != [other.guid]
    assert len(full.list_all()) == 1
    assert f"generation {other.guid} was paid for and could not be received" in caplog.text


async def test_response_details_are_stored(process: Process, principal: Principal, drawer: FakeDrawer) -> None:
    drawer.answer = UpstreamAnswer(facts={"created": 7}, revised_prompts=("a fox, red",))
    ended = await _end(process, principal)
    assert (ended.answer, ended.upstream) == (drawer.answer, drawer.name)


@pytest.mark.parametrize("error", [*MAY_HAVE_DONE_SOMETHING, None], ids=_name)
async def test_slot_is_freed_after_any_outcome(
    database: Database, store: LocalStore, principal: Principal, error: Exception | None
) -> None:
    drawer = FakeDrawer(error=error)
    process = await start_process(database, store, drawer.pooled(concurrency=1))
    await _end(process, principal)
    assert (process.progress.executions, process.slots.used) == ({}, 0)
    drawer.error = None
    await process.submit(principal=principal)
    await process.finish()
    assert len(drawer.asked) == 2
    await process.stop()


@pytest.mark.parametrize("error", [*DID_NOTHING, core.PromptRefusedException(), None], ids=_name)
async def test_slot_passes_to_the_next_order_in_one_transaction(
    database: Database, store: LocalStore, principal: Principal, error: Exception | None
) -> None:
    drawer = FakeDrawer(error=error)
    drawer.close_gate()
    process = await start_process(database, store, drawer.pooled(concurrency=1))
    for loop in process.loops:
        loop.cancel()
    for _ in range(3):
        await process.submit(principal=principal)
    drawer.open_gate()
    await process.finish()
    assert len(drawer.asked) == 3
    assert process.slots.used == 0
    await process.stop()


async def test_queue_timeout_buys_nothing(database: Database, store: LocalStore, principal: Principal) -> None:
    drawer = FakeDrawer()
    drawer.close_gate()
    process = await start_process(database, store, drawer.pooled(concurrency=1), queue_seconds=0.01)
    await process.submit(PRICED, principal=principal)
    with pytest.raises(core.QueueTimeoutException):
        await process.make(PRICED, principal=principal, key="k")
    drawer.open_gate()
    await process.finish()
    assert await process.of_key("k", principal=principal) is None
    assert len(drawer.asked) == 1
    await process.stop()


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_unrecorded_picture_is_reported_safe_and_recorded_later(
    process: Process, principal: Principal, drawer: FakeDrawer, outage: Outage
) -> None:
    drawer.close_gate()
    submitted = await process.submit(PRICED, principal=principal)
    await drawer.drawing.wait()
    outage.lasts = True
    drawer.open_gate()
    with pytest.raises(core.RecordPendingException) as caught:
        await process.watcher.outcome(submitted.guid, tenant_id=principal.tenant_id)
    assert isinstance(caught.value.__cause__, core.DatabaseUnavailableException)
    assert caught.value.context["generation"] == submitted.guid
    outage.lasts = False
    await process.finish()
    made = await process.watcher.outcome(submitted.guid, tenant_id=principal.tenant_id)
    assert made.images[0].guid == caught.value.context["image"]
    assert await _spent_and_reserved(process, made.generation) == (PRICE, 0)
    assert process.spooled == []


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    ("error", "status", "reserved"),
    [(core.PromptRefusedException(), FAILED, 0), (core.UpstreamSilentException(), UNKNOWN, PRICE)],
    ids=["refused", "silent"],
)
async def test_error_is_returned_at_once_and_settled_after_the_outage(  # noqa: PLR0913, PLR0917  (a table, and where)
    process: Process,
    principal: Principal,
    drawer: FakeDrawer,
    outage: Outage,
    error: Exception,
    status: GenerationStatus,
    reserved: int,
) -> None:
    drawer.error = error
    drawer.close_gate()
    submitted = await process.submit(PRICED, principal=principal)
    await drawer.drawing.wait()
    outage.lasts = True
    drawer.open_gate()
    with pytest.raises(type(error)):
        await process.watcher.outcome(submitted.guid, tenant_id=principal.tenant_id)
    outage.lasts = False
    await process.finish()
    ended = await process.generation(submitted.guid)
    assert ended.status is status
    assert await _spent_and_reserved(process, ended) == (0, reserved)


def _block(path: Path) -> Callable[[], None]:
    """Put a file where a folder must be; return a function that removes it."""
    if path.is_dir():
        path.rmdir()
    path.write_text("in the way")
    return path.unlink


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_picture_is_stored_when_the_store_recovers(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    submitted = await process.submit(PRICED, principal=principal)
    await drawer.drawing.wait()
    mend = _block(process.store.folder)
    drawer.open_gate()
    with pytest.raises(core.RecordPendingException) as caught:
        await process.watcher.outcome(submitted.guid, tenant_id=principal.tenant_id)
    assert isinstance(caught.value.__cause__, core.ImageStorageException)
    mend()
    await process.finish()
    made = await process.watcher.outcome(submitted.guid, tenant_id=principal.tenant_id)
    assert len(await process.store.read(made.images[0].guid, "image/png")) == made.images[0].byte_size
    assert len(drawer.asked) == 1


async def test_unreceivable_picture_is_unknown_and_keeps_its_budget(
    process: Process, principal: Principal, drawer: FakeDrawer, caplog: pytest.LogCaptureFixture
) -> None:
    drawer.close_gate()
    submitted = await process.submit(PRICED, principal=principal, key="k")
    await drawer.drawing.wait()
    process.spool.own.picture(submitted.guid, 0).mkdir()
    drawer.open_gate()
    await process.finish()
    ended = await process.generation(submitted.guid)
    assert (ended.status, ended.idempotency_key) == (UNKNOWN, "k")
    assert await _spent_and_reserved(process, ended) == (0, PRICE)
    assert f"generation {ended.guid} was paid for and could not be received" in caplog.text


async def test_stop_during_the_call_settles_it_as_unknown(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    caller = asyncio.create_task(process.make(PRICED, principal=principal, key="k"))
    await drawer.drawing.wait()
    process.slots.open = False
    await process.tasks.drain(0)
    with pytest.raises(core.GenerationUnknownException):
        await caller
    generation = await process.of_key("k", principal=principal)
    assert generation is not None
    assert generation.status is UNKNOWN
    assert await _spent_and_reserved(process, generation) == (0, PRICE)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_stop_during_an_outage_leaves_it_to_recovery(
    pair: Process, process: Process, principal: Principal, drawer: FakeDrawer, outage: Outage
) -> None:
    drawer.close_gate()
    submitted = await process.submit(PRICED, principal=principal)
    await drawer.drawing.wait()
    outage.lasts = True
    process.slots.open = False
    await process.tasks.drain(0)
    outage.lasts = False
    assert (await process.generation(submitted.guid)).status is CALLING
    await process.recovery.close()
    await pair.recovery.recover()
    assert (await process.generation(submitted.guid)).status is UNKNOWN


async def test_stop_leaves_waiting_orders_unchanged(
    database: Database, store: LocalStore, principal: Principal
) -> None:
    drawer = FakeDrawer()
    drawer.close_gate()
    process = await start_process(database, store, drawer.pooled(concurrency=1))
    await process.submit(principal=principal)
    waiting = await process.submit(PRICED, principal=principal)
    await process.stop()
    generation = await process.generation(waiting.guid)
    assert (generation.status, generation.lease_owner) == (ACCEPTED, None)
    assert await _spent_and_reserved(process, generation) == (0, PRICE)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_order_waiting_for_another_upstream_survives_a_stop(
    database: Database, store: LocalStore, principal: Principal
) -> None:
    refusing, busy = FakeDrawer(name="refusing", error=core.UpstreamBusyException()), FakeDrawer(name="busy")
    busy.close_gate()
    only_priced = replace(refusing.pooled(), models=("priced",))
    process = await start_process(database, store, only_priced, busy.pooled(concurrency=1))
    await process.submit(PRICED.model_copy(update={"model": None}), principal=principal)
    submitted = await process.submit(PRICED, principal=principal, key="k")

    async def waits() -> bool:
        return (await process.generation(submitted.guid)).status is ACCEPTED

    await _eventually(waits)
    await process.stop()
    waiting = await process.generation(submitted.guid)
    assert (waiting.status, waiting.idempotency_key, len(waiting.excluded)) == (ACCEPTED, "k", 1)
    assert await _spent_and_reserved(process, waiting) == (0, PRICE)
    assert (len(refusing.asked), len(busy.asked)) == (1, 1)


async def test_stalled_process_makes_no_call_and_requeues_the_order(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    process.slots.open = False
    submitted = await process.submit(PRICED, principal=principal)
    (begun,) = await process.database.write(lambda data: _begin(process, data))
    process.engine.start(begun, began=time.monotonic() - LEASE_SECONDS)
    await process.finish()
    assert (await process.generation(submitted.guid)).status is ACCEPTED
    assert drawer.asked == []
    # It does not count as a failure of the upstream.
    (upstream,) = await process.database.read(lambda data: data.upstreams.list_named([drawer.name]))
    assert (upstream.mean_seconds, upstream.failures) == (None, 0)
    process.slots.open = True
    await process.watcher.outcome(submitted.guid, tenant_id=principal.tenant_id, seconds=20)
    assert len(drawer.asked) == 1


def _begin(process: Process, data: Repositories) -> list[Generation]:
    """Start waiting orders, though this process is closed for new ones."""
    process.slots.used += 1
    schedule = process.scheduler.lock(data)
    begun = schedule.start_waiting(limit=1)
    schedule.save()
    return begun


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_upstream_is_called_only_after_the_start_is_committed(
    shaky: FailingDatabase, store: LocalStore, principal: Principal, outage: Outage
) -> None:
    drawer = FakeDrawer()
    drawer.close_gate()
    process = await start_process(shaky, store, drawer.pooled(concurrency=1))
    await process.submit(PRICED, principal=principal)
    waiting = await process.submit(PRICED, principal=principal)
    await drawer.drawing.wait()
    outage.lasts = True
    drawer.open_gate()
    with pytest.raises(core.DatabaseUnavailableException):
        await process.watcher.outcome(waiting.guid, tenant_id=principal.tenant_id)
    assert len(drawer.asked) == 1
    outage.lasts = False
    made = await process.watcher.outcome(waiting.guid, tenant_id=principal.tenant_id, seconds=20)
    await process.finish()
    assert len(drawer.asked) == 2
    assert await _spent_and_reserved(process, made.generation) == (2 * PRICE, 0)
    await process.stop()


async def test_images_deleted_meanwhile_are_not_made_again(
    process: Process, tenant: Tenant, principal: Principal
) -> None:
    made = await process.make(principal=principal)
    await process.finish()
    (image,) = made.images
    await process.database.write(lambda data: data.images.delete(image.guid, tenant_id=tenant.id))
    with pytest.raises(core.GenerationDeletedException):
        await process.watcher.outcome(made.generation.guid, tenant_id=tenant.id)
