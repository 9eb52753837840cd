"""Usage reports, and the resolution of generations whose outcome is unknown."""

import contextlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    GenerationNotFoundException,
    GenerationResolvedException,
)
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.budget import MICRO, BudgetDetail, month_of, usd
from pixyproxy.core.models.generation import Generation, GenerationStatus, Resolution, UnresolvedGeneration, UsageRow
from pixyproxy.core.models.principal import Actor
from pixyproxy.core.models.tenant import TenantGuid, TenantId
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.files.retained_answers import RetainedAnswers
from pixyproxy.service.private import audit
from pixyproxy.service.private.generation.settlement import charge, lock_budget, webhook_outcome
from pixyproxy.service.private.retained_answers import remove_decided
from pixyproxy.service.private.webhooks import subscriptions as webhooks
from pixyproxy.service.revalidation import revalidate

AT_ONCE = 500


@dataclass(frozen=True)
class OperationsService:
    """Usage of a tenant, and the resolution of unknown outcomes."""

    database: Database
    answers: RetainedAnswers

    async def usage(self, *, tenant_id: TenantId, since: date | None, until: date | None) -> list[UsageRow]:
        """Return the tenant's usage per day (UTC) from ``since`` to ``until`` inclusive; by default this month."""
        today = clock.now().date()
        first = since or min(today.replace(day=1), until or today)
        last = until or max(today, first)
        begin, end = datetime.combine(first, time.min, UTC), datetime.combine(last, time.max, UTC)
        return await self.database.read(
            lambda data: data.generations.usage(tenant_id=tenant_id, since=begin, until=end)
        )

    async def budget(self, *, tenant_id: TenantId) -> BudgetDetail:
        """Return the tenant's budget of this month (UTC): spent, reserved and left. Raise ``DatabaseException``."""
        month = month_of(clock.now())

        def find(data: Repositories) -> BudgetDetail:
            tenant = data.tenants.get_by_id(tenant_id)
            spending = data.budgets.get(month, tenant_id=tenant_id)
            limit = None if tenant is None or tenant.monthly_budget_usd is None else tenant.monthly_budget_usd
            used = spending.spent_micro_usd + spending.reserved_micro_usd
            return BudgetDetail(
                month=month,
                limit_usd=None if limit is None else float(limit),
                spent_usd=spending.spent_micro_usd / MICRO,
                reserved_usd=spending.reserved_micro_usd / MICRO,
                left_usd=None if limit is None else max(0, int(limit * MICRO) - used) / MICRO,
            )

        return await self.database.read(find)

    async def list_generations(self, status: GenerationStatus, *, limit: int) -> list[UnresolvedGeneration]:
        """Return the newest unresolved generations of all tenants with this status."""
        found = await self.database.read(lambda data: data.generations.list_of_status(status, limit=limit))
        return [_shown(generation, tenant) for tenant, generation in found]

    async def resolve_generations(
        self, incoming: Resolution, *, upstream: str | None, since: datetime | None, actor: Actor
    ) -> int:
        """Resolve all unknown outcomes of an upstream, or of all, since a time; return how many were resolved.

        Each is resolved and audited in its own transaction, so a later failure undoes none of them. Raise
        ``DatabaseException``.
        """
        count = 0
        while guids := await self.database.read(
            lambda data: data.generations.list_unresolved(upstream=upstream, since=since, limit=AT_ONCE)
        ):
            for guid in guids:
                with contextlib.suppress(GenerationNotFoundException, GenerationResolvedException):
                    await self._resolve(guid, incoming, actor)
                    count += 1
        await remove_decided(self.database, self.answers)
        return count

    async def resolve_generation(self, guid: str, incoming: Resolution, *, actor: Actor) -> UnresolvedGeneration:
        """Record an operator's decision on an unknown outcome and remove its retained answer.

        Raise ``GenerationNotFoundException``, or ``GenerationResolvedException`` if the outcome is not unknown.
        """
        resolved = await self._resolve(guid, incoming, actor)
        await remove_decided(self.database, self.answers)
        return resolved

    async def _resolve(self, guid: str, incoming: Resolution, actor: Actor) -> UnresolvedGeneration:
        resolution = revalidate(incoming)

        def resolve(data: Repositories) -> UnresolvedGeneration:
            found = data.generations.find(guid)
            tenant = None if found is None else data.tenants.get_by_id(found.tenant_id)
            if found is None or tenant is None:
                raise GenerationNotFoundException
            lock_budget(data, found)
            if not data.generations.resolve(found.id, tenant_id=tenant.id, bought=resolution.bought, at=clock.now()):
                raise GenerationResolvedException
            reserved = found.reserved_micro_usd or 0
            charge(data, found, released=reserved, spent=reserved if resolution.bought else 0)
            resolved = data.generations.find(guid) or found
            webhooks.enqueue(data, webhook_outcome(resolved, at=clock.now()))
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
            return _shown(resolved, tenant.guid)

        return await self.database.write(resolve)


def _shown(generation: Generation, tenant: TenantGuid) -> UnresolvedGeneration:
    same = {"guid", "status", "upstream", "subject", "created_at", "updated_at", "resolved_at"}
    return UnresolvedGeneration(
        tenant=tenant,
        model=generation.order.model,
        reserved_usd=usd(generation.reserved_micro_usd),
        cost_usd=usd(generation.cost_micro_usd),
        **generation.model_dump(include=same),
    )
