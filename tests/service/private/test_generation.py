"""Generation: pay once, never lose what was paid for."""

import asyncio
import hashlib
import re

import pytest

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.generation import Generation, GenerationStatus
from pixyproxy.core.models.image import ImageGuid, ImagePrompt, StoredImage
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import Visibility
from pixyproxy.data.database import Repositories
from pixyproxy.service.private.generation import GenerationService
from pixyproxy.service.private.images import ImageEditor
from pixyproxy.service.private.recovery import Recovery
from tests.service.private.conftest import Outage
from tests.support.drawing import FakeDrawer

pytestmark = pytest.mark.anyio
FOX = ImagePrompt(prompt="A red Fox, 2 hens & a 🦊!")
KEY = "key-1"


async def _generate(
    service: GenerationService, principal: Principal, prompt: ImagePrompt = FOX, key: str | None = KEY
) -> StoredImage:
    return (await service.generate_image(prompt, principal=principal, idempotency_key=key)).image


async def _begin(service: GenerationService, principal: Principal, drawer: FakeDrawer) -> asyncio.Task[StoredImage]:
    """A generation whose upstream has been asked and waits at the drawer's gate."""
    drawer.gate = asyncio.Event()
    task = asyncio.create_task(_generate(service, principal))
    await drawer.drawing.wait()
    return task


async def _generation(service: GenerationService, principal: Principal, key: str = KEY) -> Generation | None:
    return await service.database.read(
        lambda data: data.generations.get_by_idempotency_key(key, tenant_id=principal.tenant_id)
    )


