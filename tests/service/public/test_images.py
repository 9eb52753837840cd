"""Reading images."""

import pytest
from pydantic import SecretStr

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.image import ImageFilter, ImageGuid, StoredImage
from pixyproxy.core.models.principal import Principal, Scope
from pixyproxy.core.models.tenant import Tenant, TenantStatus, Visibility
from pixyproxy.data.database import Database
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.cursors import CursorCodec
from pixyproxy.service.public.images import ImageReader
from tests.support.builders import add_image, keep_picture, new_guid, principal_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def reader(database: Database, store: LocalStore) -> ImageReader:
    return ImageReader(database=database, store=store, cursors=CursorCodec(SecretStr("secret")))


@pytest.fixture
async def private(database: Database, tenant: Tenant) -> StoredImage:
    return await database.write(lambda data: add_image(data, tenant, visibility=Visibility.PRIVATE))


def _without_reading(tenant: Tenant) -> Principal:
    return principal_of(tenant).model_copy(update={"scopes": frozenset({Scope.IMAGE_GENERATE})})


async def test_private_image_is_visible_to_its_tenant(
    reader: ImageReader, private: StoredImage, tenant: Tenant
) -> None:
    assert await reader.require_image(private.guid, viewer=principal_of(tenant)) == private


async def test_private_image_does_not_exist_for_others(
    reader: ImageReader, private: StoredImage, tenant: Tenant, stranger: Tenant
) -> None:
    told = set()
    for viewer in (None, principal_of(stranger), _without_reading(tenant)):
        for guid in (private.guid, ImageGuid(new_guid())):
            with pytest.raises(core.ImageNotFoundException) as caught:
                await reader.require_image(guid, viewer=viewer)
            told.add((str(caught.value), str(caught.value.context)))
            with pytest.raises(core.ImageNotFoundException):
                await reader.require_picture(guid, viewer=viewer)
    assert len(told) == 1


async def test_pages_are_consecutive_to_the_end(reader: ImageReader, database: Database, tenant: Tenant) -> None:
    made = [await database.write(lambda data: add_image(data, tenant)) for _ in range(5)]
    seen: list[StoredImage] = []
    cursor = None
    for expected in (2, 2, 1):
        page = await reader.list_images(ImageFilter(), viewer=None, limit=2, cursor=cursor)
        assert len(page.images) == expected
        seen, cursor = seen + page.images, page.next_cursor
    assert cursor is None
    assert seen == made[::-1]


async def test_full_last_page_has_no_cursor(reader: ImageReader, private: StoredImage, tenant: Tenant) -> None:
    page = await reader.list_images(ImageFilter(mine=True), viewer=principal_of(tenant), limit=1, cursor=None)
    assert (page.images, page.next_cursor) == ([private], None)


async def test_cursor_of_another_filter_is_rejected(reader: ImageReader, database: Database, tenant: Tenant) -> None:
    for _ in range(2):
        await database.write(lambda data: add_image(data, tenant))
    page = await reader.list_images(ImageFilter(), viewer=None, limit=1, cursor=None)
    with pytest.raises(core.InvalidCursorException):
        await reader.list_images(ImageFilter(prompt="fox"), viewer=None, limit=1, cursor=page.next_cursor)


async def test_mine_requires_a_credential_with_read_scope(reader: ImageReader, tenant: Tenant) -> None:
    with pytest.raises(core.CredentialMissingException):
        await reader.list_images(ImageFilter(mine=True), viewer=None, limit=1, cursor=None)
    with pytest.raises(core.PermissionException):
        await reader.list_images(ImageFilter(mine=True), viewer=_without_reading(tenant), limit=1, cursor=None)


async def test_invalid_filter_is_rejected(reader: ImageReader) -> None:
    with pytest.raises(core.InvalidRequestException):
        await reader.list_images(ImageFilter.model_construct(guid="x"), viewer=None, limit=1, cursor=None)


async def test_picture_is_read_byte_for_byte(
    reader: ImageReader, private: StoredImage, tenant: Tenant, store: LocalStore
) -> None:
    await keep_picture(store, private.guid)
    picture = await reader.require_picture(private.guid, viewer=principal_of(tenant))
    assert picture.image == private
    assert picture.path.read_bytes() == b"picture"
    assert picture.status.st_size == len(b"picture")


async def test_missing_file_is_distinguished_from_a_missing_image(
    reader: ImageReader, private: StoredImage, tenant: Tenant
) -> None:
    with pytest.raises(core.PictureMissingException):
        await reader.require_picture(private.guid, viewer=principal_of(tenant))


@pytest.mark.parametrize("status", [TenantStatus.SUSPENDED, TenantStatus.DELETING])
async def test_public_images_of_an_inactive_tenant_do_not_exist(
    reader: ImageReader, database: Database, tenant: Tenant, stranger: Tenant, status: TenantStatus
) -> None:
    image = await database.write(lambda data: add_image(data, tenant))
    await keep_picture(reader.store, image.guid)
    await database.write(lambda data: data.tenants.update(tenant.model_copy(update={"status": status})))
    for viewer in (None, principal_of(stranger)):
        with pytest.raises(core.ImageNotFoundException):
            await reader.require_image(image.guid, viewer=viewer)
        with pytest.raises(core.ImageNotFoundException):
            await reader.require_picture(image.guid, viewer=viewer)
        page = await reader.list_images(ImageFilter(), viewer=viewer, limit=9, cursor=None)
        assert page.images == []
    await database.write(lambda data: data.tenants.update(tenant))
    assert await reader.require_image(image.guid, viewer=None) == image
