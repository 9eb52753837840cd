"""Removal of a tenant and everything it owns, in small repeatable steps."""

import logging
from dataclasses import dataclass
from functools import partial

from pixyproxy.core.models.image import StoredImage
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.retained_answers import RetainedAnswers
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.private.retained_answers import remove_decided

logger = logging.getLogger(__name__)

IMAGES_AT_ONCE = 100


@dataclass(frozen=True)
class TenantRemoval:
    """Removes tenants in status ``deleting``."""

    database: Database
    store: LocalStore
    answers: RetainedAnswers

    async def remove(self, tenant: Tenant) -> None:
        """Remove pictures, then rows; the row of a tenant with unfinished generations stays until they finish.

        A file is removed before its row, so that a crash leaves no file without a row. Raises
        ``ImageStorageException`` and ``DatabaseException``; recovery then continues the removal.
        """
        while images := await self._some_images(tenant):
            for image in images:
                await self.store.delete(image.guid, image.media_type)
            await self.database.write(partial(_forget, images=images))
        if await self.database.write(lambda data: _remove_rows(data, tenant)):
            logger.info("tenant %s removed", tenant.guid)
        await remove_decided(self.database, self.answers)

    async def remove_all(self) -> None:
        """Continue every removal that has started."""
        for tenant in await self.database.read(lambda data: data.tenants.list_deleting()):
            await self.remove(tenant)

    async def _some_images(self, tenant: Tenant) -> list[StoredImage]:
        return await self.database.read(lambda data: data.images.list_some(tenant_id=tenant.id, limit=IMAGES_AT_ONCE))


def _forget(data: Repositories, *, images: list[StoredImage]) -> None:
    for image in images:
        data.images.delete(image.guid, tenant_id=image.tenant_id)


def _remove_rows(data: Repositories, tenant: Tenant) -> bool:
    """Remove the remaining rows, the tenant's last; return False while a generation or picture is unfinished."""
    if data.images.list_some(tenant_id=tenant.id, limit=1):
        return False
    data.refresh_tokens.delete_of_tenant(tenant_id=tenant.id)
    data.revoked_tokens.delete_of_tenant(tenant_id=tenant.id)
    data.users.delete_of_tenant(tenant_id=tenant.id)
    data.api_keys.delete_of_tenant(tenant_id=tenant.id)
    if not data.generations.delete_settled(tenant_id=tenant.id):
        return False
    data.webhook_deliveries.delete_of_tenant(tenant_id=tenant.id)
    data.webhooks.delete_of_tenant(tenant_id=tenant.id)
    data.upstreams.delete_turns(tenant_id=tenant.id)
    data.budgets.delete_all(tenant_id=tenant.id)
    data.tenants.delete(tenant.id)
    return True
