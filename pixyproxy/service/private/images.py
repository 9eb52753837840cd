"""Change and delete a tenant's own images."""

import contextlib
import logging
from dataclasses import dataclass

from pixyproxy.core import clock
from pixyproxy.core.exceptions import GenerationNotFoundException, ImageNotFoundException, ImageStorageException
from pixyproxy.core.models.generation import Generation, GenerationGuid
from pixyproxy.core.models.image import ImageChange, ImageGuid, StoredImage
from pixyproxy.core.models.principal import Principal
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.private.webhooks import subscriptions as webhooks
from pixyproxy.service.revalidation import revalidate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageEditor:
    """Changes and deletes images; another tenant's image is reported as not found."""

    database: Database
    store: LocalStore

    async def change_image(self, guid: ImageGuid, incoming: ImageChange, *, principal: Principal) -> StoredImage:
        """Change visibility or filename and return the changed image. Raises ``ImageNotFoundException``."""
        change = revalidate(incoming)

        def apply(data: Repositories) -> StoredImage:
            _require_own(data, guid, principal)
            data.images.change(guid, change, tenant_id=principal.tenant_id, at=clock.now())
            return _require_own(data, guid, principal)

        return await self.database.write(apply)

    async def delete_image(self, guid: ImageGuid, *, principal: Principal) -> None:
        """Delete an image and its picture; with the last image of a generation, erase its order.

        The row is deleted first, so that the picture is no longer served even if its file cannot be removed.
        Raises ``ImageNotFoundException``.
        """

        def remove(data: Repositories) -> StoredImage:
            image = _require_own(data, guid, principal)
            # Lock the generation first, so that the second of two concurrent deletions sees that no image is left.
            generation = data.generations.lock(image.generation_id, tenant_id=image.tenant_id)
            data.images.delete(guid, tenant_id=image.tenant_id)
            if data.generations.erase_order(generation, tenant_id=image.tenant_id, at=clock.now()):
                webhooks.erase_prompt(data, generation.guid, tenant_id=image.tenant_id)
            return image

        image = await self.database.write(remove)
        try:
            await self.store.delete(image.guid, image.media_type)
        except ImageStorageException:
            logger.exception("file of deleted picture %s not removed", image.guid)
            raise

    async def delete_generation(self, guid: GenerationGuid, *, principal: Principal) -> None:
        """Erase the order and the pictures of a finished generation.

        Raises ``GenerationNotFoundException``.
        """

        def find(data: Repositories) -> tuple[Generation, list[StoredImage]]:
            generation = data.generations.get_by_guid(guid, tenant_id=principal.tenant_id)
            if generation is None:
                raise GenerationNotFoundException
            return generation, data.images.list_of_generations([generation.id], tenant_id=principal.tenant_id)

        generation, images = await self.database.read(find)
        for image in images:
            with contextlib.suppress(ImageNotFoundException):
                await self.delete_image(image.guid, principal=principal)

        def erase(data: Repositories) -> None:
            if data.generations.erase_order(generation, tenant_id=generation.tenant_id, at=clock.now()):
                webhooks.erase_prompt(data, generation.guid, tenant_id=generation.tenant_id)

        await self.database.write(erase)


def _require_own(data: Repositories, guid: ImageGuid, principal: Principal) -> StoredImage:
    image = data.images.get_own(guid, tenant_id=principal.tenant_id)
    if image is None:
        raise ImageNotFoundException
    return image
