"""The ``upstreams`` table and its satellites: each upstream's capacity limits and state, and the tenants' turns.

Times are seconds since 1970. Slots in use are counted from the generations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.upstream import UpstreamId, UpstreamNumbers, UpstreamState
from pixyproxy.data.rows import Parameters, in_list, sql

NUMBERS = ("weight", "concurrency", "requests_per_minute")
STATE = ("share", "paused_until", "failed_at", "failures", "unusable", "mean_seconds")
SELECT = f"SELECT id, name, {', '.join(NUMBERS + STATE)} FROM upstreams"
REGISTER = {
    "mysql": "ON DUPLICATE KEY UPDATE name = VALUES(name)",
    "sqlite": "ON CONFLICT (name) DO NOTHING",
}
TAKE_TURN = {
    "mysql": "ON DUPLICATE KEY UPDATE began_at = VALUES(began_at)",
    "sqlite": "ON CONFLICT (tenant_id, upstream_id) DO UPDATE SET began_at = excluded.began_at",
}
STARTS_KEPT_SECONDS = 120


@dataclass(frozen=True)
class Upstreams:
    """The ``upstreams`` repository, bound to one connection and its transaction."""

    connection: Connection

    def register(self, name: str, numbers: UpstreamNumbers, *, revision: float) -> None:
        """Ensure a row for an upstream, with these limits unless a process with newer settings wrote others."""
        values: Parameters = {"name": name, "revision": revision, **numbers.model_dump()}
        otherwise = REGISTER[self.connection.dialect.name]
        statement = f"""
            INSERT INTO upstreams (name, revision, {", ".join(NUMBERS)})
            VALUES (:name, :revision, :weight, :concurrency, :requests_per_minute) {otherwise}
        """
        self.connection.execute(sql(statement), values)
        statement = """
            UPDATE upstreams
               SET revision = :revision, weight = :weight, concurrency = :concurrency,
                   requests_per_minute = :requests_per_minute
             WHERE name = :name AND revision <= :revision
        """
        self.connection.execute(sql(statement), values)

    def list_named(self, names: Sequence[str], *, lock: bool = False) -> list[UpstreamState]:
        """Return the upstreams with these names, ordered by id.

        ``lock``: lock them until this transaction ends. On SQLite the write transaction already does.
        """
        listed, parameters = in_list(names)
        locking = " FOR UPDATE" if lock and self.connection.dialect.name != "sqlite" else ""
        statement = f"{SELECT} WHERE name IN {listed} ORDER BY id{locking}"
        rows = self.connection.execute(sql(statement), parameters).mappings()
        return [UpstreamState.model_validate(dict(row)) for row in rows]

    def save(self, state: UpstreamState) -> None:
        """Write the changed state of a locked upstream."""
        statement = f"UPDATE upstreams SET {', '.join(f'{name} = :{name}' for name in STATE)} WHERE id = :id"
        self.connection.execute(sql(statement), state.model_dump(include={"id", *STATE}))

    def count_slots(self, *, now: float) -> Mapping[UpstreamId, int]:
        """Return how many slots of each upstream are in use, across all processes."""
        statement = """
            SELECT upstream_id, COUNT(*) FROM generations WHERE upstream_id IS NOT NULL AND place_until > :now
             GROUP BY upstream_id
        """
        return {UpstreamId(row[0]): row[1] for row in self.connection.execute(sql(statement), {"now": now})}

    def starts_since(self, upstream_id: UpstreamId, moment: float) -> tuple[int, float | None]:
        """Return how many calls were started after ``moment``, and the start of the oldest."""
        statement = "SELECT COUNT(*), MIN(started_at) FROM upstream_starts WHERE upstream_id = :id AND started_at > :at"
        count, oldest = self.connection.execute(sql(statement), {"id": upstream_id, "at": moment}).one()
        return count, oldest

    def note_start(self, upstream_id: UpstreamId, *, at: float) -> None:
        """Record the start of a call, and remove starts too old to be counted."""
        parameters: Parameters = {"id": upstream_id, "at": at, "before": at - STARTS_KEPT_SECONDS}
        forget = "DELETE FROM upstream_starts WHERE upstream_id = :id AND started_at < :before"
        self.connection.execute(sql(forget), parameters)
        note = "INSERT INTO upstream_starts (upstream_id, started_at) VALUES (:id, :at)"
        self.connection.execute(sql(note), parameters)

    def turns(self, tenants: Sequence[TenantId]) -> Mapping[tuple[TenantId, UpstreamId], float]:
        """Return when the last order of each of these tenants (a few hundred at most) started at each upstream."""
        listed, parameters = in_list(tenants)
        statement = f"SELECT tenant_id, upstream_id, began_at FROM tenant_turns WHERE tenant_id IN {listed}"
        rows = self.connection.execute(sql(statement), parameters)
        return {(TenantId(row[0]), UpstreamId(row[1])): row[2] for row in rows}

    def take_turn(self, tenant_id: TenantId, upstream_id: UpstreamId, *, at: float) -> None:
        """Record that an order of a tenant starts at an upstream."""
        otherwise = TAKE_TURN[self.connection.dialect.name]
        statement = f"""
            INSERT INTO tenant_turns (tenant_id, upstream_id, began_at) VALUES (:tenant_id, :id, :at) {otherwise}
        """
        self.connection.execute(sql(statement), {"tenant_id": tenant_id, "id": upstream_id, "at": at})

    def delete_turns(self, *, tenant_id: TenantId) -> None:
        """Remove the tenant's turns."""
        self.connection.execute(sql("DELETE FROM tenant_turns WHERE tenant_id = :tenant_id"), {"tenant_id": tenant_id})
