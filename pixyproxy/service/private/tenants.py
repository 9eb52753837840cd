"""Tenants, and the first of them."""

import uuid
from dataclasses import dataclass

from pixyproxy.core import clock
from pixyproxy.core.exceptions import TenantNotFoundException
from pixyproxy.core.models.tenant import IssuedApiKey, Scope, Tenant, TenantGuid, Visibility
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.private.api_keys import issue_key

FIRST_TENANT = "default"


@dataclass(frozen=True)
class TenantService:
    """Creates and finds tenants."""

    database: Database
    default_visibility: Visibility

    async def create_tenant(self, name: str, *, default_visibility: Visibility | None = None) -> Tenant:
        """A new tenant. Raises ``TenantExistsException`` where the name is taken."""
        visibility = default_visibility or self.default_visibility
        return await self.database.write(lambda data: _insert(data, name, visibility))

    async def list_tenants(self) -> list[Tenant]:
        """Every tenant, oldest first."""
        return await self.database.read(lambda data: data.tenants.list_all())

    async def require_tenant(self, name_or_guid: str) -> Tenant:
        """The tenant of this GUID or name. Raises ``TenantNotFoundException``."""
        tenant = await self.database.read(
            lambda data: data.tenants.get_by_guid(name_or_guid) or data.tenants.get_by_name(name_or_guid)
        )
        if tenant is None:
            raise TenantNotFoundException
        return tenant

    async def bootstrap(self) -> tuple[Tenant, IssuedApiKey | None]:
        """The way in: the first tenant, with an administrator's key unless one is still in force."""

        def create_first(data: Repositories) -> tuple[Tenant, IssuedApiKey | None]:
            tenant = next(iter(data.tenants.list_all()), None) or _insert(data, FIRST_TENANT, self.default_visibility)
            if data.api_keys.active_administrator_exists(at=clock.now()):
                return tenant, None
            return tenant, issue_key(data, tenant, name="administrator", scopes=frozenset(Scope))

        return await self.database.write(create_first)


def _insert(data: Repositories, name: str, visibility: Visibility) -> Tenant:
    return data.tenants.insert(
        guid=TenantGuid(str(uuid.uuid4())), name=name, default_visibility=visibility, created_at=clock.now()
    )
