"""Managing a tenant's own images."""

import logging
from dataclasses import dataclass

from pixyproxy.core import clock
from pixyproxy.core.exceptions import ImageNotFoundException, ImageStorageException
from pixyproxy.core.models.image import ImageChange, ImageGuid, StoredImage
from pixyproxy.core.models.principal import Principal
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.store.local import LocalStore
from pixyproxy.service.revalidation import revalidate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageEditor:
    """Changes and deletes images; another tenant's image is answered as if it did not exist."""

    database: Database
    store: LocalStore

    async def change_image(self, guid: ImageGuid, incoming: ImageChange, *, principal: Principal) -> StoredImage:
        """Change visibility or filename and return the image as it is now. Raises ``ImageNotFoundException``."""
        change = revalidate(incoming)

        def apply(data: Repositories) -> StoredImage:
            _require_own(data, guid, principal)
            data.images.change(guid, change, tenant_id=principal.tenant_id, at=clock.now())
            return _require_own(data, guid, principal)

        return await self.database.write(apply)

    async def delete_image(self, guid: ImageGuid, *, principal: Principal) -> None:
        """Remove an image and its picture. Raises ``ImageNotFoundException``.

        The record goes first: from then on nobody sees the picture, whatever becomes of the file.
        """

        def remove(data: Repositories) -> StoredImage:
            image = _require_own(data, guid, principal)
            data.images.delete(guid, tenant_id=principal.tenant_id)
            return image

        image = await self.database.write(remove)
        try:
            await self.store.delete(image.guid, image.media_type)
        except ImageStorageException:
            logger.exception("the file of deleted picture %s could not be removed", image.guid)
            raise


def _require_own(data: Repositories, guid: ImageGuid, principal: Principal) -> StoredImage:
    image = data.images.get_own(guid, tenant_id=principal.tenant_id)
    if image is None:
        raise ImageNotFoundException
    return image
