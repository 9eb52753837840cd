"""The ``images`` table."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from pixyproxy.core.models.image import (
    GenerationId,
    ImageChange,
    ImageFilter,
    ImageGuid,
    ImageId,
    NewImage,
    StoredImage,
)
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.rows import Parameters, Row, from_timestamp, in_list, insert_statement, sql, to_timestamp

COLUMNS = (
    "guid",
    "tenant_id",
    "generation_id",
    "filename",
    "prompt",
    "visibility",
    "media_type",
    "byte_size",
    "sha256",
    "width",
    "height",
    "model",
    "created_at",
    "updated_at",
)
SELECT = f"SELECT id, {', '.join(COLUMNS)} FROM images"
VISIBLE = """(
    tenant_id = :tenant_id
    OR (visibility = 'public' AND tenant_id NOT IN (SELECT id FROM tenants WHERE status <> 'active'))
)"""
"""What a viewer sees: the tenant's own with a credential, and public ones of active tenants. NULL equals nothing."""


def to_row(image: NewImage) -> Parameters:
    """The columns of an image, by name."""
    times = {"created_at": to_timestamp(image.created_at), "updated_at": to_timestamp(image.updated_at)}
    return image.model_dump(mode="json", include=set(COLUMNS)) | times


def from_row(row: Row) -> StoredImage:
    """The image in a row of ``SELECT``."""
    times = {"created_at": from_timestamp(row["created_at"]), "updated_at": from_timestamp(row["updated_at"])}
    return StoredImage.model_validate({**row, **times})


