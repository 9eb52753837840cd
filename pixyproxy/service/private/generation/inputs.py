"""Input pictures of an order, stored with it until it finishes so that any process can execute it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pixyproxy.core.exceptions import InputPictureException, PictureUnusableException
from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.core.models.image import ImageGuid
from pixyproxy.core.models.order import InputField, InputPicture
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.database import Database
from pixyproxy.data.files.spool import SpoolFile
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.private.generation.received import PictureLimits, PictureReceiver

PIECE_BYTES = 256 * 1024


@dataclass(frozen=True)
class Upload:
    """A picture that a client sent, open at its start; or the GUID of an image of its tenant."""

    field: InputField
    content: BinaryIO | ImageGuid


@dataclass(frozen=True)
class InputReceiver:
    """Receives input pictures into the store, where any process that executes the order can read them."""

    database: Database
    store: LocalStore
    limits: PictureLimits

    async def receive(
        self, uploads: Sequence[Upload], guid: GenerationGuid, *, tenant_id: TenantId
    ) -> tuple[InputPicture, ...]:
        """Store the uploads durably as the inputs of this generation, and describe them.

        Raise ``InputPictureException`` for an upload that is not a picture or not an image of the tenant, and
        ``ImageStorageException``.
        """
        files = self.store.orders
        await run_in_thread(files.prepare, guid)
        received = []
        for index, upload in enumerate(uploads):
            receiver = PictureReceiver(SpoolFile(files.input(guid, index)), self.limits)
            if isinstance(upload.content, str):
                path = await self._path_of(upload.content, tenant_id, field=upload.field)
                work = partial(_copy_file, path, receiver)
            else:
                work = partial(_copy, upload.content, receiver)
            try:
                await run_in_thread(work)
            except PictureUnusableException as error:
                raise InputPictureException(context={"field": upload.field}) from error
            picture = receiver.picture
            received.append(
                InputPicture(
                    field=upload.field,
                    media_type=picture.media_type,
                    byte_size=picture.byte_size,
                    sha256=picture.sha256,
                )
            )
        await run_in_thread(files.sync, guid)
        return tuple(received)

    async def _path_of(self, guid: ImageGuid, tenant_id: TenantId, *, field: InputField) -> Path:
        image = await self.database.read(lambda data: data.images.get_own(guid, tenant_id=tenant_id))
        if image is None:
            raise InputPictureException(context={"field": field})
        path, _ = await self.store.locate(image.guid, image.media_type)
        return path


def _copy_file(path: Path, receiver: PictureReceiver) -> None:
    try:
        file = path.open("rb")
    except OSError as error:
        # The image was deleted just now.
        raise PictureUnusableException from error
    with file:
        _copy(file, receiver)


def _copy(content: BinaryIO, receiver: PictureReceiver) -> None:
    while piece := content.read(PIECE_BYTES):
        receiver.write(piece)
    receiver.finish()
