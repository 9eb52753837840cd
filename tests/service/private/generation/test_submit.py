"""Accept orders: pay once, never lose a paid picture."""

import asyncio
import hashlib
import io
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from pixyproxy.core import clock
from pixyproxy.core import exceptions as core
from pixyproxy.core.models.generation import GenerationGuid, GenerationStatus, GenerationWithImages
from pixyproxy.core.models.image import ImageGuid, ImagePrompt
from pixyproxy.core.models.order import NewOrder, Operation
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import Tenant, Visibility
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.data.rows import to_timestamp
from pixyproxy.service.private.generation.claims import IMAGE_WINDOW_SECONDS
from pixyproxy.service.private.generation.inputs import Upload
from pixyproxy.service.private.generation.submission import Submission
from pixyproxy.service.private.images import ImageEditor
from pixyproxy.service.private.upstream.pool import PooledUpstream
from tests.service.private.conftest import Outage
from tests.service.private.processes import FOX, PRICE, Process, start_process
from tests.support import pictures
from tests.support.builders import find_picture, principal_of
from tests.support.drawing import FakeDrawer

pytestmark = pytest.mark.anyio
KEY = "key-1"
PRICED = FOX.model_copy(update={"model": "priced"})


async def _set_budget(process: Process, tenant: Tenant, pictures: int) -> None:
    """Give the tenant a monthly budget for this many pictures."""
    limited = tenant.model_copy(update={"monthly_budget_usd": Decimal(pictures * PRICE) / 1_000_000})
    await process.database.write(lambda data: data.tenants.update(limited))


@pytest.fixture
async def pair(database: Database, store: LocalStore, drawer: FakeDrawer) -> AsyncIterator[list[Process]]:
    """Yield two processes."""
    started = [await start_process(database, store, drawer.pooled()) for _ in range(2)]
    yield started
    for each in started:
        await each.stop()


async def _places_taken(process: Process) -> tuple[int, int]:
    """Return the slots in use in the process and at the upstreams."""
    slots = await process.database.read(lambda data: data.upstreams.count_slots(now=clock.seconds()))
    return process.slots.used, sum(slots.values())


