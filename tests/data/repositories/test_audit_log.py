"""The ``audit_log`` repository: a chain without gaps, in the transaction of the action."""

import asyncio
import hashlib
import itertools
import json
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import text

from pixyproxy.core.exceptions import DatabaseException
from pixyproxy.core.models.audit import AuditAction, AuditEntry, AuditFilter, NewAuditEntry
from pixyproxy.core.models.principal import SubjectType
from pixyproxy.core.models.tenant import TenantGuid
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.repositories.audit_log import COLUMNS, LENGTHS, NO_SHA256, AuditHead, digest
from tests.support.builders import LATER, MOMENT, add_tenant, new_guid
from tests.support.databases import TestDatabases, opened_database, opened_engine

pytestmark = pytest.mark.anyio

WRITERS = 8
ODD_TEXTS = [
    "",
    " ",
    "trailing spaces   ",
    "a red fox 🦊 'in' \"the\" snow\\",
    "e\N{COMBINING ACUTE ACCENT} is not é",
    "\N{ZERO WIDTH SPACE}\N{NO-BREAK SPACE}\N{REPLACEMENT CHARACTER}\uffff",
    "%s :name {} null",
]
UNSTORABLE_TEXTS = [
    ("a\0b", r"a\x00b"),
    ("\ud800", r"\ud800"),
    ("\udc80\r\n\x1b[2J", r"\udc80\r\n\x1b[2J"),
    ("\N{RIGHT-TO-LEFT OVERRIDE}", r"\u202e"),
]


def _act(**changes: object) -> NewAuditEntry:
    act = NewAuditEntry(
        at=MOMENT,
        actor_type=SubjectType.USER,
        actor=new_guid(),
        actor_tenant_guid=TenantGuid(new_guid()),
        action=AuditAction.KEY_ISSUED,
        tenant_guid=TenantGuid(new_guid()),
        target=new_guid(),
        address="2001:db8::1",
        request_id="web1-20261121T091502.123456-14023",
        details={"scopes": "image:read", "key_id": "abc"},
    )
    return act.model_copy(update=changes)


async def _append(database: Database, **changes: object) -> AuditEntry:
    return await database.write(lambda data: data.audit_log.append(_act(**changes)))


async def _entries(database: Database, *, before: int | None = None, limit: int = 100, **wanted: object) -> list[int]:
    found = await database.read(
        lambda data: data.audit_log.list_entries(AuditFilter.model_validate(wanted), before=before, limit=limit)
    )
    return [entry.sequence for entry in found]


async def _only(database: Database) -> AuditEntry:
    entries = await database.read(lambda data: data.audit_log.list_entries(AuditFilter(), before=None, limit=2))
    assert len(entries) == 1
    return entries[0]


async def _assert_chain(database: Database, *, length: int) -> None:
    """Assert that the log is one chain of this length, outcome with the head."""
    links = await database.read(lambda data: data.audit_log.read_from(0, limit=length + 1))
    assert [link.sequence for link in links] == list(range(1, length + 1))
    assert [link.previous_sha256 for link in links] == [NO_SHA256, *[link.entry_sha256 for link in links]][:length]
    assert all(link.actual_sha256 == link.entry_sha256 for link in links)
    last = links[-1].entry_sha256 if links else NO_SHA256
    assert await database.read(lambda data: data.audit_log.head()) == AuditHead(length, last)
    assert await database.read(lambda data: data.audit_log.last_sequence()) == length


async def test_empty_log_has_a_head(database: Database) -> None:
    await _assert_chain(database, length=0)


async def test_entries_are_chained(database: Database) -> None:
    appended = [await _append(database) for _ in range(3)]
    assert [entry.sequence for entry in appended] == [1, 2, 3]
    await _assert_chain(database, length=3)
    listed = await database.read(lambda data: data.audit_log.list_entries(AuditFilter(), before=None, limit=9))
    assert listed == appended[::-1]


async def test_entries_of_one_transaction_are_chained(database: Database) -> None:
    await database.write(lambda data: [data.audit_log.append(_act()) for _ in range(3)])
    await _assert_chain(database, length=3)


