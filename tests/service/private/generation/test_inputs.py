"""Input pictures: stored completely, or rejected."""

import hashlib
import io
import shutil

import pytest

from pixyproxy.core.exceptions import ImageStorageException, InputPictureException, PictureMissingException
from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.core.models.image import ImageGuid, StoredImage
from pixyproxy.core.models.order import InputPicture
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Database
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.private.generation.inputs import PIECE_BYTES, InputReceiver, Upload
from pixyproxy.service.private.generation.received import PictureLimits
from tests.support import pictures
from tests.support.builders import add_image, keep_picture, new_guid

pytestmark = pytest.mark.anyio
LARGE = pictures.noise_png(2 * PIECE_BYTES)
SMALL = pictures.jpeg(32, 16)
GUID = GenerationGuid(new_guid())


@pytest.fixture
def receiver(database: Database, store: LocalStore) -> InputReceiver:
    limits = PictureLimits(max_bytes=len(LARGE), max_pixels=10_000_000)
    return InputReceiver(database=database, store=store, limits=limits)


@pytest.fixture
async def image(database: Database, store: LocalStore, tenant: Tenant) -> StoredImage:
    """Add an image of the tenant."""
    made = await database.write(lambda data: add_image(data, tenant))
    await keep_picture(store, made.guid, content=SMALL)
    return made


def _upload(content: bytes | ImageGuid) -> Upload:
    return Upload(field="image", content=io.BytesIO(content) if isinstance(content, bytes) else content)


async def test_uploads_are_stored_and_described_in_order(receiver: InputReceiver, tenant: Tenant) -> None:
    uploads = [_upload(LARGE), Upload(field="mask", content=io.BytesIO(SMALL))]
    received = await receiver.receive(uploads, GUID, tenant_id=tenant.id)
    assert received == (
        InputPicture(
            field="image", media_type="image/png", byte_size=len(LARGE), sha256=hashlib.sha256(LARGE).hexdigest()
        ),
        InputPicture(
            field="mask", media_type="image/jpeg", byte_size=len(SMALL), sha256=hashlib.sha256(SMALL).hexdigest()
        ),
    )
    assert [receiver.store.orders.input(GUID, index).read_bytes() for index in range(2)] == [LARGE, SMALL]


async def test_image_of_the_tenant_is_copied(receiver: InputReceiver, tenant: Tenant, image: StoredImage) -> None:
    (received,) = await receiver.receive([_upload(image.guid)], GUID, tenant_id=tenant.id)
    assert received.sha256 == hashlib.sha256(SMALL).hexdigest()
    assert receiver.store.orders.input(GUID, 0).read_bytes() == SMALL
    assert await receiver.store.read(image.guid, image.media_type) == SMALL


async def test_image_of_another_tenant_looks_missing(
    receiver: InputReceiver, stranger: Tenant, image: StoredImage
) -> None:
    told = set()
    for guid in (image.guid, ImageGuid(new_guid())):
        with pytest.raises(InputPictureException) as caught:
            await receiver.receive([_upload(guid)], GUID, tenant_id=stranger.id)
        told.add((str(caught.value), str(caught.value.context)))
    assert len(told) == 1


@pytest.mark.parametrize(
    "content", [b"", pictures.svg(), b"no picture at all", LARGE + b"\0"], ids=["empty", "svg", "text", "too large"]
)
async def test_invalid_picture_is_rejected_with_its_field(
    receiver: InputReceiver, tenant: Tenant, content: bytes
) -> None:
    uploads = [_upload(SMALL), Upload(field="mask", content=io.BytesIO(content))]
    with pytest.raises(InputPictureException) as caught:
        await receiver.receive(uploads, GUID, tenant_id=tenant.id)
    assert caught.value.context == {"field": "mask"}


async def test_missing_folder_or_picture_is_a_storage_exception(
    receiver: InputReceiver, tenant: Tenant, image: StoredImage
) -> None:
    receiver.store.path(image.guid, image.media_type).unlink()
    with pytest.raises(PictureMissingException):
        await receiver.receive([_upload(image.guid)], GUID, tenant_id=tenant.id)
    shutil.rmtree(receiver.store.orders.folder)
    receiver.store.orders.folder.write_text("in the way")
    with pytest.raises(ImageStorageException):
        await receiver.receive([_upload(SMALL)], GUID, tenant_id=tenant.id)