async def test_picture_is_stored_and_recorded_with_its_details(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    submitted = await process.submit(principal=principal, key=KEY)
    made = await process.watcher.outcome(submitted.guid, tenant_id=principal.tenant_id)
    (image,) = made.images
    content = await process.store.read(image.guid, image.media_type)
    assert not submitted.replayed
    assert (image.prompt, image.tenant_id, image.visibility) == (FOX.prompt, principal.tenant_id, Visibility.PUBLIC)
    assert (image.sha256, image.byte_size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (image.width, image.height, image.media_type, image.model) == (32, 16, "image/png", "fake")
    own = await process.database.read(lambda data: data.images.get_own(image.guid, tenant_id=principal.tenant_id))
    assert own == image
    generation = await process.of_key(KEY, principal=principal)
    assert generation == made.generation
    assert (generation.status, generation.id) == (GenerationStatus.STORED, image.generation_id)
    assert generation.image_guids == (image.guid,)
    assert drawer.prompts == [FOX.prompt]


async def test_order_for_several_pictures_returns_them_in_order(process: Process, principal: Principal) -> None:
    made = await process.make(NewOrder(prompt="a", count=4), principal=principal)
    assert tuple(image.guid for image in made.images) == made.generation.image_guids
    assert len({image.sha256 for image in made.images}) == made.generation.image_count == 4
    assert len(await process.watcher.pictures(made)) == 4


async def test_spool_is_empty_afterwards(process: Process, principal: Principal) -> None:
    await process.make(NewOrder(prompt="a", count=2, previews=1), principal=principal)
    await process.finish()
    assert process.spooled == []


async def test_request_sets_the_visibility(process: Process, principal: Principal) -> None:
    private = FOX.model_copy(update={"visibility": Visibility.PRIVATE})
    (image,) = (await process.make(private, principal=principal)).images
    assert image.visibility is Visibility.PRIVATE


@pytest.mark.parametrize(
    "invalid",
    [
        ImagePrompt.model_construct(prompt=""),
        NewOrder.model_construct(prompt=" "),
        NewOrder.model_construct(prompt="a", count=11),
        NewOrder.model_construct(prompt="a", options={"a": float("nan")}),
        NewOrder.model_construct(prompt="a", options={"a": "\ud800"}),
    ],
    ids=["empty", "blank", "too many", "NaN", "surrogate"],
)
async def test_invalid_order_buys_nothing(
    process: Process, principal: Principal, drawer: FakeDrawer, invalid: ImagePrompt | NewOrder
) -> None:
    with pytest.raises(core.ImagePromptException):
        await process.make(invalid, principal=principal, key=KEY)
    assert drawer.asked == []
    assert await process.of_key(KEY, principal=principal) is None


async def test_each_request_without_a_key_buys_a_picture(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    first, second = [await process.make(principal=principal) for _ in range(2)]
    assert first.images[0].guid != second.images[0].guid
    assert len(drawer.asked) == 2


async def test_repeated_key_returns_the_same_picture(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    made = await process.make(principal=principal, key=KEY)
    again = await process.submit(principal=principal, key=KEY)
    assert again == Submission(made.generation.guid, principal.tenant_id, replayed=True)
    assert await process.make(principal=principal, key=KEY) == made
    assert len(drawer.asked) == 1


@pytest.mark.parametrize(
    "other",
    [ImagePrompt(prompt="a hen"), FOX.model_copy(update={"size": "auto"}), FOX.model_copy(update={"filename": "a"})],
    ids=["prompt", "size", "filename"],
)
async def test_repeated_key_with_another_request_is_a_mismatch(
    process: Process, principal: Principal, drawer: FakeDrawer, other: ImagePrompt
) -> None:
    await process.make(principal=principal, key=KEY)
    with pytest.raises(core.IdempotencyMismatchException):
        await process.make(other, principal=principal, key=KEY)
    assert len(drawer.asked) == 1


async def test_keys_are_separate_per_tenant(
    process: Process, principal: Principal, other_principal: Principal, drawer: FakeDrawer
) -> None:
    mine, theirs = [await process.make(principal=each, key=KEY) for each in (principal, other_principal)]
    assert mine.generation.guid != theirs.generation.guid
    assert (mine.images[0].tenant_id, theirs.images[0].tenant_id) == (principal.tenant_id, other_principal.tenant_id)
    assert len(drawer.asked) == 2


async def test_repeated_key_joins_the_running_generation(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    first = await process.submit(principal=principal, key=KEY)
    assert await process.submit(principal=principal, key=KEY) == Submission(
        first.guid, principal.tenant_id, replayed=True
    )
    other = await process.submit(ImagePrompt(prompt="else"), principal=principal, key="key-2")
    assert not other.replayed
    drawer.open_gate()
    await process.finish()
    assert len(drawer.asked) == 2


async def test_concurrent_requests_with_one_key_get_one_picture(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    made = await asyncio.gather(*(process.make(principal=principal, key=KEY) for _ in range(20)))
    assert len({(each.generation.guid, each.images) for each in made}) == 1
    assert len(drawer.asked) == 1


@pytest.mark.parametrize("backend", ["mysql"])
async def test_two_processes_with_one_key_buy_once(
    process: Process, database: Database, store: LocalStore, principal: Principal, drawer: FakeDrawer
) -> None:
    other = await start_process(database, store, drawer.pooled())
    ends = await asyncio.gather(*(each.make(principal=principal, key=KEY) for each in (process, other) * 10))
    assert len({end.images[0].guid for end in ends}) == 1
    assert len(drawer.asked) == 1
    await other.stop()


async def test_replay_takes_no_slot(database: Database, store: LocalStore, principal: Principal) -> None:
    drawer = FakeDrawer()
    drawer.close_gate()
    process = await start_process(database, store, drawer.pooled(concurrency=1))
    await process.submit(principal=principal, key=KEY)
    for _ in range(3):
        await process.submit(principal=principal, key=KEY)
    assert await process.count_generations(principal.tenant_id) == 1
    with pytest.raises(core.IdempotencyMismatchException):
        await process.submit(PRICED, principal=principal, key=KEY)
    drawer.open_gate()
    await process.finish()
    assert await _places_taken(process) == (0, 0)
    await process.stop()


async def test_waiting_orders_are_accepted_and_executed_in_turn(
    database: Database, store: LocalStore, principal: Principal
) -> None:
    drawer = FakeDrawer()
    drawer.close_gate()
    process = await start_process(database, store, drawer.pooled(concurrency=1))
    first, second = [await process.submit(principal=principal) for _ in range(2)]
    assert (await process.generation(first.guid)).status is GenerationStatus.CALLING
    assert (await process.generation(second.guid)).status is GenerationStatus.ACCEPTED
    drawer.open_gate()
    await process.finish()
    assert (await process.generation(second.guid)).status is GenerationStatus.STORED
    await process.stop()


async def test_full_queue_claims_and_reserves_nothing(
    database: Database, store: LocalStore, tenant: Tenant, principal: Principal
) -> None:
    drawer = FakeDrawer()
    drawer.close_gate()
    process = await start_process(database, store, drawer.pooled(concurrency=1), queue_size=1)
    await _set_budget(process, tenant, 10)
    submitted = [await process.submit(PRICED, principal=principal) for _ in range(2)]
    with pytest.raises(core.QueueFullException):
        await process.submit(PRICED, principal=principal, key=KEY)
    assert await process.of_key(KEY, principal=principal) is None
    spending = await process.spending(await process.generation(submitted[0].guid))
    assert spending.reserved_micro_usd == 2 * PRICE
    drawer.open_gate()
    await process.finish()
    await process.stop()


async def test_full_queue_accepts_only_replays(database: Database, store: LocalStore, principal: Principal) -> None:
    drawer = FakeDrawer()
    drawer.close_gate()
    process = await start_process(database, store, drawer.pooled(concurrency=1), queue_size=1)
    first, second = [await process.submit(PRICED, principal=principal, key=key) for key in ("a", "b")]
    for key, submitted in (("a", first), ("b", second)):
        again = await process.submit(PRICED, principal=principal, key=key)
        assert (again.guid, again.replayed) == (submitted.guid, True)
        with pytest.raises(core.IdempotencyMismatchException):
            await process.submit(PRICED.model_copy(update={"prompt": "a hen"}), principal=principal, key=key)
    with pytest.raises(core.QueueFullException):
        await process.submit(PRICED, principal=principal, key="c")
    drawer.open_gate()
    await process.finish()
    await process.stop()


@pytest.mark.parametrize(
    "error",
    [core.UpstreamSilentException(), core.UpstreamTimeoutException(), ZeroDivisionError()],
    ids=lambda error: type(error).__name__,
)
async def test_possible_purchase_is_unknown_and_never_repeated(
    process: Process, principal: Principal, drawer: FakeDrawer, error: Exception
) -> None:
    drawer.error = error
    with pytest.raises(core.PixyProxyException) as caught:
        await process.make(principal=principal, key=KEY)
    assert caught.value.code == getattr(error, "code", "internal_error")
    await process.finish()
    drawer.error = None
    with pytest.raises(core.GenerationUnknownException):
        await process.make(principal=principal, key=KEY)
    assert len(drawer.asked) == 1


@pytest.mark.parametrize(
    "error",
    [core.PromptRefusedException(), core.UpstreamBusyException(), core.UpstreamErrorException()],
    ids=lambda error: type(error).__name__,
)
async def test_key_that_bought_nothing_may_be_retried(
    process: Process, principal: Principal, drawer: FakeDrawer, error: Exception
) -> None:
    drawer.error = error
    with pytest.raises(type(error)):
        await process.make(principal=principal, key=KEY)
    drawer.error = None
    assert await process.make(principal=principal, key=KEY)
    assert len(drawer.asked) == 2


async def test_key_without_a_picture_repeats_its_error(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.error = core.UpstreamAnswerException()
    for _ in range(3):
        with pytest.raises(core.UpstreamAnswerException):
            await process.make(PRICED, principal=principal, key=KEY)
        await process.finish()
        drawer.error = None
    assert len(drawer.asked) == 1
    generation = await process.of_key(KEY, principal=principal)
    assert generation is not None
    assert (generation.status, generation.cost_micro_usd) == (GenerationStatus.FAILED, 0)


async def test_key_of_a_deleted_picture_makes_no_other(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    (image,) = (await process.make(principal=principal, key=KEY)).images
    await process.finish()
    await ImageEditor(process.database, process.store).delete_image(image.guid, principal=principal)
    with pytest.raises(core.GenerationDeletedException):
        await process.make(principal=principal, key=KEY)
    assert len(drawer.asked) == 1


async def test_disconnected_caller_gets_its_picture_later(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    caller = asyncio.create_task(process.make(principal=principal, key=KEY))
    await drawer.drawing.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    drawer.open_gate()
    await process.finish()
    assert (await process.submit(principal=principal, key=KEY)).replayed
    assert await process.make(principal=principal, key=KEY)
    assert len(drawer.asked) == 1


@pytest.mark.parametrize("steps", range(6))
async def test_caller_cancelled_at_any_moment_frees_its_slot(
    database: Database, store: LocalStore, principal: Principal, steps: int
) -> None:
    process = await start_process(database, store, FakeDrawer().pooled(concurrency=1))
    upload = Upload(field="image", content=io.BytesIO(pictures.png(8, 8)))
    caller = asyncio.create_task(process.submit(principal=principal, uploads=[upload]))
    for _ in range(steps):
        await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await process.finish()
    assert await _places_taken(process) == (0, 0)
    assert process.spooled == []
    assert len(process.store.orders.list_guids()) == await process.count_generations(principal.tenant_id)
    await process.stop()


async def test_unusable_store_buys_nothing(process: Process, principal: Principal, drawer: FakeDrawer) -> None:
    process.store.folder.write_text("in the way")
    with pytest.raises(core.ImageStorageException):
        await process.make(principal=principal, key=KEY)
    assert drawer.asked == []


async def test_database_outage_buys_nothing_and_leaves_nothing(
    process: Process, principal: Principal, drawer: FakeDrawer, outage: Outage
) -> None:
    outage.lasts = True
    with pytest.raises(core.DatabaseUnavailableException):
        await process.make(principal=principal, key=KEY)
    assert drawer.asked == []
    assert process.tasks.running == set()
    outage.lasts = False
    assert await process.count_generations(principal.tenant_id) == 0


async def test_no_connection_is_held_while_the_upstream_draws(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    for _ in range(20):
        await process.submit(principal=principal)
    await drawer.drawing.wait()

    def answer(data: Repositories) -> int:
        return len(data.tenants.list_all())

    assert await process.database.read(answer) == 1
    drawer.open_gate()
    await process.finish()
    assert len(drawer.asked) == 20


@pytest.mark.parametrize("model", [None, "fake", "another"])
async def test_disallowed_model_buys_nothing(
    process: Process, principal: Principal, drawer: FakeDrawer, model: str | None
) -> None:
    limited = principal.model_copy(update={"allowed_models": frozenset({"vendor/model"})})
    with pytest.raises(core.ModelNotAllowedException) as caught:
        await process.make(FOX.model_copy(update={"model": model}), principal=limited, key=KEY)
    assert caught.value.context == {"model": model or "fake"}
    assert drawer.asked == []
    assert await process.of_key(KEY, principal=principal) is None


@pytest.mark.parametrize(("model", "allowed"), [("a", {"a"}), ("a", {"a", "b"}), (None, {"fake"}), ("a", None)])
async def test_allowed_model_is_used(
    process: Process, principal: Principal, drawer: FakeDrawer, model: str | None, allowed: set[str] | None
) -> None:
    limited = principal.model_copy(update={"allowed_models": None if allowed is None else frozenset(allowed)})
    made = await process.make(FOX.model_copy(update={"model": model}), principal=limited)
    assert made.images[0].model == (model or "fake")
    assert [order.model for order in drawer.asked] == [model or "fake"]


async def test_unserved_model_claims_nothing(database: Database, store: LocalStore, principal: Principal) -> None:
    drawer = FakeDrawer()
    process = await start_process(database, store, PooledUpstream("a", drawer, ("only",), 1, 1, None))
    with pytest.raises(core.ModelUnknownException):
        await process.make(principal=principal, key=KEY)
    assert await process.of_key(KEY, principal=principal) is None
    await process.stop()


async def test_budget_without_a_price_buys_nothing(process: Process, principal: Principal, drawer: FakeDrawer) -> None:
    with pytest.raises(core.BudgetUnpricedException):
        await process.make(principal=principal.model_copy(update={"has_budget": True}), key=KEY)
    assert drawer.asked == []
    assert await process.of_key(KEY, principal=principal) is None


async def test_budget_can_be_spent_exactly(
    process: Process, tenant: Tenant, principal: Principal, drawer: FakeDrawer
) -> None:
    await _set_budget(process, tenant, 3)
    made = [await process.make(PRICED, principal=principal) for _ in range(3)]
    for key in (None, KEY):
        with pytest.raises(core.BudgetExceededException):
            await process.make(PRICED, principal=principal, key=key)
    assert await process.of_key(KEY, principal=principal) is None
    spending = await process.spending(made[0].generation)
    assert (spending.spent_micro_usd, spending.reserved_micro_usd) == (3 * PRICE, 0)
    assert len(drawer.asked) == 3


async def test_concurrent_orders_stay_within_the_budget(
    process: Process, tenant: Tenant, principal: Principal, drawer: FakeDrawer
) -> None:
    await _set_budget(process, tenant, 7)
    ends = await asyncio.gather(*(process.make(PRICED, principal=principal) for _ in range(20)), return_exceptions=True)
    assert Counter(map(type, ends)) == {GenerationWithImages: 7, core.BudgetExceededException: 13}
    assert len(drawer.asked) == 7
    made = [end for end in ends if isinstance(end, GenerationWithImages)]
    spending = await process.spending(made[0].generation)
    assert (spending.spent_micro_usd, spending.reserved_micro_usd) == (7 * PRICE, 0)


async def test_a_replay_reserves_nothing(
    process: Process, tenant: Tenant, principal: Principal, drawer: FakeDrawer
) -> None:
    await _set_budget(process, tenant, 1)
    drawer.close_gate()
    submitted = [await process.submit(PRICED, principal=principal, key=KEY) for _ in range(3)]
    generation = await process.generation(submitted[0].guid)
    assert (await process.spending(generation)).reserved_micro_usd == generation.reserved_micro_usd == PRICE
    drawer.open_gate()
    await process.finish()
    assert (await process.spending(generation)).spent_micro_usd == PRICE


async def test_generation_has_its_subject_and_lease_owner(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    submitted = await process.submit(principal=principal)
    generation = await process.generation(submitted.guid)
    assert (generation.subject, generation.lease_owner) == (principal.subject, process.spool.owner)
    assert generation.lease_until is not None
    drawer.open_gate()


def _png(seed: int) -> io.BytesIO:
    return io.BytesIO(pictures.png(8, 8, seed=seed))


async def test_input_pictures_reach_the_upstream(process: Process, principal: Principal, drawer: FakeDrawer) -> None:
    edit = NewOrder(prompt="a hat", operation=Operation.EDIT)
    uploads = [Upload(field="image", content=_png(1)), Upload(field="mask", content=_png(2))]
    await process.submit(edit, principal=principal, uploads=uploads)
    await process.finish()
    assert drawer.inputs == [[_png(1).getvalue(), _png(2).getvalue()]]
    assert [each.field for each in drawer.asked[0].inputs] == ["image", "mask"]
    assert process.spooled == []


async def test_replay_with_inputs_leaves_no_input_files(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    edit = NewOrder(prompt="a hat", operation=Operation.EDIT)
    for _ in range(2):
        uploads = [Upload(field="image", content=_png(1))]
        submitted = await process.submit(edit, principal=principal, key=KEY, uploads=uploads)
        await process.finish()
    assert submitted.replayed
    assert list(process.store.orders.list_guids()) == [submitted.guid]
    assert len(drawer.asked) == 1
    with pytest.raises(core.IdempotencyMismatchException):
        await process.submit(edit, principal=principal, key=KEY, uploads=[Upload(field="image", content=_png(2))])
    assert list(process.store.orders.list_guids()) == [submitted.guid]


@pytest.mark.parametrize(
    "second", [io.BytesIO(b"no picture at all"), ImageGuid("absent")], ids=["no picture", "no image"]
)
async def test_invalid_input_picture_claims_and_leaves_nothing(
    process: Process, principal: Principal, drawer: FakeDrawer, second: io.BytesIO | ImageGuid
) -> None:
    uploads = [Upload(field="image", content=_png(1)), Upload(field="mask", content=second)]
    edit = NewOrder(prompt="a hat", operation=Operation.EDIT)
    with pytest.raises(core.InputPictureException):
        await process.submit(edit, principal=principal, key=KEY, uploads=uploads)
    await process.finish()
    assert await process.of_key(KEY, principal=principal) is None
    assert (process.store.orders.list_guids(), drawer.asked) == ({}, [])


async def test_paid_picture_is_stored_after_thread_exhaustion(
    process: Process, principal: Principal, drawer: FakeDrawer
) -> None:
    refused: list[object] = []

    class Threads(ThreadPoolExecutor):
        def submit(self, /, *arguments: Any, **named: Any) -> Future[Any]:  # noqa: ANN401  (as its base's)
            work = [each for each in arguments if getattr(each, "__name__", "") == "_commit_and_move"]
            if work and not refused:
                refused.extend(work)
                message = "can't start new thread"
                raise RuntimeError(message)
            return super().submit(*arguments, **named)

    asyncio.get_running_loop().set_default_executor(Threads())
    made = await process.make(principal=principal)
    assert refused
    assert find_picture(process.store, made.images[0].guid)
    assert len(drawer.asked) == 1


async def _submit_again(process: Process, principal: Principal, *, says_repeated: bool = False) -> Submission:
    return await process.service.submit(FOX, principal=principal, idempotency_key=None, says_repeated=says_repeated)


async def test_concurrent_retries_adopt_different_lost_orders(
    process: Process, database: Database, store: LocalStore, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.close_gate()
    patient, other = [await start_process(database, store, drawer.pooled(), retry_window_seconds=600) for _ in range(2)]
    lost = [await process.submit(principal=principal) for _ in range(2)]
    for submission in lost:
        await process.service.note_lost(submission)
    again = await asyncio.gather(*(_submit_again(each, principal) for each in (patient, other)))
    assert {each.guid for each in again} == {each.guid for each in lost}
    assert [each.replayed for each in again] == [True, True]
    # A further request is a new order after a while without notice of a loss.
    third, fourth = await asyncio.gather(*(_submit_again(each, principal) for each in (patient, other)))
    assert (third.replayed, fourth.replayed) == (False, False)
    drawer.open_gate()
    for each in (patient, other):
        await each.finish()
        await each.stop()
    assert len(drawer.asked) == await process.count_generations(principal.tenant_id) == 4


async def test_request_like_an_open_one_waits_and_adopts_its_order(
    database: Database, store: LocalStore, principal: Principal, drawer: FakeDrawer
) -> None:
    process = await start_process(database, store, drawer.pooled(), retry_window_seconds=600)
    drawer.close_gate()
    first = await process.submit(principal=principal)
    repeating = asyncio.create_task(_submit_again(process, principal))
    await process.service.note_lost(first)
    assert (await repeating).guid == first.guid
    said = await _submit_again(process, principal, says_repeated=True)
    assert (said.guid, said.replayed) == (first.guid, True)
    drawer.open_gate()
    await process.finish()
    assert len(drawer.asked) == 1
    await process.stop()


async def test_cancelled_waiting_order_charges_nothing(
    database: Database, store: LocalStore, principal: Principal, other_principal: Principal
) -> None:
    drawer = FakeDrawer()
    drawer.close_gate()
    process = await start_process(database, store, drawer.pooled(concurrency=1))
    begun, waiting = [await process.submit(PRICED, principal=principal, key=key) for key in ("a", "b")]
    outcome = asyncio.create_task(process.watcher.outcome(waiting.guid, tenant_id=principal.tenant_id, seconds=20))
    with pytest.raises(core.GenerationNotFoundException):
        await process.service.cancel(waiting.guid, tenant_id=other_principal.tenant_id)
    with pytest.raises(core.GenerationInFlightException):
        await process.service.cancel(begun.guid, tenant_id=principal.tenant_id)
    # The second call finds it finished and erases it.
    cancelled_twice = [await process.service.cancel(waiting.guid, tenant_id=principal.tenant_id) for _ in range(2)]
    assert cancelled_twice == [True, False]
    with pytest.raises(core.GenerationCancelledException):
        await outcome
    drawer.open_gate()
    await process.finish()
    assert not await process.service.cancel(begun.guid, tenant_id=principal.tenant_id)
    cancelled = await process.generation(waiting.guid)
    assert (cancelled.status, cancelled.idempotency_key) == (GenerationStatus.CANCELLED, None)
    spending = await process.spending(cancelled)
    assert (spending.spent_micro_usd, spending.reserved_micro_usd) == (PRICE, 0)
    assert len(drawer.asked) == 1
    await process.stop()


async def test_order_is_either_cancelled_or_executed(
    database: Database, store: LocalStore, principal: Principal
) -> None:
    drawer = FakeDrawer()
    process = await start_process(database, store, drawer.pooled(concurrency=1))
    submitted = [await process.submit(ImagePrompt(prompt=f"{number}"), principal=principal) for number in range(12)]

    async def cancel(guid: GenerationGuid) -> bool | type[Exception]:
        try:
            return await process.service.cancel(guid, tenant_id=principal.tenant_id)
        except core.GenerationInFlightException as error:
            return type(error)

    ends = await asyncio.gather(*(cancel(each.guid) for each in submitted))
    async with asyncio.timeout(20):
        while await process.database.read(lambda data: not data.queue.is_empty()):  # noqa: ASYNC110  (rows have no event)
            await asyncio.sleep(0.01)
    await process.finish()
    cancelled = {each.guid for each, end in zip(submitted, ends, strict=True) if end is True}
    statuses = {each.guid: (await process.generation(each.guid)).status for each in submitted}
    assert {guid for guid, status in statuses.items() if status is GenerationStatus.CANCELLED} == cancelled
    assert len(drawer.asked) == len(submitted) - len(cancelled)
    await process.stop()


@pytest.mark.parametrize("of", ["tenant", "key"])
async def test_concurrent_orders_stop_exactly_at_the_minute_limit(
    process: Process, pair: list[Process], drawer: FakeDrawer, tenant: Tenant, of: str
) -> None:
    limited = principal_of(tenant).model_copy(update={f"{of}_images_per_minute": 20})
    orders = [NewOrder(prompt=f"{number}", count=2) for number in range(50)]
    ends = await asyncio.gather(
        *(pair[number % 2].submit(order, principal=limited) for number, order in enumerate(orders)),
        return_exceptions=True,
    )
    assert Counter(map(type, ends)) == {Submission: 10, core.ImageLimitException: 40}
    waits = {end.retry_after_seconds for end in ends if isinstance(end, core.ImageLimitException)}
    assert waits <= set(range(1, IMAGE_WINDOW_SECONDS + 2))
    for each in pair:
        await each.finish()
    assert len(drawer.asked) == await process.count_generations(tenant.id) == 10
    # The limit applies to this key only, or to the whole tenant.
    another = limited.model_copy(update={"subject": principal_of(tenant).subject})
    (end,) = await asyncio.gather(process.submit(orders[0], principal=another), return_exceptions=True)
    assert type(end) is (Submission if of == "key" else core.ImageLimitException)


async def test_minute_limit_ends_with_the_minute(process: Process, principal: Principal) -> None:
    limited = principal.model_copy(update={"tenant_images_per_minute": 1})
    first = await process.submit(principal=limited)
    with pytest.raises(core.ImageLimitException):
        await process.submit(ImagePrompt(prompt="a hen"), principal=limited)
    earlier = to_timestamp(clock.now() - timedelta(seconds=IMAGE_WINDOW_SECONDS + 1))
    statement = text("UPDATE generations SET created_at = :at WHERE guid = :guid")
    await process.database.write(lambda data: data.connection.execute(statement, {"at": earlier, "guid": first.guid}))
    assert not (await process.submit(ImagePrompt(prompt="a hen"), principal=limited)).replayed
    await process.finish()
