"""Changing and deleting images."""

import asyncio
import json

import pytest

from pixyproxy.core.exceptions import (
    ImageNotFoundException,
    ImageStorageException,
    InvalidRequestException,
    PictureMissingException,
)
from pixyproxy.core.models.generation import Generation, GenerationStatus
from pixyproxy.core.models.image import ImageChange, ImageGuid, StoredImage
from pixyproxy.core.models.order import UpstreamAnswer
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import Tenant, Visibility
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.private.generation.settlement import webhook_outcome
from pixyproxy.service.private.images import ImageEditor
from pixyproxy.service.private.webhooks.subscriptions import enqueue
from tests.support.builders import (
    MOMENT,
    add_image,
    find_picture,
    keep_picture,
    new_generation,
    new_guid,
    new_image,
    new_order,
    stored_outcome,
)
from tests.support.databases import TABLES
from tests.support.webhook_receiver import new_webhook

pytestmark = pytest.mark.anyio


@pytest.fixture
def manager(database: Database, store: LocalStore) -> ImageEditor:
    return ImageEditor(database, store)


@pytest.fixture
async def image(database: Database, store: LocalStore, tenant: Tenant) -> StoredImage:
    stored = await database.write(lambda data: add_image(data, tenant))
    await keep_picture(store, stored.guid)
    return stored


async def _found(manager: ImageEditor, image: StoredImage) -> StoredImage | None:
    return await manager.database.read(lambda data: data.images.get_own(image.guid, tenant_id=image.tenant_id))


async def test_change_is_stored_and_returned(manager: ImageEditor, image: StoredImage, principal: Principal) -> None:
    change = ImageChange(visibility=Visibility.PRIVATE, filename="b.png")
    changed = await manager.change_image(image.guid, change, principal=principal)
    assert changed == await _found(manager, image)
    assert (changed.visibility, changed.filename) == (Visibility.PRIVATE, "b.png")
    assert changed.updated_at > MOMENT
    assert changed.created_at == image.created_at


async def test_invalid_change_is_rejected(manager: ImageEditor, image: StoredImage, principal: Principal) -> None:
    with pytest.raises(InvalidRequestException):
        await manager.change_image(image.guid, ImageChange.model_construct(filename="a/b"), principal=principal)
    assert await _found(manager, image) == image


async def test_deleted_image_is_removed_with_its_picture(
    manager: ImageEditor, image: StoredImage, principal: Principal
) -> None:
    await manager.delete_image(image.guid, principal=principal)
    assert await _found(manager, image) is None
    with pytest.raises(PictureMissingException):
        await manager.store.read(image.guid, image.media_type)


async def test_image_of_another_tenant_is_reported_as_not_found(
    manager: ImageEditor, image: StoredImage, other_principal: Principal
) -> None:
    for guid in (image.guid, ImageGuid(new_guid())):
        with pytest.raises(ImageNotFoundException):
            await manager.change_image(guid, ImageChange(filename="b.png"), principal=other_principal)
        with pytest.raises(ImageNotFoundException):
            await manager.delete_image(guid, principal=other_principal)
    assert await _found(manager, image) == image
    assert find_picture(manager.store, image.guid) == image.media_type


async def test_failed_removal_of_a_picture_is_raised_and_the_image_stays_hidden(
    manager: ImageEditor, image: StoredImage, principal: Principal
) -> None:
    path = manager.store.path(image.guid, image.media_type)
    path.unlink()
    path.mkdir()
    with pytest.raises(ImageStorageException):
        await manager.delete_image(image.guid, principal=principal)
    assert await _found(manager, image) is None


MARK = "hush-hush"
"""Occurs in every text that a client or the upstream wrote about a generation."""
INPUT = {"field": "image", "media_type": "image/png", "byte_size": 1}


async def _add_marked(manager: ImageEditor, tenant: Tenant, *, images: int) -> tuple[Generation, list[StoredImage]]:
    """Return a stored generation with a pending webhook delivery, and its images."""

    def add(data: Repositories) -> tuple[Generation, list[StoredImage]]:
        webhook = new_webhook(tenant.id)
        data.webhooks.insert(webhook)
        order = {"options": {"user": MARK}, "inputs": [{**INPUT, "sha256": MARK}]}
        claimed = new_generation(tenant.id, prompt=MARK, filename=MARK)
        claimed = claimed.model_copy(update={"order": new_order(prompt=MARK, count=images, **order)})
        generation = data.generations.claim(claimed)
        assert generation is not None
        answer = UpstreamAnswer(facts={"note": MARK}, revised_prompts=(MARK,) * images)
        data.generations.settle(generation.id, stored_outcome(answer=answer, cost_micro_usd=7), tenant_id=tenant.id)
        enqueue(data, webhook_outcome(generation.model_copy(update={"status": GenerationStatus.STORED}), at=MOMENT))
        made = [
            data.images.record(new_image(tenant.id, generation.id, prompt=MARK, filename=f"{MARK}.png"))
            for _ in range(images)
        ]
        return generation, made

    return await manager.database.write(add)


async def _marked_tables(manager: ImageEditor) -> set[str]:
    """Return the tables that contain the mark."""

    def find(data: Repositories) -> set[str]:
        contents = {name: data.connection.exec_driver_sql(f"SELECT * FROM {name}").all() for name in TABLES}
        return {name for name, rows in contents.items() if MARK in str([tuple(row) for row in rows])}

    return await manager.database.read(find)


async def test_deleting_the_last_image_erases_the_order(
    manager: ImageEditor, tenant: Tenant, principal: Principal
) -> None:
    generation, (first, last) = await _add_marked(manager, tenant, images=2)
    assert await _marked_tables(manager) == {"generations", "images", "webhook_deliveries"}
    await manager.delete_image(first.guid, principal=principal)
    assert await _marked_tables(manager) == {"generations", "images", "webhook_deliveries"}
    await manager.delete_image(last.guid, principal=principal)
    assert await _marked_tables(manager) == set()
    left = await manager.database.read(lambda data: data.generations.get(generation.id, tenant_id=tenant.id))
    assert left is not None
    assert (left.order.prompt, left.order.count, left.order.model) == ("", 2, generation.order.model)
    assert (left.fingerprint, left.cost_micro_usd, left.image_count) == (generation.fingerprint, 7, 1)


async def test_second_of_two_concurrent_deletions_erases_the_order(
    manager: ImageEditor, tenant: Tenant, principal: Principal
) -> None:
    _, images = await _add_marked(manager, tenant, images=8)
    await asyncio.gather(*(manager.delete_image(image.guid, principal=principal) for image in images))
    assert await _marked_tables(manager) == set()


async def test_deletion_keeps_the_orders_of_other_generations(
    manager: ImageEditor, tenant: Tenant, principal: Principal
) -> None:
    _, (image,) = await _add_marked(manager, tenant, images=1)
    other = await manager.database.write(lambda data: add_image(data, tenant))
    await manager.delete_image(other.guid, principal=principal)
    assert await _marked_tables(manager) == {"generations", "images", "webhook_deliveries"}
    assert await _found(manager, image) == image


async def test_pending_webhook_delivery_loses_only_the_prompt(
    manager: ImageEditor, tenant: Tenant, principal: Principal
) -> None:
    generation, (image,) = await _add_marked(manager, tenant, images=1)
    await manager.delete_image(image.guid, principal=principal)
    (delivery,) = await manager.database.read(
        lambda data: data.webhook_deliveries.list_pending(generation.guid, tenant_id=tenant.id)
    )
    told = json.loads(delivery.payload)["data"]
    assert (told["generation"], told["status"], told["prompt"]) == (generation.guid, "stored", "")
