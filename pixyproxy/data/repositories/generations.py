"""The ``generations`` table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.models.budget import usd
from pixyproxy.core.models.generation import (
    Generation,
    GenerationChange,
    GenerationFilter,
    GenerationGuid,
    GenerationStatus,
    NewGeneration,
    Outcome,
    ProcessGuid,
    UsageRow,
)
from pixyproxy.core.models.image import GenerationId
from pixyproxy.core.models.order import PictureOrder
from pixyproxy.core.models.principal import Subject
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
    "upstream_id",
    "upstream",
    "started_at",
    "place_until",
    "content",
    "follower",
    "image_count",
    "created_at",
    "updated_at",
)
LATER_COLUMNS = (
    "id",
    "excluded",
    "version",
    "lost_at",
    "adopted_at",
    "cost_micro_usd",
    "answer",
    "error",
    "finished_at",
    "resolved_at",
)
MOST_REPEATABLE = 50
TIMES = ("lease_until", "created_at", "updated_at", "finished_at", "resolved_at")
ORDER_COLUMNS = ("prompt", "model", "terms")
"""Return the columns of an order; ``terms`` is JSON of everything without its own column."""
SELECT = f"SELECT {', '.join(LATER_COLUMNS + COLUMNS)} FROM generations"


def to_row(generation: NewGeneration) -> Parameters:
    """Return the columns of a new generation, by name."""
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
    """Return the parts of an order without their own column, as JSON."""
    return order.model_dump_json(exclude={"prompt", "model"}, exclude_defaults=True)


def from_row(row: Row) -> Generation:
    """Return the generation in a row of ``SELECT``. Rows of the first releases have no terms."""
    values = {name: value for name, value in row.items() if name not in ORDER_COLUMNS}
    times = {name: from_timestamp(row[name]) for name in TIMES}
    order = {"prompt": row["prompt"], "model": row["model"], **json.loads(row["terms"] or "{}")}
    parsed = {name: None if row[name] is None else json.loads(row[name]) for name in ("answer", "error")}
    guids = from_names(row["image_guids"])
    excluded = row["excluded"].split()
    return Generation.model_validate(
        {**values, **times, **parsed, "order": order, "image_guids": guids, "excluded": excluded}
    )


@dataclass(frozen=True)
class Generations:
    """The ``generations`` repository, bound to one connection and its transaction."""

    connection: Connection

    def claim(self, generation: NewGeneration) -> Generation | None:
        """Add a generation; return None if the tenant has already used its Idempotency-Key.

        The unique index decides, so that exactly one of several concurrent claims succeeds.
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
        """Return the tenant's generation with this internal id."""
        parameters: Parameters = {"id": generation_id, "tenant_id": tenant_id}
        return self._one(f"{SELECT} WHERE id = :id AND tenant_id = :tenant_id", parameters)

    def get_by_guid(self, guid: str, *, tenant_id: TenantId) -> Generation | None:
        """Return the tenant's generation with this GUID."""
        return self._one(
            f"{SELECT} WHERE guid = :guid AND tenant_id = :tenant_id", {"guid": guid, "tenant_id": tenant_id}
        )

    def get_by_idempotency_key(self, idempotency_key: str, *, tenant_id: TenantId) -> Generation | None:
        """Return the tenant's generation that claimed this key."""
        return self._one(
            f"{SELECT} WHERE tenant_id = :tenant_id AND idempotency_key = :idempotency_key",
            {"tenant_id": tenant_id, "idempotency_key": idempotency_key},
        )

    def list_repeatable(
        self, content: str, *, tenant_id: TenantId, since: datetime, lost_since: float, ended_since: datetime
    ) -> list[Generation]:
        """Return the tenant's generations of this content that a retry may adopt: lost ones first, then the oldest.

        They were created at ``since`` or later, and are open or unknown, were lost at ``lost_since`` or later, or
        finished at ``ended_since`` or later.
        """
        statement = f"""
            {SELECT} WHERE content = :content AND tenant_id = :tenant_id AND created_at >= :since
               AND status <> 'cancelled'
               AND (status IN ('accepted', 'calling', 'unknown')
                    OR lost_at >= :lost_since OR finished_at >= :ended_since)
             ORDER BY CASE WHEN lost_at IS NULL THEN 1 ELSE 0 END, id LIMIT {MOST_REPEATABLE}
        """
        parameters: Parameters = {
            "content": content,
            "tenant_id": tenant_id,
            "since": to_timestamp(since),
            "lost_since": lost_since,
            "ended_since": to_timestamp(ended_since),
        }
        return [from_row(row) for row in self.connection.execute(sql(statement), parameters).mappings()]

    def adopt(self, generation: Generation, follower: str, *, tenant_id: TenantId, at: float) -> bool:
        """Make another request the follower of a generation; return False if a third one already is."""
        statement = """
            UPDATE generations SET follower = :follower, lost_at = NULL, adopted_at = :at
             WHERE id = :id AND tenant_id = :tenant_id AND follower = :former
        """
        parameters: Parameters = {
            "id": generation.id,
            "tenant_id": tenant_id,
            "follower": follower,
            "former": generation.follower,
            "at": at,
        }
        return self.connection.execute(sql(statement), parameters).rowcount == 1

    def note_lost(self, guid: GenerationGuid, follower: str, *, tenant_id: TenantId, at: float) -> None:
        """Record that the client of a generation's follower disconnected without a response."""
        statement = """
            UPDATE generations SET lost_at = :at
             WHERE guid = :guid AND tenant_id = :tenant_id AND follower = :follower AND lost_at IS NULL
        """
        parameters: Parameters = {"guid": guid, "tenant_id": tenant_id, "follower": follower, "at": at}
        self.connection.execute(sql(statement), parameters)

    def list_own(
        self, wanted: GenerationFilter, *, tenant_id: TenantId, before: GenerationId | None, limit: int
    ) -> list[Generation]:
        """Return at most ``limit`` generations of the tenant, newest first, older than ``before``."""
        parameters: Parameters = {"tenant_id": tenant_id, "limit": limit, "status": wanted.status, "before": before}
        conditions = ["tenant_id = :tenant_id"]
        if wanted.status is not None:
            conditions.append("status = :status")
        if before is not None:
            conditions.append("id < :before")
        statement = sql(f"{SELECT} WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT :limit")
        return [from_row(row) for row in self.connection.execute(statement, parameters).mappings()]

    def renew_leases(self, owner: ProcessGuid, guids: Sequence[GenerationGuid], *, until: datetime) -> None:
        """Renew the leases of a process on these generations, a few hundred at most."""
        names, parameters = in_list(guids)
        statement = f"""
            UPDATE generations SET lease_until = :until
             WHERE status = 'calling' AND lease_owner = :owner AND guid IN {names}
        """
        self.connection.execute(sql(statement), parameters | {"owner": owner, "until": to_timestamp(until)})

    def release_leases(self, owner: ProcessGuid) -> None:
        """Release all leases of a dead process."""
        statement = """
            UPDATE generations SET lease_until = NULL WHERE status = 'calling' AND lease_owner = :owner
        """
        self.connection.execute(sql(statement), {"owner": owner})

    def list_abandoned(self, *, at: datetime | None, limit: int) -> list[Generation]:
        """Return the oldest generations of all tenants that were at an upstream and whose process is dead.

        Their leases were released or, with ``at``, expired before then.
        """
        statement = sql(f"""
            {SELECT} WHERE status = 'calling' AND (lease_until IS NULL OR lease_until < :at)
             ORDER BY created_at, id LIMIT :limit
        """)
        parameters = {"at": to_timestamp(at), "limit": limit}
        return [from_row(row) for row in self.connection.execute(statement, parameters).mappings()]

    def settle(self, generation_id: GenerationId, outcome: Outcome, *, tenant_id: TenantId) -> bool:
        """Set the outcome of a generation once; return False if it has one.

        An unresolved unknown one may still be settled.
        """
        status = "status IN ('accepted', 'calling') OR (status = 'unknown' AND :status <> 'unknown')"
        return self._end(generation_id, outcome, tenant_id, f"({status}) AND resolved_at IS NULL")

    def end_waiting(self, generation_id: GenerationId, outcome: Outcome, *, tenant_id: TenantId) -> bool:
        """Set the outcome of a waiting generation; return False if it does not wait."""
        return self._end(generation_id, outcome, tenant_id, "status = 'accepted'")

    def settle_resolved(self, generation_id: GenerationId, outcome: Outcome, *, tenant_id: TenantId) -> bool:
        """Store the pictures of a generation that were found after an operator had resolved it."""
        return self._end(
            generation_id, outcome, tenant_id, "status IN ('unknown', 'failed') AND resolved_at IS NOT NULL"
        )

    def list_of_status(self, status: GenerationStatus, *, limit: int) -> list[tuple[TenantGuid, Generation]]:
        """Return the newest unresolved generations of all tenants with this status, with their tenants."""
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
        """Return the generation with this GUID, of any tenant: for operators, and for spool entries."""
        return self._one(f"{SELECT} WHERE guid = :guid", {"guid": guid})

    def find_all(self, guids: Sequence[GenerationGuid]) -> list[Generation]:
        """Return the existing ones of these generations, of any tenant; a few hundred at most."""
        names, parameters = in_list(guids)
        statement = sql(f"{SELECT} WHERE guid IN {names}")
        return [from_row(row) for row in self.connection.execute(statement, parameters).mappings()]

    def list_changes(self, guids: Sequence[GenerationGuid]) -> list[GenerationChange]:
        """Return the states of these generations, a few hundred at most."""
        names, parameters = in_list(guids)
        return self._changes(f"guid IN {names}", parameters)

    def list_open(self, *, tenant_id: TenantId) -> list[GenerationChange]:
        """Return the states of the tenant's unfinished generations."""
        return self._changes("status IN ('accepted', 'calling') AND tenant_id = :tenant_id", {"tenant_id": tenant_id})

    def list_ended(
        self, *, tenant_id: TenantId, created_since: datetime, finished_since: datetime, limit: int
    ) -> list[GenerationChange]:
        """Return the states of the tenant's newest generations created and finished since these times."""
        parameters: Parameters = {
            "tenant_id": tenant_id,
            "created": to_timestamp(created_since),
            "finished": to_timestamp(finished_since),
            "limit": limit,
        }
        where = """
            tenant_id = :tenant_id AND created_at >= :created AND finished_at >= :finished
                AND status NOT IN ('accepted', 'calling')
              ORDER BY created_at DESC, id DESC LIMIT :limit
        """
        return self._changes(where, parameters)

    def note_preview(self, generation_id: GenerationId, *, tenant_id: TenantId) -> None:
        """Notify followers of a generation that it has a new preview."""
        statement = "UPDATE generations SET version = version + 1 WHERE id = :id AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"id": generation_id, "tenant_id": tenant_id})

    def images_since(
        self, moment: datetime, *, tenant_id: TenantId, subject: Subject | None
    ) -> tuple[int, datetime | None]:
        """Return how many pictures the tenant ordered since this time, and when the first order was.

        ``subject``: only orders of this subject. Each picture has a GUID of 36 characters from the start.
        """
        statement = """
            SELECT SUM((LENGTH(image_guids) + 1) / 37) AS images, MIN(created_at) AS first FROM generations
             WHERE tenant_id = :tenant_id AND created_at >= :since AND (:subject IS NULL OR subject = :subject)
        """
        parameters: Parameters = {"tenant_id": tenant_id, "since": to_timestamp(moment), "subject": subject}
        row = self.connection.execute(sql(statement), parameters).one()
        return int(row[0] or 0), from_timestamp(row[1])

    def find_undecided(self, guids: Sequence[GenerationGuid]) -> set[GenerationGuid]:
        """Return which of these generations, a few hundred at most, may still need their answer for an operator.

        They are unfinished, unknown and unresolved, or stored and not erased.
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
        """Return the oldest unresolved unknown generations of all tenants.

        ``upstream``: only those sent to it; ``since``: only those created at this time or later.
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
        """Resolve an unknown generation; return False if it is not unknown and unresolved.

        If it was bought, the reserved amount is charged, since the actual cost is not known.
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
        """Return the tenant's generation, locked until this transaction ends.

        It exists: images refer to it by a foreign key.
        """
        parameters: Parameters = {"id": generation_id, "tenant_id": tenant_id}
        statement = "UPDATE generations SET guid = guid WHERE id = :id AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), parameters)
        where = "WHERE id = :id AND tenant_id = :tenant_id"
        return from_row(self.connection.execute(sql(f"{SELECT} {where}"), parameters).mappings().one())

    def erase_order(self, generation: Generation, *, tenant_id: TenantId, at: datetime) -> bool:
        """Erase the order and answer of the tenant's generation; return False while it has images.

        Its cost and the digest that identifies retries are retained.
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
        """Return the pictures and cost of the tenant from ``since`` to ``until``, by day, model and subject.

        Grouped by ``HEX``, because MySQL treats names that differ in case, accents or trailing spaces as equal.
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
        """Remove the tenant's finished generations; return True if none is left."""
        parameters = {"tenant_id": tenant_id}
        statement = "DELETE FROM generations WHERE tenant_id = :tenant_id AND status NOT IN ('accepted', 'calling')"
        self.connection.execute(sql(statement), parameters)
        left = "SELECT COUNT(*) FROM generations WHERE tenant_id = :tenant_id"
        return not self.connection.execute(sql(left), parameters).scalar_one()

    def _end(self, generation_id: GenerationId, outcome: Outcome, tenant_id: TenantId, where: str) -> bool:
        statement = f"""
            UPDATE generations
               SET idempotency_key = CASE WHEN :frees_key = 1 THEN NULL ELSE idempotency_key END,
                   status = :status,
                   cost_micro_usd = :cost_micro_usd,
                   image_count = :image_count,
                   upstream = COALESCE(:upstream, upstream),
                   place_until = CASE WHEN :keeps_place = 1 THEN place_until ELSE NULL END,
                   adopted_at = NULL,
                   version = version + 1,
                   answer = :answer,
                   error = :error,
                   finished_at = :at,
                   updated_at = :at
             WHERE id = :id AND tenant_id = :tenant_id AND {where}
        """
        parameters = {
            "id": generation_id,
            "tenant_id": tenant_id,
            "status": outcome.status,
            "cost_micro_usd": outcome.cost_micro_usd,
            "image_count": outcome.image_count,
            "upstream": outcome.upstream,
            "answer": None if outcome.answer is None else outcome.answer.model_dump_json(exclude_defaults=True),
            "error": None if outcome.error is None else outcome.error.model_dump_json(),
            "frees_key": int(outcome.frees_key),
            "keeps_place": int(outcome.keeps_place),
            "at": to_timestamp(outcome.at),
        }
        return self.connection.execute(sql(statement), parameters).rowcount == 1

    def _changes(self, where: str, parameters: Parameters) -> list[GenerationChange]:
        statement = f"SELECT guid, id, tenant_id, status, version FROM generations WHERE {where}"
        rows = self.connection.execute(sql(statement), parameters).mappings()
        return [GenerationChange.model_validate(dict(row)) for row in rows]

    def _one(self, statement: str, parameters: Parameters) -> Generation | None:
        row = self.connection.execute(sql(statement), parameters).mappings().one_or_none()
        return None if row is None else from_row(row)
