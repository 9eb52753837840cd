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
"""The images visible to a viewer: those of the viewer's tenant and public ones of active tenants.

NULL equals nothing.
"""


def to_row(image: NewImage) -> Parameters:
    """Return the columns of an image, by name."""
    times = {"created_at": to_timestamp(image.created_at), "updated_at": to_timestamp(image.updated_at)}
    return image.model_dump(mode="json", include=set(COLUMNS)) | times


def from_row(row: Row) -> StoredImage:
    """Return the image in a row of ``SELECT``."""
    times = {"created_at": from_timestamp(row["created_at"]), "updated_at": from_timestamp(row["updated_at"])}
    return StoredImage.model_validate({**row, **times})


@dataclass(frozen=True)
class Images:
    """The ``images`` repository, bound to one connection and its transaction."""

    connection: Connection

    def record(self, image: NewImage) -> StoredImage:
        """Add an image, or return the existing one with this GUID.

        The unique index decides. Nothing is read first: MySQL's snapshot starts with the transaction's first SELECT,
        and one taken before another transaction's commit would not show the row.
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
        """Return the image if it is public or the tenant's own; None if it is absent or private, indistinguishably."""
        return self._one(f"{SELECT} WHERE guid = :guid AND {VISIBLE}", {"guid": guid, "tenant_id": tenant_id})

    def get_own(self, guid: ImageGuid, *, tenant_id: TenantId) -> StoredImage | None:
        """Return the tenant's own image."""
        return self._one(
            f"{SELECT} WHERE guid = :guid AND tenant_id = :tenant_id", {"guid": guid, "tenant_id": tenant_id}
        )

    def list_of_generations(self, generations: Sequence[GenerationId], *, tenant_id: TenantId) -> list[StoredImage]:
        """Return the existing images of generations of the tenant, oldest first."""
        if not generations:
            return []
        names, parameters = in_list(generations)
        statement = f"{SELECT} WHERE generation_id IN {names} AND tenant_id = :tenant_id ORDER BY id"
        rows = self.connection.execute(sql(statement), parameters | {"tenant_id": tenant_id}).mappings()
        return [from_row(row) for row in rows]

    def list_visible(
        self, wanted: ImageFilter, *, tenant_id: TenantId | None, before: ImageId | None, limit: int
    ) -> list[StoredImage]:
        """Return at most ``limit`` images that the viewer may see and that match the filter, newest first.

        ``before`` is the id of the last image of the previous page.

        Texts are compared within a ``CASE``, whose order of evaluation both databases guarantee: within an ``AND`` the
        comparison may run first, and its duration would reveal which words private prompts contain.
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
        """Apply a change to the tenant's own image; ``at`` is the new ``updated_at``."""
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
        """Remove the row of the tenant's own image."""
        statement = "DELETE FROM images WHERE guid = :guid AND tenant_id = :tenant_id"
        self.connection.execute(sql(statement), {"guid": guid, "tenant_id": tenant_id})

    def list_some(self, *, tenant_id: TenantId, limit: int) -> list[StoredImage]:
        """Return at most ``limit`` arbitrary images of the tenant."""
        statement = sql(f"{SELECT} WHERE tenant_id = :tenant_id ORDER BY id LIMIT :limit")
        parameters = {"tenant_id": tenant_id, "limit": limit}
        return [from_row(row) for row in self.connection.execute(statement, parameters).mappings()]

    def sample(self, *, limit: int) -> list[StoredImage]:
        """Return at most ``limit`` images of all tenants: half are the newest, the others random."""
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

    ``LOWER`` folds all of Unicode on both databases. One pattern searches all words, so that a prompt is folded once:
    with eight ``INSTR`` SQLite took five times as long. Unlike ``LIKE``, ``INSTR`` and an escaped pattern have no
    wildcards and handle NUL. Without the collation MySQL would treat all emoji as equal.
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
