"""Read images: details, lists and pictures."""

import os
from dataclasses import dataclass
from pathlib import Path

from pixyproxy.core.exceptions import CredentialMissingException, ImageNotFoundException, PermissionException
from pixyproxy.core.fair_slots import Requester
from pixyproxy.core.models.image import ImageFilter, ImageGuid, ImageId, StoredImage
from pixyproxy.core.models.principal import Principal, Scope
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.cursors import CursorCodec
from pixyproxy.service.revalidation import revalidate


@dataclass(frozen=True)
class ImagePage:
    """One page of a list; ``next_cursor`` is None on the last page."""

    images: list[StoredImage]
    next_cursor: str | None


@dataclass(frozen=True)
class PictureFile:
    """An image and its picture file."""

    image: StoredImage
    path: Path
    status: os.stat_result


@dataclass(frozen=True)
class ImageReader:
    """Reads images; ``viewer`` is None for an anonymous viewer."""

    database: Database
    store: LocalStore
    cursors: CursorCodec

    async def require_image(self, guid: ImageGuid, *, viewer: Principal | None) -> StoredImage:
        """Return the image if the viewer may see it. Raises ``ImageNotFoundException`` otherwise."""
        tenant_id = _tenant_of(viewer)
        image = await self.database.read(lambda data: data.images.get_visible(guid, tenant_id=tenant_id))
        if image is None:
            raise ImageNotFoundException
        return image

    async def list_images(
        self, incoming: ImageFilter, *, viewer: Principal | None, limit: int, cursor: str | None, address: str = ""
    ) -> ImagePage:
        """Return at most ``limit`` images, newest first, starting at ``cursor``; searches are queued per ``address``.

        Raises ``CredentialMissingException`` if an anonymous viewer requests their own images,
        ``PermissionException`` if a viewer without ``image:read`` does, ``InvalidCursorException`` for a cursor of
        another filter, and as ``Database.search`` does.
        """
        wanted = revalidate(incoming)
        tenant_id = _tenant_of(viewer)
        if wanted.mine and viewer is None:
            raise CredentialMissingException
        if wanted.mine and tenant_id is None:
            raise PermissionException(context={"scope": Scope.IMAGE_READ})
        before = None if cursor is None else ImageId(self.cursors.decode(cursor, wanted))

        def find(data: Repositories) -> list[StoredImage]:
            return data.images.list_visible(wanted, tenant_id=tenant_id, before=before, limit=limit + 1)

        if wanted.is_search:
            requester = Requester(None if viewer is None else viewer.tenant_id, address)
            found = await self.database.search(find, requester=requester)
        else:
            found = await self.database.read(find)
        page = found[:limit]
        return ImagePage(page, self.cursors.encode(page[-1].id, wanted) if len(found) > limit else None)

    async def require_picture(self, guid: ImageGuid, *, viewer: Principal | None) -> PictureFile:
        """Return the image with its file. Raises ``ImageNotFoundException`` and ``PictureMissingException``."""
        image = await self.require_image(guid, viewer=viewer)
        path, status = await self.store.locate(image.guid, image.media_type)
        return PictureFile(image=image, path=path, status=status)


def _tenant_of(viewer: Principal | None) -> TenantId | None:
    """Return the tenant whose private pictures the viewer may see."""
    return viewer.tenant_id if viewer is not None and Scope.IMAGE_READ in viewer.scopes else None