@dataclass(frozen=True)
class Images:
    """The images, bound to one connection and its transaction."""

    connection: Connection

    def record(self, image: NewImage) -> StoredImage:
        """Add an image, or return the one of this GUID that was added before.

        The unique index decides. Nothing is read first: MySQL's snapshot of a transaction begins with its
        first SELECT, and one begun before another transaction's commit would not show the row.
        """
        try:
            result = self.connection.execute(sql(insert_statement("images", COLUMNS)), to_row(image))
        except IntegrityError:
            recorded = self.get_own(image.guid, tenant_id=image.tenant_id)
            if recorded is None:
                raise
            return recorded
        return StoredImage(**image.model_dump(), id=ImageId(result.lastrowid))

    def get_visible(self, guid: ImageGuid, *, tenant_id: TenantId | None) -> StoredImage | None:
        """The image if it is public or the tenant's own; None tells neither absence nor privacy apart."""
        return self._one(f"{SELECT} WHERE guid = :guid AND {VISIBLE}", {"guid": guid, "tenant_id": tenant_id})

    def get_own(self, guid: ImageGuid, *, tenant_id: TenantId) -> StoredImage | None:
        """The image if it is the tenant's own."""
        return self._one(
            f"{SELECT} WHERE guid = :guid AND tenant_id = :tenant_id", {"guid": guid, "tenant_id": tenant_id}
        )

    def list_of_generations(self, generations: Sequence[GenerationId], *, tenant_id: TenantId) -> list[StoredImage]:
        """The images that generations of the tenant made, oldest first, but for those that were deleted."""
        if not generations:
            return []
        names, parameters = in_list(generations)
        statement = f"{SELECT} WHERE generation_id IN {names} AND tenant_id = :tenant_id ORDER BY id"
        rows = self.connection.execute(sql(statement), parameters | {"tenant_id": tenant_id}).mappings()
        return [from_row(row) for row in rows]

    def list_visible(
        self, wanted: ImageFilter, *, tenant_id: TenantId | None, before: ImageId | None, limit: int
    ) -> list[StoredImage]:
        """At most ``limit`` images that the viewer may see and the filter matches, newest first.

        ``before`` is the id of the last image of the page before this one.

        Texts are compared within a ``CASE``, whose order of evaluation both databases guarantee: within an ``AND``
        the comparison may come first, and the time it takes tells which words private prompts contain.
        """
        visible = "tenant_id = :tenant_id" if wanted.mine else VISIBLE
        where, (conditions, parameters) = [visible], _text_conditions(wanted)
        parameters |= {"tenant_id": tenant_id, "limit": limit}
        if conditions:
            where.append(f"CASE WHEN {visible} THEN {' AND '.join(conditions)} ELSE 0 END")
        if wanted.guid:
            where.append("guid = :guid")
            parameters["guid"] = wanted.guid.lower()
        if before is not None:
            where.append("id < :before")
            parameters["before"] = before
        statement = f"{SELECT} WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT :limit"
        return [from_row(row) for row in self.connection.execute(sql(statement), parameters).mappings()]

    def change(self, guid: ImageGuid, change: ImageChange, *, tenant_id: TenantId, at: datetime) -> None:
        """Set what the change names on the tenant's own image; ``at`` is the new ``updated_at``."""
        statement = """
            UPDATE images
               SET visibility = COALESCE(:visibility, visibility),
                   filename = COALESCE(:filename, filename),
                   updated_at = :at
             WHERE guid = :guid AND tenant_id = :tenant_id
        """
        parameters = {"guid": guid, "tenant_id": tenant_id, "at": to_timestamp(at), **change.model_dump(mode="json")}
        self.connection.execute(sql(statement), parameters)

    def delete(self, guid: ImageGuid, *, tenant_id: TenantId) -> None:
        """Remove the record of the tenant's own image."""
        statement = "DELETE FROM images WHERE guid = :guid AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"guid": guid, "tenant_id": tenant_id})

    def list_some(self, *, tenant_id: TenantId, limit: int) -> list[StoredImage]:
        """At most ``limit`` images of the tenant, whichever."""
        statement = sql(f"{SELECT} WHERE tenant_id = :tenant_id ORDER BY id LIMIT :limit")
        parameters = {"tenant_id": tenant_id, "limit": limit}
        return [from_row(row) for row in self.connection.execute(statement, parameters).mappings()]

    def sample(self, *, limit: int) -> list[StoredImage]:
        """At most ``limit`` images of all tenants: half of them the newest, the others taken at random."""
        statement = sql(f"{SELECT} ORDER BY id DESC LIMIT :limit")
        rows = list(self.connection.execute(statement, {"limit": limit - limit // 2}).mappings())
        older = range(1, rows[-1]["id"] if rows else 1)
        names, parameters = in_list(random.sample(older, min(limit // 2, len(older))) or [0])
        rows += self.connection.execute(sql(f"{SELECT} WHERE id IN {names}"), parameters).mappings()
        return [from_row(row) for row in rows]

    def _one(self, statement: str, parameters: Parameters) -> StoredImage | None:
        row = self.connection.execute(sql(statement), parameters).mappings().one_or_none()
        return None if row is None else from_row(row)


def _text_conditions(wanted: ImageFilter) -> tuple[list[str], Parameters]:
    """Return the conditions on prompt and filename, and their parameters.

    ``LOWER`` folds all of Unicode on both databases. One pattern looks for every word, so that a prompt is folded
    once: with eight ``INSTR`` SQLite took five times as long. ``INSTR`` and an escaped pattern have no wildcards and
    mind no NUL, unlike ``LIKE``; without the collation MySQL would take every emoji for every other.
    """
    conditions: list[str] = []
    parameters: Parameters = {}
    if wanted.words:
        conditions.append("LOWER(prompt) COLLATE utf8mb4_bin REGEXP LOWER(:words)")
        parameters["words"] = "(?s)^" + "".join(f"(?=.*{re.escape(word)})" for word in wanted.words)
    if wanted.filename:
        conditions.append("INSTR(LOWER(filename) COLLATE utf8mb4_bin, LOWER(:filename)) > 0")
        parameters["filename"] = wanted.filename
    return conditions, parameters