@pytest.mark.parametrize(("action", "actor_type"), list(zip(AuditAction, itertools.cycle(SubjectType), strict=False)))
async def test_every_column_round_trips(database: Database, action: AuditAction, actor_type: SubjectType) -> None:
    act = _act(action=action, actor_type=actor_type)
    entry = await database.write(lambda data: data.audit_log.append(act))
    assert NewAuditEntry(**entry.model_dump(include=set(NewAuditEntry.model_fields))) == act
    assert await _only(database) == entry


async def test_none_round_trips(database: Database) -> None:
    nothing = dict.fromkeys(("actor_tenant_guid", "tenant_guid", "target", "address"))
    entry = await _append(database, **nothing, details={})
    assert await _only(database) == entry
    assert entry.model_dump(include=set(nothing)) == nothing
    assert entry.details == {}


@pytest.mark.parametrize("value", ODD_TEXTS)
async def test_unusual_text_round_trips(database: Database, value: str) -> None:
    entry = await _append(database, actor=value, target=value, address=value, request_id=value, details={value: value})
    assert await _only(database) == entry
    assert entry.details == {value: value}
    assert {entry.actor, entry.target, entry.address, entry.request_id} == {value}
    await _assert_chain(database, length=1)


@pytest.mark.parametrize(("value", "stored"), UNSTORABLE_TEXTS)
async def test_unsafe_text_is_escaped(database: Database, value: str, stored: str) -> None:
    entry = await _append(database, actor=value, target=value, address=value, request_id=value, details={value: value})
    assert await _only(database) == entry
    assert entry.details == {stored: stored}
    assert {entry.actor, entry.target, entry.address, entry.request_id} == {stored}
    await _assert_chain(database, length=1)


@pytest.mark.parametrize("character", ["x", "🦊", "\0", '"'])
async def test_text_is_truncated_to_its_column(database: Database, character: str) -> None:
    long = character * 1000
    facts = {f"fact {number}": long for number in range(20)}
    entry = await _append(database, actor=long, target=long, address=long, request_id=long, details=facts)
    assert {name: len(getattr(entry, name)) for name in LENGTHS} == LENGTHS
    assert {len(fact) for fact in entry.details.values()} == {500}
    assert len(entry.details) == 20
    assert await _only(database) == entry
    await _assert_chain(database, length=1)


async def test_digest_is_the_same_on_every_database_and_release(database: Database) -> None:
    guids = dict.fromkeys(("actor", "actor_tenant_guid", "target"), "00000000-0000-4000-8000-000000000000")
    await _append(database, **guids, tenant_guid=None, address="", details={"b": "🦊", "a": ""})
    written = (
        '{"action":"key.issued","actor":"00000000-0000-4000-8000-000000000000",'
        '"actor_tenant_guid":"00000000-0000-4000-8000-000000000000","actor_type":"user","address":"",'
        '"at":"2026-11-21 09:15:02","details":"{\\"b\\": \\"\\ud83e\\udd8a\\", \\"a\\": \\"\\"}",'
        f'"previous_sha256":"{NO_SHA256}","request_id":"web1-20261121T091502.123456-14023","sequence":1,'
        '"target":"00000000-0000-4000-8000-000000000000","tenant_guid":null}'
    )
    assert (await _only(database)).entry_sha256 == hashlib.sha256(written.encode()).hexdigest()


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "entry_sha256"])
def test_every_column_is_covered_by_the_digest(column: str) -> None:
    row: dict[str, object] = dict.fromkeys(COLUMNS, "x")
    digests = [digest(row | {column: value}) for value in ("x", "", "x ", "X", None, "None", 1, "1")]
    assert len(set(digests)) == len(digests)


async def test_moving_text_between_columns_changes_the_digest() -> None:
    row = dict.fromkeys(COLUMNS, "x")
    assert digest(row | {"actor": 'x","target":"x'}) != digest(row)
    assert digest(row | {"actor": "xx", "target": ""}) != digest(row | {"actor": "x", "target": "x"})


