"""The ``generations`` table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.models.budget import usd
from pixyproxy.core.models.generation import (
    Ending,
    Generation,
    GenerationFilter,
    GenerationGuid,
    GenerationStatus,
    NewGeneration,
    ProcessGuid,
    UsageRow,
)
from pixyproxy.core.models.image import GenerationId
from pixyproxy.core.models.order import PictureOrder
from pixyproxy.core.models.tenant import TenantGuid, TenantId
from pixyproxy.data.rows import (
    Parameters,
    Row,
    from_names,
    from_timestamp,
    in_list,
    insert_statement,
    sql,
    to_timestamp,
)

COLUMNS = (
    "guid",
    "tenant_id",
    "idempotency_key",
    "fingerprint",
    "status",
    "image_guids",
    "prompt",
    "model",
    "terms",
    "filename",
    "visibility",
    "subject",
    "budget_month",
    "reserved_micro_usd",
    "lease_owner",
    "lease_until",
    "image_count",
    "created_at",
    "updated_at",
)
LATER_COLUMNS = ("id", "upstream", "cost_micro_usd", "answer", "error", "finished_at", "resolved_at")
TIMES = ("lease_until", "created_at", "updated_at", "finished_at", "resolved_at")
ORDER_COLUMNS = ("prompt", "model", "terms")
"""An order is spread over these; ``terms`` is JSON of all that has no column of its own."""
SELECT = f"SELECT {', '.join(LATER_COLUMNS + COLUMNS)} FROM generations"


def to_row(generation: NewGeneration) -> Parameters:
    """The columns of a new generation, by name."""
    return generation.model_dump(mode="json", include=set(COLUMNS)) | {
        "image_guids": " ".join(generation.image_guids),
        "prompt": generation.order.prompt,
        "model": generation.order.model,
        "terms": terms_of(generation.order),
        "image_count": generation.order.count,
        "lease_until": to_timestamp(generation.lease_until),
        "created_at": to_timestamp(generation.created_at),
        "updated_at": to_timestamp(generation.updated_at),
    }


def terms_of(order: PictureOrder) -> str:
    """Return what of an order has no column of its own, as JSON."""
    return order.model_dump_json(exclude={"prompt", "model"}, exclude_defaults=True)


def from_row(row: Row) -> Generation:
    """The generation in a row of ``SELECT``. Those of the first releases have no terms."""
    values = {name: value for name, value in row.items() if name not in ORDER_COLUMNS}
    times = {name: from_timestamp(row[name]) for name in TIMES}
    order = {"prompt": row["prompt"], "model": row["model"], **json.loads(row["terms"] or "{}")}
    parsed = {name: None if row[name] is None else json.loads(row[name]) for name in ("answer", "error")}
    guids = from_names(row["image_guids"])
    return Generation.model_validate({**values, **times, **parsed, "order": order, "image_guids": guids})


@dataclass(frozen=True)
class Generations:
    """The generations, bound to one connection and its transaction."""

    connection: Connection

    def claim(self, generation: NewGeneration) -> Generation | None:
        """Add a generation, or None where the tenant has used its Idempotency-Key already.

        The unique index decides, so that of any number of claims at once exactly one wins.
        """
        try:
            result = self.connection.execute(sql(insert_statement("generations", COLUMNS)), to_row(generation))
        except IntegrityError:
            if generation.idempotency_key is None:
                raise
            return None
        values = {name: getattr(generation, name) for name in NewGeneration.model_fields}
        return Generation(**values, id=GenerationId(result.lastrowid), image_count=generation.order.count)

    def get(self, generation_id: GenerationId, *, tenant_id: TenantId) -> Generation | None:
        """The tenant's generation of this internal id."""
        parameters: Parameters = {"id": generation_id, "tenant_id": tenant_id}
        return self._one(f"{SELECT} WHERE id = :id AND tenant_id = :tenant_id", parameters)

    def get_by_guid(self, guid: str, *, tenant_id: TenantId) -> Generation | None:
        """The tenant's generation of this GUID."""
        return self._one(
            f"{SELECT} WHERE guid = :guid AND tenant_id = :tenant_id", {"guid": guid, "tenant_id": tenant_id}
        )

    def get_by_idempotency_key(self, idempotency_key: str, *, tenant_id: TenantId) -> Generation | None:
        """The generation that claimed this key of the tenant."""
        return self._one(
            f"{SELECT} WHERE tenant_id = :tenant_id AND idempotency_key = :idempotency_key",
            {"tenant_id": tenant_id, "idempotency_key": idempotency_key},
        )

    def list_own(
        self, wanted: GenerationFilter, *, tenant_id: TenantId, before: GenerationId | None, limit: int
    ) -> list[Generation]:
        """At most ``limit`` generations of the tenant, newest first; ``before`` is the last one of the page before."""
        parameters: Parameters = {"tenant_id": tenant_id, "limit": limit, "status": wanted.status, "before": before}
        conditions = ["tenant_id = :tenant_id"]
        if wanted.status is not None:
            conditions.append("status = :status")
        if before is not None:
            conditions.append("id < :before")
        statement = sql(f"{SELECT} WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT :limit")
        return [from_row(row) for row in self.connection.execute(statement, parameters).mappings()]

    def begin_call(
        self, generation_id: GenerationId, owner: ProcessGuid, *, tenant_id: TenantId, until: datetime, at: datetime
    ) -> bool:
        """Make an accepted generation of this process ``calling``; False where it is not, or another's, by now."""
        statement = """
            UPDATE generations SET status = 'calling', lease_until = :until, updated_at = :at
             WHERE id = :id AND tenant_id = :tenant_id AND status = 'accepted' AND lease_owner = :owner
        """
        parameters = {"id": generation_id, "tenant_id": tenant_id, "owner": owner}
        moments = {"until": to_timestamp(until), "at": to_timestamp(at)}
        return self.connection.execute(sql(statement), parameters | moments).rowcount == 1

    def take_over(
        self, generation_id: GenerationId, owner: ProcessGuid, *, tenant_id: TenantId, until: datetime, at: datetime
    ) -> bool:
        """Make an accepted generation whose process is dead this process's own; False where another was faster."""
        statement = """
            UPDATE generations SET lease_owner = :owner, lease_until = :until
             WHERE id = :id AND tenant_id = :tenant_id AND status = 'accepted'
               AND (lease_until IS NULL OR lease_until < :at)
        """
        parameters = {"id": generation_id, "tenant_id": tenant_id, "owner": owner}
        moments = {"until": to_timestamp(until), "at": to_timestamp(at)}
        return self.connection.execute(sql(statement), parameters | moments).rowcount == 1

    def renew_leases(self, owner: ProcessGuid, guids: Sequence[GenerationGuid], *, until: datetime) -> None:
        """Say that a process lives and works on these generations, a few hundred at most."""
        names, parameters = in_list(guids)
        statement = f"""
            UPDATE generations SET lease_until = :until
             WHERE status IN ('accepted', 'calling') AND lease_owner = :owner AND guid IN {names}
        """
        self.connection.execute(sql(statement), parameters | {"owner": owner, "until": to_timestamp(until)})

    def release_leases(self, owner: ProcessGuid) -> None:
        """Say that a process is dead, on all that it worked on."""
        statement = """
            UPDATE generations SET lease_until = NULL
             WHERE status IN ('accepted', 'calling') AND lease_owner = :owner
        """
        self.connection.execute(sql(statement), {"owner": owner})

    def list_abandoned(self, *, at: datetime, limit: int) -> list[Generation]:
        """The oldest generations of all tenants that are not over and whose process is dead."""
        statement = sql(f"""
            {SELECT} WHERE status IN ('accepted', 'calling') AND (lease_until IS NULL OR lease_until < :at)
             ORDER BY created_at, id LIMIT :limit
        """)
        parameters = {"at": to_timestamp(at), "limit": limit}
        return [from_row(row) for row in self.connection.execute(statement, parameters).mappings()]

    def settle(
        self, generation_id: GenerationId, ending: Ending, *, tenant_id: TenantId, owner: ProcessGuid | None = None
    ) -> bool:
        """End a generation, once; False where it had ended. An unknown one that nobody resolved may still end.

        ``owner``: only while it is this process's.
        """
        status = "status IN ('accepted', 'calling') OR (status = 'unknown' AND :status <> 'unknown')"
        where = f"({status}) AND resolved_at IS NULL AND (:owner IS NULL OR lease_owner = :owner)"
        return self._end(generation_id, ending, tenant_id, where, owner=owner)

    def settle_resolved(self, generation_id: GenerationId, ending: Ending, *, tenant_id: TenantId) -> bool:
        """Store the pictures of a generation that turned up after an operator had resolved it."""
        return self._end(
            generation_id, ending, tenant_id, "status IN ('unknown', 'failed') AND resolved_at IS NOT NULL"
        )

    def list_of_status(self, status: GenerationStatus, *, limit: int) -> list[tuple[TenantGuid, Generation]]:
        """The newest generations of all tenants in this status that no operator has resolved, with their tenants."""
        columns = ", ".join(f"g.{name}" for name in LATER_COLUMNS + COLUMNS)
        statement = sql(f"""
            SELECT t.guid AS tenant_guid, {columns}
              FROM generations g JOIN tenants t ON t.id = g.tenant_id
             WHERE g.status = :status AND g.resolved_at IS NULL
             ORDER BY g.id DESC LIMIT :limit
        """)
        found = []
        for row in self.connection.execute(statement, {"status": status, "limit": limit}).mappings():
            values = dict(row)
            found.append((TenantGuid(values.pop("tenant_guid")), from_row(values)))
        return found

    def find(self, guid: str) -> Generation | None:
        """The generation of this GUID, whosever it is: for operators, and for what was found in the spool."""
        return self._one(f"{SELECT} WHERE guid = :guid", {"guid": guid})

    def find_all(self, guids: Sequence[GenerationGuid]) -> list[Generation]:
        """Those of these generations that there are, whosever they are; a few hundred at most."""
        names, parameters = in_list(guids)
        statement = sql(f"{SELECT} WHERE guid IN {names}")
        return [from_row(row) for row in self.connection.execute(statement, parameters).mappings()]

    def find_undecided(self, guids: Sequence[GenerationGuid]) -> set[GenerationGuid]:
        """Return those of these generations, a few hundred at most, whose answer an operator may still need.

        They are not over, or unknown and not resolved, or stored and not erased.
        """
        names, parameters = in_list(guids)
        statement = f"""
            SELECT guid FROM generations g
             WHERE guid IN {names}
               AND (status IN ('accepted', 'calling') OR (status = 'unknown' AND resolved_at IS NULL)
                    OR (status = 'stored' AND EXISTS (SELECT 1 FROM images i WHERE i.generation_id = g.id)))
        """
        return {GenerationGuid(guid) for guid in self.connection.execute(sql(statement), parameters).scalars()}

    def list_unresolved(self, *, upstream: str | None, since: datetime | None, limit: int) -> list[GenerationGuid]:
        """Return the oldest unknown generations of all tenants that no operator has resolved.

        ``upstream``: only those that it was asked for; ``since``: only those made at this time or later.
        """
        statement = """
            SELECT guid FROM generations
             WHERE status = 'unknown' AND resolved_at IS NULL
               AND (:upstream IS NULL OR upstream COLLATE utf8mb4_bin = :upstream)
               AND (:since IS NULL OR created_at >= :since)
             ORDER BY id LIMIT :limit
        """
        parameters = {"upstream": upstream, "since": to_timestamp(since), "limit": limit}
        return [GenerationGuid(guid) for guid in self.connection.execute(sql(statement), parameters).scalars()]

    def resolve(self, generation_id: GenerationId, *, tenant_id: TenantId, bought: bool, at: datetime) -> bool:
        """Note what an operator found out about an unknown generation; False where that is not open (any more).

        What was bought costs what was reserved, since nobody knows better.
        """
        statement = """
            UPDATE generations
               SET idempotency_key = CASE WHEN :bought = 1 THEN idempotency_key ELSE NULL END,
                   status = CASE WHEN :bought = 1 THEN status ELSE 'failed' END,
                   cost_micro_usd = CASE WHEN :bought = 1 THEN reserved_micro_usd ELSE 0 END,
                   resolved_at = :at,
                   updated_at = :at
             WHERE id = :id AND tenant_id = :tenant_id AND status = 'unknown' AND resolved_at IS NULL
        """
        parameters = {"id": generation_id, "tenant_id": tenant_id, "bought": int(bought), "at": to_timestamp(at)}
        return self.connection.execute(sql(statement), parameters).rowcount == 1

    def lock(self, generation_id: GenerationId, *, tenant_id: TenantId) -> Generation:
        """Return the tenant's generation, which nobody else can change before this transaction ends.

        It exists: images refer to it by a foreign key.
        """
        parameters: Parameters = {"id": generation_id, "tenant_id": tenant_id}
        statement = "UPDATE generations SET guid = guid WHERE id = :id AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), parameters)
        where = "WHERE id = :id AND tenant_id = :tenant_id"
        return from_row(self.connection.execute(sql(f"{SELECT} {where}"), parameters).mappings().one())

    def erase_order(self, generation: Generation, *, tenant_id: TenantId, at: datetime) -> bool:
        """Erase what the tenant's generation was asked for and answered; False while an image of it is left.

        What it cost, and the digest by which a repeated request is recognized, stay.
        """
        statement = """
            UPDATE generations SET prompt = '', terms = :terms, filename = NULL, answer = NULL, updated_at = :at
             WHERE id = :id AND tenant_id = :tenant_id
               AND NOT EXISTS (SELECT 1 FROM images WHERE generation_id = :id)
        """
        kept = generation.order.model_copy(update={"options": {}, "inputs": ()})
        parameters = {"id": generation.id, "tenant_id": tenant_id, "terms": terms_of(kept), "at": to_timestamp(at)}
        return self.connection.execute(sql(statement), parameters).rowcount == 1

    def usage(self, *, tenant_id: TenantId, since: datetime, until: datetime) -> list[UsageRow]:
        """Return what the tenant's generations stored and cost from ``since`` to ``until``, by day, model and subject.

        Grouped by ``HEX``, because MySQL takes names that differ in case, accents or spaces at the end for one.
        """
        statement = """
            SELECT DATE(created_at) AS day, MIN(model) AS model, MIN(subject) AS subject, SUM(cost_micro_usd) AS cost,
                   SUM(CASE WHEN status = 'stored' THEN image_count ELSE 0 END) AS images
              FROM generations
             WHERE tenant_id = :tenant_id AND (status = 'stored' OR cost_micro_usd > 0)
               AND created_at >= :since AND created_at <= :until
             GROUP BY DATE(created_at), HEX(model), HEX(subject)
             ORDER BY day, HEX(model), HEX(subject)
        """
        parameters = {"tenant_id": tenant_id, "since": to_timestamp(since), "until": to_timestamp(until)}
        return [
            UsageRow(
                day=row["day"],
                model=row["model"],
                key=row["subject"],
                images=int(row["images"]),
                cost_usd=usd(None if row["cost"] is None else int(row["cost"])),
            )
            for row in self.connection.execute(sql(statement), parameters).mappings()
        ]

    def delete_settled(self, *, tenant_id: TenantId) -> bool:
        """Remove the tenant's generations that are over; True if none is left."""
        parameters = {"tenant_id": tenant_id}
        statement = "DELETE FROM generations WHERE tenant_id = :tenant_id AND status NOT IN ('accepted', 'calling')"
        self.connection.execute(sql(statement), parameters)
        left = "SELECT COUNT(*) FROM generations WHERE tenant_id = :tenant_id"
        return not self.connection.execute(sql(left), parameters).scalar_one()

    def _end(
        self,
        generation_id: GenerationId,
        ending: Ending,
        tenant_id: TenantId,
        where: str,
        *,
        owner: ProcessGuid | None = None,
    ) -> bool:
        statement = f"""
            UPDATE generations
               SET idempotency_key = CASE WHEN :frees_key = 1 THEN NULL ELSE idempotency_key END,
                   status = :status,
                   cost_micro_usd = :cost_micro_usd,
                   image_count = :image_count,
                   upstream = :upstream,
                   answer = :answer,
                   error = :error,
                   finished_at = :at,
                   updated_at = :at
             WHERE id = :id AND tenant_id = :tenant_id AND {where}
        """
        parameters = {
            "id": generation_id,
            "tenant_id": tenant_id,
            "status": ending.status,
            "cost_micro_usd": ending.cost_micro_usd,
            "image_count": ending.image_count,
            "upstream": ending.upstream,
            "answer": None if ending.answer is None else ending.answer.model_dump_json(exclude_defaults=True),
            "error": None if ending.error is None else ending.error.model_dump_json(),
            "frees_key": int(ending.frees_key),
            "owner": owner,
            "at": to_timestamp(ending.at),
        }
        return self.connection.execute(sql(statement), parameters).rowcount == 1

    def _one(self, statement: str, parameters: Parameters) -> Generation | None:
        row = self.connection.execute(sql(statement), parameters).mappings().one_or_none()
        return None if row is None else from_row(row)
