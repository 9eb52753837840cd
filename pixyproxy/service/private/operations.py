"""What operators and tenants look up about generations: usage, and outcomes that nobody knows yet."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    GenerationNotFoundException,
    GenerationResolvedException,
)
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.generation import Generation, GenerationStatus, Resolution, UnresolvedGeneration, UsageRow
from pixyproxy.core.models.principal import Actor
from pixyproxy.core.models.tenant import TenantGuid, TenantId
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.private import audit
from pixyproxy.service.revalidation import revalidate


@dataclass(frozen=True)
class OperationsService:
    """Usage of a tenant, and the resolution of unknown outcomes."""

    database: Database

    async def usage(self, *, tenant_id: TenantId, since: date | None, until: date | None) -> list[UsageRow]:
        """What the tenant made on each day (UTC) from ``since`` to ``until``, both included; this month by default."""
        today = clock.now().date()
        first = since or min(today.replace(day=1), until or today)
        last = until or max(today, first)
        begin, end = datetime.combine(first, time.min, UTC), datetime.combine(last, time.max, UTC)
        return await self.database.read(
            lambda data: data.generations.usage(tenant_id=tenant_id, since=begin, until=end)
        )

    async def list_generations(self, status: GenerationStatus, *, limit: int) -> list[UnresolvedGeneration]:
        """The newest generations of all tenants in this status that nobody has resolved."""
        found = await self.database.read(lambda data: data.generations.list_of_status(status, limit=limit))
        return [_shown(generation, tenant) for tenant, generation in found]

    async def resolve_generation(self, guid: str, incoming: Resolution, *, actor: Actor) -> UnresolvedGeneration:
        """Write down what an operator found out about an unknown outcome.

        Raises ``GenerationNotFoundException``, and ``GenerationResolvedException`` where nothing is unknown.
        """
        resolution = revalidate(incoming)

        def resolve(data: Repositories) -> UnresolvedGeneration:
            found = data.generations.find_for_operator(guid)
            tenant = None if found is None else data.tenants.get_by_id(found.tenant_id)
            if found is None or tenant is None:
                raise GenerationNotFoundException
            if not data.generations.resolve(found.id, tenant_id=tenant.id, bought=resolution.bought, at=clock.now()):
                raise GenerationResolvedException
            details = {"bought": str(resolution.bought).lower()}
            data.audit_log.append(
                audit.entry(
                    actor,
                    AuditAction.GENERATION_RESOLVED,
                    tenant_guid=tenant.guid,
                    target=found.guid,
                    details=details,
                )
            )
            return _shown(data.generations.find_for_operator(guid) or found, tenant.guid)

        return await self.database.write(resolve)


def _shown(generation: Generation, tenant: TenantGuid) -> UnresolvedGeneration:
    return UnresolvedGeneration(
        tenant=tenant, **generation.model_dump(include=set(UnresolvedGeneration.model_fields) - {"tenant"})
    )
