"""The ``generations`` table."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.models.generation import Generation, GenerationStatus, NewGeneration, UsageRow
from pixyproxy.core.models.image import GenerationId
from pixyproxy.core.models.tenant import TenantGuid, TenantId
from pixyproxy.data.rows import Parameters, Row, from_timestamp, insert_statement, to_timestamp

COLUMNS = (
    "guid",
    "tenant_id",
    "idempotency_key",
    "fingerprint",
    "status",
    "image_guid",
    "prompt",
    "filename",
    "visibility",
    "model",
    "subject",
    "created_at",
    "updated_at",
)
TIMES = ("created_at", "updated_at", "resolved_at")
SELECT = f"SELECT id, resolved_at, {', '.join(COLUMNS)} FROM generations"


def to_row(generation: NewGeneration) -> Parameters:
    """The columns of a generation, by name."""
    times = {"created_at": to_timestamp(generation.created_at), "updated_at": to_timestamp(generation.updated_at)}
    return generation.model_dump(mode="json", include=set(COLUMNS)) | times


def from_row(row: Row) -> Generation:
    """The generation in a row of ``SELECT``."""
    times = {name: from_timestamp(row[name]) for name in TIMES}
    return Generation.model_validate({**row, **times})


@dataclass(frozen=True)
class Generations:
    """The generations, bound to one connection and its transaction."""

    connection: Connection

    def claim(self, generation: NewGeneration) -> Generation | None:
        """Add a generation, or None where the tenant has used its Idempotency-Key already.

        The unique index decides, so that of any number of claims at once exactly one wins.
        """
        try:
            result = self.connection.execute(text(insert_statement("generations", COLUMNS)), to_row(generation))
        except IntegrityError:
            if generation.idempotency_key is None:
                raise
            return None
        return Generation(**generation.model_dump(), id=GenerationId(result.lastrowid))

    def get_by_idempotency_key(self, idempotency_key: str, *, tenant_id: TenantId) -> Generation | None:
        """The generation that claimed this key of the tenant."""
        return self._one(
            f"{SELECT} WHERE tenant_id = :tenant_id AND idempotency_key = :idempotency_key",
            {"tenant_id": tenant_id, "idempotency_key": idempotency_key},
        )

    def settle(
        self, generation_id: GenerationId, status: GenerationStatus, *, tenant_id: TenantId, at: datetime
    ) -> bool:
        """Give a generation its final status, once; False where it had one. ``failed`` sets its Idempotency-Key free.

        A key is bound only to what was bought, or may have been: after a refusal the same key may try again.
        A picture that turns up after all still makes ``unknown`` into ``stored``.
        """
        statement = """
            UPDATE generations
               SET idempotency_key = CASE WHEN :status = 'failed' THEN NULL ELSE idempotency_key END,
                   status = :status,
                   updated_at = :at
             WHERE id = :id AND tenant_id = :tenant_id
               AND (status = 'calling' OR (status = 'unknown' AND :status = 'stored'))
        """
        parameters = {"id": generation_id, "tenant_id": tenant_id, "status": status, "at": to_timestamp(at)}
        return self.connection.execute(text(statement), parameters).rowcount == 1

    def list_calling(self, *, limit: int) -> list[Generation]:
        """The oldest generations of all tenants that are ``calling``: under way, or left by a crash."""
        statement = text(f"{SELECT} WHERE status = 'calling' ORDER BY created_at, id LIMIT :limit")
        return [from_row(row) for row in self.connection.execute(statement, {"limit": limit}).mappings()]

    def list_of_status(self, status: GenerationStatus, *, limit: int) -> list[tuple[TenantGuid, Generation]]:
        """The newest generations of all tenants in this status that no operator has resolved, with their tenants."""
        columns = ", ".join(f"g.{name}" for name in ("id", "resolved_at", *COLUMNS))
        statement = text(f"""
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

    def find_for_operator(self, guid: str) -> Generation | None:
        """The generation of this GUID, whosever it is: operators resolve those of every tenant."""
        return self._one(f"{SELECT} WHERE guid = :guid", {"guid": guid})

    def resolve(self, generation_id: GenerationId, *, tenant_id: TenantId, bought: bool, at: datetime) -> bool:
        """Note what an operator found out about an unknown generation; False where that is not open (any more)."""
        statement = """
            UPDATE generations
               SET idempotency_key = CASE WHEN :bought = 1 THEN idempotency_key ELSE NULL END,
                   status = CASE WHEN :bought = 1 THEN status ELSE 'failed' END,
                   resolved_at = :at,
                   updated_at = :at
             WHERE id = :id AND tenant_id = :tenant_id AND status = 'unknown' AND resolved_at IS NULL
        """
        parameters = {"id": generation_id, "tenant_id": tenant_id, "bought": int(bought), "at": to_timestamp(at)}
        return self.connection.execute(text(statement), parameters).rowcount == 1

    def usage(self, *, tenant_id: TenantId, since: datetime, until: datetime) -> list[UsageRow]:
        """What the tenant's generations stored from ``since`` to ``until``, by day, model and subject."""
        statement = """
            SELECT DATE(created_at) AS day, model, subject, COUNT(*) AS images
              FROM generations
             WHERE tenant_id = :tenant_id AND status = 'stored' AND created_at >= :since AND created_at <= :until
             GROUP BY DATE(created_at), model, subject
             ORDER BY day, model, subject
        """
        parameters = {"tenant_id": tenant_id, "since": to_timestamp(since), "until": to_timestamp(until)}
        rows = self.connection.execute(text(statement), parameters).mappings()
        return [UsageRow(day=row["day"], model=row["model"], key=row["subject"], images=row["images"]) for row in rows]

    def delete_settled(self, *, tenant_id: TenantId) -> bool:
        """Remove the tenant's generations that are over; True if none is left."""
        parameters = {"tenant_id": tenant_id}
        statement = "DELETE FROM generations WHERE tenant_id = :tenant_id AND status <> 'calling'"
        self.connection.execute(text(statement), parameters)
        left = "SELECT COUNT(*) FROM generations WHERE tenant_id = :tenant_id"
        return not self.connection.execute(text(left), parameters).scalar_one()

    def _one(self, statement: str, parameters: Parameters) -> Generation | None:
        row = self.connection.execute(text(statement), parameters).mappings().one_or_none()
        return None if row is None else from_row(row)