async def test_rollback_leaves_no_entry_and_no_gap(database: Database) -> None:
    await _append(database)

    def fail(data: Repositories) -> None:
        data.audit_log.append(_act())
        raise KeyError

    with pytest.raises(KeyError):
        await database.write(fail)
    await _assert_chain(database, length=1)
    await _append(database)
    await _assert_chain(database, length=2)


async def test_action_is_rolled_back_if_its_entry_cannot_be_written(database: Database) -> None:
    """The entry's sequence is already used, as after a manipulation of the head."""
    await _append(database)
    await database.write(lambda data: data.connection.execute(text("UPDATE audit_head SET sequence = 0")))

    with pytest.raises(DatabaseException):
        await database.write(_add_tenant_and_append)
    assert await database.read(lambda data: data.tenants.list_all()) == []
    head = await database.read(lambda data: data.audit_log.head())
    assert head == AuditHead(0, (await _only(database)).entry_sha256)


async def test_actions_fail_without_a_head(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    await database.write(lambda data: data.connection.execute(text("DELETE FROM audit_head")))
    try:
        with pytest.raises(DatabaseException) as caught:
            await database.write(_add_tenant_and_append)
        assert "audit_head" in caplog.text
        assert "audit_head" not in caught.value.message
        assert await database.read(lambda data: data.audit_log.head()) is None
        assert await database.read(lambda data: data.tenants.list_all()) == []
    finally:
        await database.write(
            lambda data: data.connection.execute(text(f"INSERT INTO audit_head VALUES (1, 0, '{NO_SHA256}')"))
        )


def _add_tenant_and_append(data: Repositories) -> None:
    """Perform an action and append its entry."""
    add_tenant(data)
    data.audit_log.append(_act())


async def test_concurrent_transactions_that_read_first_leave_no_gap(
    databases: TestDatabases, backend: str, database: Database, tmp_path: Path
) -> None:
    """Where concurrent, all take their snapshot before the first one appends."""
    all_have_read = Barrier(WRITERS)

    def read_and_append(data: Repositories) -> AuditEntry:
        assert data.tenants.get_by_guid(new_guid()) is None
        if backend == "mysql" and not all_have_read.broken:
            all_have_read.wait(20)
        return data.audit_log.append(_act())

    async with opened_database(databases.migrated(backend), tmp_path, pool_size=WRITERS) as wide:
        entries = await asyncio.gather(*(wide.write(read_and_append) for _ in range(WRITERS)))
    assert sorted(entry.sequence for entry in entries) == list(range(1, WRITERS + 1))
    await _assert_chain(database, length=WRITERS)


@pytest.mark.parametrize("backend", ["mysql"])
async def test_transaction_aborted_for_its_old_snapshot_is_retried(database: Database) -> None:
    """MariaDB's error 1020, which PixyProxy's sessions disable."""
    runs: list[bool] = []
    if not await database.read(_has_snapshot_isolation):
        pytest.skip("this server has no innodb_snapshot_isolation")
    gate = Barrier(2)

    def append_on_old_snapshot(data: Repositories) -> AuditEntry:
        runs.append(True)
        data.connection.execute(text("SET SESSION innodb_snapshot_isolation = ON"))
        data.connection.execute(text("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        assert data.audit_log.head() is not None
        if len(runs) == 1:
            gate.wait(20)
            gate.wait(20)
        return data.audit_log.append(_act())

    def append_when_the_other_has_read(data: Repositories) -> AuditEntry:
        gate.wait(20)
        return data.audit_log.append(_act())

    async def overtake() -> None:
        await database.write(append_when_the_other_has_read)
        await asyncio.to_thread(gate.wait, 20)

    late, _ = await asyncio.gather(database.write(append_on_old_snapshot), overtake())
    assert len(runs) == 2
    assert late.sequence == 2
    await _assert_chain(database, length=2)


@pytest.mark.parametrize("backend", ["mysql"])
async def test_snapshot_isolation_is_disabled_for_sessions(
    databases: TestDatabases, database: Database, tmp_path: Path
) -> None:
    if not await database.read(_has_snapshot_isolation):
        pytest.skip("this server has no innodb_snapshot_isolation")
    with opened_engine(f"{databases.servers.server_url}/mysql") as engine, engine.connect() as administrator:
        before = administrator.execute(text("SELECT @@GLOBAL.innodb_snapshot_isolation")).scalar_one()
        administrator.execute(text("SET GLOBAL innodb_snapshot_isolation = ON"))
        try:
            async with opened_database(databases.migrated("mysql"), tmp_path) as opened:
                found = await opened.read(
                    lambda data: data.connection.execute(text("SELECT @@innodb_snapshot_isolation")).scalar_one()
                )
        finally:
            administrator.execute(text("SET GLOBAL innodb_snapshot_isolation = :before"), {"before": before})
    assert found == 0


def _has_snapshot_isolation(data: Repositories) -> bool:
    rows = data.connection.execute(text("SHOW VARIABLES LIKE 'innodb_snapshot_isolation'"))
    return bool(rows.all())


async def test_entries_are_paged_newest_first(database: Database) -> None:
    for _ in range(5):
        await _append(database)
    assert await _entries(database, limit=2) == [5, 4]
    assert await _entries(database, limit=2, before=4) == [3, 2]
    assert await _entries(database, limit=2, before=2) == [1]
    assert await _entries(database, before=1) == []


async def test_each_filter_matches_only_its_column(database: Database) -> None:
    tenant = TenantGuid(new_guid())
    await _append(database, action=AuditAction.KEY_REVOKED, at=MOMENT)
    await _append(database, actor="Ann", at=MOMENT + timedelta(seconds=1))
    await _append(database, tenant_guid=tenant, at=LATER)
    await _append(database, target="Ann", tenant_guid=None, at=LATER)
    assert await _entries(database) == [4, 3, 2, 1]
    assert await _entries(database, action=AuditAction.KEY_REVOKED) == [1]
    assert await _entries(database, actor="Ann") == [2]
    assert await _entries(database, tenant=tenant) == [3]
    assert await _entries(database, target="Ann") == [4]
    assert await _entries(database, since=MOMENT + timedelta(seconds=1)) == [4, 3, 2]
    assert await _entries(database, until=MOMENT + timedelta(seconds=1)) == [1]
    assert await _entries(database, since=MOMENT + timedelta(seconds=1), until=LATER) == [2]
    assert await _entries(database, actor="Ann", target="Ann") == []


@pytest.mark.parametrize("other", ["ann", "Änn", "Ann ", "Ann%", "A_n", "", "🦊"])
async def test_actors_and_targets_match_literally(database: Database, other: str) -> None:
    await _append(database, actor="Ann", target="Ann")
    assert await _entries(database, actor=other) == []
    assert await _entries(database, target=other) == []


async def test_emoji_are_distinguished(database: Database) -> None:
    await _append(database, actor="🐺")
    assert await _entries(database, actor="🦊") == []
    assert await _entries(database, actor="🐺") == [1]


async def test_filter_accepts_other_time_zones(database: Database) -> None:
    await _append(database, at=MOMENT)
    assert await _entries(database, since="2026-11-21T10:15:02+01:00") == [1]
    assert await _entries(database, until="2026-11-21T10:15:02+01:00") == []


async def test_links_are_read_oldest_first_from_a_sequence(database: Database) -> None:
    for _ in range(4):
        await _append(database)
    links = await database.read(lambda data: data.audit_log.read_from(2, limit=2))
    assert [link.sequence for link in links] == [2, 3]
    assert await database.read(lambda data: data.audit_log.read_from(5, limit=2)) == []


async def test_details_are_stored_as_readable_json(database: Database) -> None:
    await _append(database, details={"name": "naïve 🦊"})
    stored = await database.read(lambda data: data.connection.execute(text("SELECT details FROM audit_log")).scalar())
    assert stored == '{"name": "naïve 🦊"}'
    assert json.loads(stored) == {"name": "naïve 🦊"}