async def test_a_picture_is_kept_and_recorded_with_what_it_is(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    made = await service.generate_image(FOX, principal=principal, idempotency_key=KEY)
    image = made.image
    content = await service.store.read(image.guid, image.media_type)
    assert not made.replayed
    assert (image.prompt, image.tenant_id, image.visibility) == (FOX.prompt, principal.tenant_id, Visibility.PUBLIC)
    assert (image.sha256, image.byte_size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (image.width, image.height, image.media_type, image.model) == (32, 16, "image/png", "fake")
    assert (
        await service.database.read(lambda data: data.images.get_own(image.guid, tenant_id=principal.tenant_id))
        == image
    )
    generation = await _generation(service, principal)
    assert generation is not None
    assert (generation.status, generation.id) == (GenerationStatus.STORED, image.generation_id)
    assert drawer.asked == [FOX]


@pytest.mark.parametrize(
    ("prompt", "pattern"),
    [
        (FOX, r"a-red-fox-2-hens-a-[0-9a-f]{8}\.png"),
        (ImagePrompt(prompt="🦊"), r"image-[0-9a-f]{8}\.png"),
        (ImagePrompt(prompt="../../etc/passwd\0"), r"etc-passwd-[0-9a-f]{8}\.png"),
        (ImagePrompt(prompt="word " * 6000), r"(word-){12}[0-9a-f]{8}\.png"),
        (ImagePrompt(prompt="a", filename="mine 🦊.gif"), r"mine 🦊\.gif"),
    ],
    ids=["words", "no words", "path", "long", "given"],
)
async def test_a_filename_is_given_or_made_of_the_prompt(
    service: GenerationService, principal: Principal, prompt: ImagePrompt, pattern: str
) -> None:
    assert re.fullmatch(pattern, (await _generate(service, principal, prompt)).filename)


async def test_a_request_says_who_may_see_its_picture(service: GenerationService, principal: Principal) -> None:
    private = FOX.model_copy(update={"visibility": Visibility.PRIVATE})
    assert (await _generate(service, principal, private)).visibility is Visibility.PRIVATE


async def test_an_invalid_prompt_buys_nothing(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    with pytest.raises(core.ImagePromptException):
        await _generate(service, principal, ImagePrompt.model_construct(prompt=""))
    assert drawer.asked == []
    assert await _generation(service, principal) is None


async def test_without_a_key_each_request_buys_a_picture(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    first, second = [await _generate(service, principal, key=None) for _ in range(2)]
    assert first.guid != second.guid
    assert len(drawer.asked) == 2


async def test_a_repeated_key_replays_its_picture(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    image = await _generate(service, principal)
    again = await service.generate_image(FOX, principal=principal, idempotency_key=KEY)
    assert (again.image, again.replayed) == (image, True)
    assert len(drawer.asked) == 1


@pytest.mark.parametrize(
    "other",
    [ImagePrompt(prompt="a hen"), FOX.model_copy(update={"size": "auto"}), FOX.model_copy(update={"filename": "a"})],
    ids=["prompt", "size", "filename"],
)
async def test_a_repeated_key_with_another_request_is_a_mismatch(
    service: GenerationService, principal: Principal, drawer: FakeDrawer, other: ImagePrompt
) -> None:
    await _generate(service, principal)
    with pytest.raises(core.IdempotencyMismatchException):
        await _generate(service, principal, other)
    assert len(drawer.asked) == 1


async def test_the_key_of_another_tenant_is_another_key(
    service: GenerationService, principal: Principal, other_principal: Principal, drawer: FakeDrawer
) -> None:
    mine, theirs = await _generate(service, principal), await _generate(service, other_principal)
    assert mine.guid != theirs.guid
    assert (mine.tenant_id, theirs.tenant_id) == (principal.tenant_id, other_principal.tenant_id)
    assert len(drawer.asked) == 2


async def test_a_key_being_worked_on_is_in_flight(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    first = await _begin(service, principal, drawer)
    with pytest.raises(core.GenerationInFlightException):
        await _generate(service, principal)
    drawer.open_gate()
    assert await _generate(service, principal, ImagePrompt(prompt="else"), "key-2") != await first
    assert len(drawer.asked) == 2


async def test_of_twenty_requests_at_once_with_one_key_one_buys(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    ends = await asyncio.gather(*(_generate(service, principal) for _ in range(20)), return_exceptions=True)
    made = {end.guid for end in ends if isinstance(end, StoredImage)}
    assert len(made) == 1
    assert all(isinstance(end, StoredImage | core.GenerationInFlightException) for end in ends)
    assert len(drawer.asked) == 1


@pytest.mark.parametrize(
    "error",
    [core.UpstreamSilentException(), core.UpstreamTimeoutException(), ZeroDivisionError()],
    ids=lambda error: type(error).__name__,
)
async def test_what_may_have_been_bought_is_unknown_and_never_bought_again(
    service: GenerationService, principal: Principal, drawer: FakeDrawer, error: Exception
) -> None:
    drawer.error = error
    with pytest.raises(type(error)):
        await _generate(service, principal)
    drawer.error = None
    with pytest.raises(core.GenerationUnknownException):
        await _generate(service, principal)
    assert len(drawer.asked) == 1


@pytest.mark.parametrize(
    "error",
    [core.PromptRefusedException(), core.UpstreamBusyException(), core.UpstreamUnreachableException()],
    ids=lambda error: type(error).__name__,
)
async def test_a_key_that_bought_nothing_may_try_again(
    service: GenerationService, principal: Principal, drawer: FakeDrawer, error: Exception
) -> None:
    drawer.error = error
    with pytest.raises(type(error)):
        await _generate(service, principal)
    drawer.error = None
    assert await _generate(service, principal)
    assert len(drawer.asked) == 2


async def test_the_key_of_a_deleted_picture_makes_no_other(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    image = await _generate(service, principal)
    await ImageEditor(service.database, service.store).delete_image(image.guid, principal=principal)
    with pytest.raises(core.GenerationDeletedException):
        await _generate(service, principal)
    assert len(drawer.asked) == 1


async def test_a_caller_that_hangs_up_gets_its_picture_later(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    caller = await _begin(service, principal, drawer)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    drawer.open_gate()
    await service.tasks.drain(20)
    replayed = await service.generate_image(FOX, principal=principal, idempotency_key=KEY)
    assert replayed.replayed
    assert len(drawer.asked) == 1


async def test_a_store_that_cannot_be_used_buys_nothing(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    service.store.folder.write_text("in the way")
    with pytest.raises(core.ImageStorageException):
        await _generate(service, principal)
    assert drawer.asked == []


async def test_a_store_that_fails_after_the_purchase_leaves_the_outcome_unknown(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    caller = await _begin(service, principal, drawer)
    service.store.folder.rmdir()
    service.store.folder.write_text("in the way")
    drawer.open_gate()
    with pytest.raises(core.ImageStorageException):
        await caller
    service.store.folder.unlink()
    with pytest.raises(core.GenerationUnknownException):
        await _generate(service, principal)
    assert len(drawer.asked) == 1


async def test_a_database_that_is_away_buys_nothing(
    service: GenerationService, principal: Principal, drawer: FakeDrawer, outage: Outage
) -> None:
    outage.lasts = True
    with pytest.raises(core.DatabaseUnavailableException):
        await _generate(service, principal)
    assert drawer.asked == []


async def test_a_database_that_dies_before_the_commit_leaves_the_picture_to_recovery(
    service: GenerationService, principal: Principal, drawer: FakeDrawer, outage: Outage, recovery: Recovery
) -> None:
    caller = await _begin(service, principal, drawer)
    outage.lasts = True
    drawer.open_gate()
    with pytest.raises(core.RecordPendingException) as caught:
        await caller
    guid = ImageGuid(caught.value.context["image"])
    assert await service.store.find(guid) == "image/png"
    outage.lasts = False
    await recovery.recover()
    again = await service.generate_image(FOX, principal=principal, idempotency_key=KEY)
    assert (again.replayed, again.image.guid) == (True, guid)


async def test_a_stop_during_the_call_settles_it_as_unknown(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    caller = await _begin(service, principal, drawer)
    await service.tasks.drain(0)
    with pytest.raises(asyncio.CancelledError):
        await caller
    generation = await _generation(service, principal)
    assert generation is not None
    assert generation.status is GenerationStatus.UNKNOWN


async def test_no_connection_is_held_while_the_upstream_draws(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    drawer.gate = asyncio.Event()
    callers = [asyncio.create_task(_generate(service, principal, key=None)) for _ in range(20)]
    await drawer.drawing.wait()

    def answer(data: Repositories) -> int:
        return len(data.tenants.list_all())

    assert await service.database.read(answer) == 1
    drawer.open_gate()
    assert len({image.guid for image in await asyncio.gather(*callers)}) == 20


@pytest.mark.parametrize("model", [None, "fake", "another"])
async def test_a_model_that_is_not_allowed_buys_nothing(
    service: GenerationService, principal: Principal, drawer: FakeDrawer, model: str | None
) -> None:
    limited = principal.model_copy(update={"allowed_models": frozenset({"vendor/model"})})
    with pytest.raises(core.ModelNotAllowedException) as caught:
        await _generate(service, limited, FOX.model_copy(update={"model": model}))
    assert caught.value.context == {"model": model or service.default_model}
    assert drawer.asked == []
    assert await _generation(service, principal) is None


@pytest.mark.parametrize(("model", "allowed"), [("a", {"a"}), ("a", {"a", "b"}), (None, {"fake"}), ("a", None)])
async def test_a_model_that_is_allowed_is_used(
    service: GenerationService, principal: Principal, drawer: FakeDrawer, model: str | None, allowed: set[str] | None
) -> None:
    limited = principal.model_copy(update={"allowed_models": None if allowed is None else frozenset(allowed)})
    image = await _generate(service, limited, FOX.model_copy(update={"model": model}))
    assert image.model == (model or "fake")
    assert len(drawer.asked) == 1


async def test_a_budget_that_could_not_be_kept_buys_nothing(
    service: GenerationService, principal: Principal, drawer: FakeDrawer
) -> None:
    with pytest.raises(core.BudgetUnpricedException):
        await _generate(service, principal.model_copy(update={"has_budget": True}))
    assert drawer.asked == []
    assert await _generation(service, principal) is None


async def test_a_generation_names_who_asked(service: GenerationService, principal: Principal) -> None:
    await _generate(service, principal)
    generation = await _generation(service, principal)
    assert generation is not None
    assert generation.subject == principal.subject
