"""Tenants: bootstrap, create, change and delete them."""

import logging
import uuid
from dataclasses import dataclass

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    CredentialInvalidException,
    DatabaseException,
    ImageStorageException,
    OwnTenantException,
    TenantNotFoundException,
    TenantSuspendedException,
)
from pixyproxy.core.models.api_key import IssuedApiKey, NewApiKey
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import Actor, Scope
from pixyproxy.core.models.tenant import (
    NewTenant,
    Tenant,
    TenantChange,
    TenantDetail,
    TenantGuid,
    TenantId,
    TenantStatus,
    Visibility,
)
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.private import audit
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.identity.api_keys import issue_key
from pixyproxy.service.private.identity.credential_cache import CredentialCache
from pixyproxy.service.private.identity.grants import Grantor
from pixyproxy.service.private.removal import TenantRemoval
from pixyproxy.service.revalidation import revalidate

logger = logging.getLogger(__name__)

FIRST_TENANT = "default"


@dataclass(frozen=True)
class TenantService:
    """Creates, finds, changes and deletes tenants for operators."""

    database: Database
    default_visibility: Visibility
    removal: TenantRemoval
    tasks: DetachedTasks
    recognized: CredentialCache

    async def create_tenant(self, incoming: NewTenant, *, actor: Actor) -> Tenant:
        """Create a tenant. Raises ``TenantExistsException`` if the name is taken."""
        order = revalidate(incoming)
        return await self.database.write(lambda data: self._insert(data, order, actor))

    async def list_tenants(self) -> list[TenantDetail]:
        """Return all tenants, oldest first."""
        tenants = await self.database.read(lambda data: data.tenants.list_all())
        return [tenant_detail(tenant) for tenant in tenants if tenant.status is not TenantStatus.DELETING]

    async def require_tenant(self, name_or_guid: str) -> Tenant:
        """Return the tenant with this GUID or name. Raises ``TenantNotFoundException``."""
        return await self.database.read(lambda data: require_known(data.tenants.find(name_or_guid)))

    async def change_tenant(self, guid: str, incoming: TenantChange, *, actor: Actor) -> Tenant:
        """Change the given fields and return the changed tenant.

        Raises ``TenantNotFoundException``, ``TenantExistsException``, and ``OwnTenantException`` if operators
        would suspend their own tenant.
        """
        change = revalidate(incoming)
        fields = change.model_fields_set

        def apply(data: Repositories) -> Tenant:
            tenant = require_known(data.tenants.lock(guid))
            if "status" in fields and change.status is TenantStatus.SUSPENDED:
                _refuse_own(tenant, actor)
            changed = tenant.model_copy(update={name: getattr(change, name) for name in fields})
            data.tenants.update(changed)
            shown = change.model_dump(mode="json", exclude_unset=True)
            details = {name: str(value) for name, value in shown.items()}
            _audit(data, AuditAction.TENANT_CHANGED, changed, actor, details)
            return changed

        changed = await self.database.write(apply)
        self.recognized.forget_all()
        return changed

    async def delete_tenant(self, guid: str, *, actor: Actor) -> None:
        """Delete a tenant and everything it owns; after the commit it no longer exists for anyone.

        Pictures and rows are removed after the commit, in small steps that recovery repeats after a crash. Raises
        ``TenantNotFoundException`` and ``OwnTenantException``.
        """

        def begin(data: Repositories) -> Tenant:
            tenant = require_known(data.tenants.lock(guid))
            _refuse_own(tenant, actor)
            # Another tenant can take the name immediately.
            deleting = tenant.model_copy(update={"status": TenantStatus.DELETING, "name": f"{tenant.guid} (deleted)"})
            data.tenants.update(deleting)
            _audit(data, AuditAction.TENANT_DELETED, tenant, actor, {"name": tenant.name})
            return deleting

        tenant = await self.database.write(begin)
        self.recognized.forget_all()
        try:
            await self.tasks.run(self.removal.remove(tenant))
        except (ImageStorageException, DatabaseException):
            logger.exception("removal of tenant %s incomplete; recovery continues it", tenant.guid)

    async def bootstrap(self, *, actor: Actor) -> tuple[Tenant, IssuedApiKey | None]:
        """Return an active tenant and an administrator's key; the tenant is created if missing, and the key too."""

        def create_first(data: Repositories) -> tuple[Tenant, IssuedApiKey | None]:
            active = (tenant for tenant in data.tenants.list_all() if tenant.status is TenantStatus.ACTIVE)
            tenant = next(active, None) or self._insert(data, NewTenant(name=FIRST_TENANT), actor)
            if data.api_keys.active_administrator_exists(at=clock.now()):
                return tenant, None
            order = NewApiKey(name="administrator", scopes=frozenset(Scope))
            return tenant, issue_key(data, order, grantor=command_grantor(tenant, actor))

        return await self.database.write(create_first)

    def _insert(self, data: Repositories, order: NewTenant, actor: Actor) -> Tenant:
        values = order.model_dump()
        tenant = data.tenants.insert(
            Tenant(
                **values | {"default_visibility": order.default_visibility or self.default_visibility},
                id=TenantId(0),
                guid=TenantGuid(str(uuid.uuid4())),
                created_at=clock.now(),
            )
        )
        _audit(data, AuditAction.TENANT_CREATED, tenant, actor, {"name": tenant.name})
        return tenant


def command_grantor(tenant: Tenant, actor: Actor) -> Grantor:
    """Return an operator at the command line, who may grant everything in any tenant."""
    return Grantor(actor=actor, tenant_id=tenant.id, tenant_guid=tenant.guid, scopes=frozenset(Scope))


def require_active(tenant: Tenant | None) -> Tenant:
    """Return the tenant of a credential.

    Raises ``CredentialInvalidException`` if it is deleted, and ``TenantSuspendedException``.
    """
    if tenant is None or tenant.status is TenantStatus.DELETING:
        raise CredentialInvalidException
    if tenant.status is TenantStatus.SUSPENDED:
        raise TenantSuspendedException
    return tenant


def tenant_detail(tenant: Tenant) -> TenantDetail:
    """Return a tenant as shown to operators."""
    return TenantDetail(**tenant.model_dump(include=set(TenantDetail.model_fields)))


def require_known(tenant: Tenant | None) -> Tenant:
    """Return the tenant. Raises ``TenantNotFoundException`` if it is None or deleted."""
    if tenant is None or tenant.status is TenantStatus.DELETING:
        raise TenantNotFoundException
    return tenant


def _refuse_own(tenant: Tenant, actor: Actor) -> None:
    if tenant.guid == actor.tenant_guid:
        raise OwnTenantException


def _audit(data: Repositories, action: AuditAction, tenant: Tenant, actor: Actor, details: dict[str, str]) -> None:
    data.audit_log.append(audit.entry(actor, action, tenant_guid=tenant.guid, target=tenant.guid, details=details))
