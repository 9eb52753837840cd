"""Recovery: what a crash or an outage left behind is finished, once."""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from pixyproxy.core import clock
from pixyproxy.core.exceptions import DatabaseUnavailableException, GenerationDeletedException
from pixyproxy.core.models.generation import Generation, GenerationStatus
from pixyproxy.core.models.image import ImageFilter, StoredImage
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.service.private.generation import record_picture
from pixyproxy.service.private.recovery import Recovery
from pixyproxy.service.private.upstream.picture import inspect_picture
from tests.service.private.conftest import Outage
from tests.support import pictures
from tests.support.builders import new_generation
from tests.support.drawing import LIMITS

pytestmark = pytest.mark.anyio
PICTURE = pictures.png(32, 16)


async def _claim(recovery: Recovery, tenant: Tenant, *, key: str = "k", seconds_ago: int = 0) -> Generation:
    new = new_generation(tenant.id, idempotency_key=key, created_at=clock.now() - timedelta(seconds=seconds_ago))
    generation = await recovery.database.write(lambda data: data.generations.claim(new))
    assert generation is not None
    return generation


async def _left_behind(recovery: Recovery, tenant: Tenant, *, key: str = "k", content: bytes = PICTURE) -> Generation:
    """What a process leaves that dies between the upstream's answer and the commit."""
    generation = await _claim(recovery, tenant, key=key)
    await recovery.store.write(generation.image_guid, "image/png", content)
    return generation


async def _images(recovery: Recovery, tenant: Tenant) -> list[StoredImage]:
    wanted = ImageFilter(mine=True)
    return await recovery.database.read(
        lambda data: data.images.list_visible(wanted, tenant_id=tenant.id, before=None, limit=100)
    )


async def _status(recovery: Recovery, tenant: Tenant) -> GenerationStatus:
    generation = await recovery.database.read(
        lambda data: data.generations.get_by_idempotency_key("k", tenant_id=tenant.id)
    )
    assert generation is not None
    return generation.status


async def test_a_picture_left_behind_is_recorded_as_what_it_is(recovery: Recovery, tenant: Tenant) -> None:
    generation = await _left_behind(recovery, tenant)
    await recovery.recover()
    (image,) = await _images(recovery, tenant)
    assert (image.guid, image.prompt, image.model) == (generation.image_guid, generation.prompt, generation.model)
    assert (image.filename, image.visibility) == (generation.filename, generation.visibility)
    assert (image.width, image.height, image.byte_size) == (32, 16, len(PICTURE))
    assert image.sha256 == hashlib.sha256(PICTURE).hexdigest()
    assert await _status(recovery, tenant) is GenerationStatus.STORED


async def test_two_recoveries_at_once_record_one_image(recovery: Recovery, tenant: Tenant) -> None:
    await _left_behind(recovery, tenant)
    await asyncio.gather(*(recovery.recover() for _ in range(4)))
    assert len(await _images(recovery, tenant)) == 1


async def test_a_picture_whose_record_was_written_meanwhile_is_recorded_once(
    recovery: Recovery, tenant: Tenant
) -> None:
    generation = await _left_behind(recovery, tenant)
    picture = inspect_picture(PICTURE, limits=LIMITS)
    stored = await recovery.database.write(lambda data: record_picture(data, generation, picture))
    again = await recovery.database.write(lambda data: record_picture(data, generation, picture))
    assert again == stored
    await recovery.recover()
    assert await _images(recovery, tenant) == [stored]


async def test_an_outage_leaves_the_picture_and_its_end_finishes_it(
    recovery: Recovery, tenant: Tenant, outage: Outage
) -> None:
    await _left_behind(recovery, tenant)
    outage.lasts = True
    with pytest.raises(DatabaseUnavailableException):
        await recovery.recover()
    outage.lasts = False
    await recovery.recover()
    assert len(await _images(recovery, tenant)) == 1


async def test_a_picture_that_cannot_be_recorded_does_not_keep_the_others_from_it(
    recovery: Recovery, tenant: Tenant
) -> None:
    damaged = await _left_behind(recovery, tenant, key="damaged", content=b"no picture")
    whole = await _left_behind(recovery, tenant)
    await recovery.recover()
    assert [found.guid for found in await _images(recovery, tenant)] == [whole.image_guid]
    assert await recovery.store.find(damaged.image_guid) == "image/png"


@pytest.mark.parametrize(
    ("seconds_ago", "status"), [(70, GenerationStatus.UNKNOWN), (30, GenerationStatus.CALLING)], ids=["long", "short"]
)
async def test_a_call_that_nobody_can_be_making_any_more_is_given_up(
    recovery: Recovery, tenant: Tenant, seconds_ago: int, status: GenerationStatus
) -> None:
    await _claim(recovery, tenant, seconds_ago=seconds_ago)
    await recovery.recover()
    assert await _status(recovery, tenant) is status


async def test_a_picture_whose_call_took_too_long_is_recorded_and_not_given_up(
    recovery: Recovery, tenant: Tenant
) -> None:
    generation = await _claim(recovery, tenant, seconds_ago=1000)
    await recovery.store.write(generation.image_guid, "image/png", PICTURE)
    await recovery.recover()
    assert await _status(recovery, tenant) is GenerationStatus.STORED


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  (files and rows have no event to wait for)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_it_sweeps_at_the_start_and_goes_on_through_an_outage(
    recovery: Recovery, tenant: Tenant, outage: Outage
) -> None:
    await _left_behind(recovery, tenant)
    staged = recovery.store.folder / ".incoming" / "dead"
    staged.write_bytes(b"half")
    os.utime(staged, (0, 0))

    async def swept() -> bool:
        return not staged.exists()

    async def recorded() -> bool:
        return bool(await _images(recovery, tenant))

    outage.lasts = True
    running = asyncio.create_task(recovery.run_forever())
    await _eventually(swept)
    outage.lasts = False
    await _eventually(recorded)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_picture_that_was_recorded_and_deleted_is_not_recorded_again(
    recovery: Recovery, tenant: Tenant
) -> None:
    generation = await _left_behind(recovery, tenant)
    await recovery.recover()
    await recovery.database.write(lambda data: data.images.delete(generation.image_guid, tenant_id=tenant.id))
    picture = inspect_picture(PICTURE, limits=LIMITS)
    with pytest.raises(GenerationDeletedException):
        await recovery.database.write(lambda data: record_picture(data, generation, picture))
    assert await _images(recovery, tenant) == []


async def test_a_picture_that_cannot_be_recorded_just_now_is_not_given_up(recovery: Recovery, tenant: Tenant) -> None:
    generation = await _claim(recovery, tenant, seconds_ago=1000)
    await recovery.store.write(generation.image_guid, "image/png", b"damaged")
    await recovery.recover()
    assert await _status(recovery, tenant) is GenerationStatus.CALLING
