"""Managing images."""

import pytest

from pixyproxy.core.exceptions import (
    ImageNotFoundException,
    ImageStorageException,
    InvalidRequestException,
    PictureMissingException,
)
from pixyproxy.core.models.image import ImageChange, ImageGuid, StoredImage
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import Tenant, Visibility
from pixyproxy.data.database import Database
from pixyproxy.data.store.local import LocalStore
from pixyproxy.service.private.images import ImageEditor
from tests.support.builders import MOMENT, add_image, find_picture, keep_picture, new_guid

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


async def test_a_change_is_kept_and_returned(manager: ImageEditor, image: StoredImage, principal: Principal) -> None:
    change = ImageChange(visibility=Visibility.PRIVATE, filename="b.png")
    changed = await manager.change_image(image.guid, change, principal=principal)
    assert changed == await _found(manager, image)
    assert (changed.visibility, changed.filename) == (Visibility.PRIVATE, "b.png")
    assert changed.updated_at > MOMENT
    assert changed.created_at == image.created_at


async def test_an_invalid_change_changes_nothing(
    manager: ImageEditor, image: StoredImage, principal: Principal
) -> None:
    with pytest.raises(InvalidRequestException):
        await manager.change_image(image.guid, ImageChange.model_construct(filename="a/b"), principal=principal)
    assert await _found(manager, image) == image


async def test_a_deleted_image_is_gone_with_its_picture(
    manager: ImageEditor, image: StoredImage, principal: Principal
) -> None:
    await manager.delete_image(image.guid, principal=principal)
    assert await _found(manager, image) is None
    with pytest.raises(PictureMissingException):
        await manager.store.read(image.guid, image.media_type)


async def test_an_image_of_another_tenant_is_answered_as_an_absent_one(
    manager: ImageEditor, image: StoredImage, other_principal: Principal
) -> None:
    for guid in (image.guid, ImageGuid(new_guid())):
        with pytest.raises(ImageNotFoundException):
            await manager.change_image(guid, ImageChange(filename="b.png"), principal=other_principal)
        with pytest.raises(ImageNotFoundException):
            await manager.delete_image(guid, principal=other_principal)
    assert await _found(manager, image) == image
    assert find_picture(manager.store, image.guid) == image.media_type


async def test_a_picture_that_cannot_be_removed_is_told_and_seen_by_nobody(
    manager: ImageEditor, image: StoredImage, principal: Principal
) -> None:
    path = manager.store.path(image.guid, image.media_type)
    path.unlink()
    path.mkdir()
    with pytest.raises(ImageStorageException):
        await manager.delete_image(image.guid, principal=principal)
    assert await _found(manager, image) is None
