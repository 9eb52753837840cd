"""The audit service: recording, listing in pages, and finding every alteration."""

import itertools
import os
import pwd
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from pixyproxy.core import clock
from pixyproxy.core.exceptions import InvalidCursorException, InvalidRequestException
from pixyproxy.core.logs import current_client_address, current_request_id
from pixyproxy.core.models.audit import AuditAction, AuditFilter
from pixyproxy.core.models.image import ImageFilter
from pixyproxy.core.models.principal import Actor, SubjectType
from pixyproxy.core.models.tenant import TenantGuid
from pixyproxy.data.database import Database, Repositories, UnitOfWork
from pixyproxy.data.repositories.audit_log import COLUMNS, NO_SHA256, SELECT, AuditHead, AuditLog, digest
from pixyproxy.data.rows import insert_statement
from pixyproxy.service.cursors import CursorCodec
from pixyproxy.service.private.audit import BATCH, AuditPage, AuditService, AuditVerdict, command_actor, entry
from tests.support.builders import new_guid

pytestmark = pytest.mark.anyio

Result = TypeVar("Result")
CURSORS = CursorCodec(SecretStr("a secret"))
ACTOR = Actor(type=SubjectType.USER, subject=new_guid(), tenant_guid=TenantGuid(new_guid()))
NULLABLE = ("actor_tenant_guid", "tenant_guid", "target", "address")
OTHER_SHA256 = "a" * 64


@pytest.fixture
def service(database: Database) -> AuditService:
    return AuditService(database=database, cursors=CURSORS)


@pytest.fixture
async def log(database: Database) -> AsyncIterator[Database]:
    """Provide a database with three entries that fill every column; its head is restored afterwards."""
    await _append(database, 3)
    yield database
    await _run(database, "DELETE FROM audit_head")
    await _run(database, f"INSERT INTO audit_head (id, sequence, entry_sha256) VALUES (1, 0, '{NO_SHA256}')")


@dataclass(frozen=True, kw_only=True)
class _BusyDatabase(Database):
    """A real database to which an entry is appended after every read."""

    async def _run(self, work: UnitOfWork[Result], *, writes: bool) -> Result:
        result = await super()._run(work, writes=writes)
        if not writes:
            await super()._run(_append_one, writes=True)
        return result


@dataclass(frozen=True)
class _BusyLog(AuditLog):
    """A log to which an entry is appended after each statement that reads its end."""

    engine: Engine

    def head(self) -> AuditHead | None:
        found = super().head()
        self._append_elsewhere()
        return found

    def last_sequence(self) -> int:
        found = super().last_sequence()
        self._append_elsewhere()
        return found

    def _append_elsewhere(self) -> None:
        with self.engine.connect() as connection, connection.begin():
            _append_one(Repositories(connection))


@dataclass(frozen=True, kw_only=True)
class _BusyLogDatabase(Database):
    """A real database whose log grows during reads."""

    async def read(self, work: UnitOfWork[Result]) -> Result:
        def work_on_busy_log(data: Repositories) -> Result:
            vars(data)["audit_log"] = _BusyLog(data.connection, self.engine)
            return work(data)

        return await super().read(work_on_busy_log)


def _append_one(data: Repositories) -> None:
    act = entry(ACTOR, AuditAction.KEY_ISSUED, tenant_guid=TenantGuid(new_guid()), target=new_guid())
    data.audit_log.append(act.model_copy(update={"address": "192.0.2.1", "details": {"name": "fox 🦊"}}))


async def _append(database: Database, count: int) -> None:
    def append(data: Repositories) -> None:
        for _ in range(count):
            _append_one(data)

    await database.write(append)


async def _run(database: Database, statement: str, **parameters: object) -> None:
    """Run SQL as someone with write access to the database; it must match one row."""
    rows = await database.write(lambda data: data.connection.execute(text(statement), parameters).rowcount)
    assert rows == 1


async def _row(database: Database, sequence: int) -> dict[str, object]:
    statement = text(f"{SELECT} WHERE sequence = :sequence")
    row = await database.read(lambda data: data.connection.execute(statement, {"sequence": sequence}).mappings().one())
    return dict(row)


async def _replace(database: Database, sequence: int, **values: object) -> dict[str, object]:
    """Change a row and store the digest of its changed columns."""
    row = await _row(database, sequence) | values
    row["entry_sha256"] = digest(row)
    await _run(database, "DELETE FROM audit_log WHERE sequence = :sequence", sequence=sequence)
    await _run(database, insert_statement("audit_log", COLUMNS), **row)
    return row


def _altered(column: str, value: object) -> object:
    if isinstance(value, int):
        return value + 100
    return "2026-01-01 00:00:00" if column == "at" else f"z{str(value)[1:]}"


async def test_empty_log_is_valid(service: AuditService) -> None:
    assert await service.verify() == AuditVerdict(entries=0, head_sha256=NO_SHA256, problem=None)


@pytest.mark.parametrize("count", [1, 3])
async def test_unaltered_log_is_valid(service: AuditService, database: Database, count: int) -> None:
    await _append(database, count)
    last = (await _row(database, count))["entry_sha256"]
    assert await service.verify() == AuditVerdict(entries=count, head_sha256=str(last), problem=None)


async def test_log_of_several_batches_is_verified(service: AuditService, database: Database) -> None:
    await _append(database, BATCH + 1)
    verdict = await service.verify()
    assert (verdict.entries, verdict.problem) == (BATCH + 1, None)
    await _run(database, "UPDATE audit_log SET actor = 'z' WHERE sequence = :last", last=BATCH + 1)
    verdict = await service.verify()
    assert (verdict.entries, verdict.problem) == (BATCH, f"entry {BATCH + 1} was changed")


async def test_log_of_exactly_one_batch_is_verified(service: AuditService, database: Database) -> None:
    await _append(database, BATCH)
    verdict = await service.verify()
    assert (verdict.entries, verdict.problem) == (BATCH, None)
    await _run(database, "DELETE FROM audit_log WHERE sequence = :last", last=BATCH)
    verdict = await service.verify()
    assert (verdict.entries, verdict.problem) == (BATCH - 1, f"entry {BATCH} is missing")


async def test_entries_appended_during_verification_are_ignored(database: Database) -> None:
    await _append(database, 2)
    busy = _BusyDatabase(
        engine=database.engine, slots=database.slots, writers=database.writers, wait_seconds=database.wait_seconds
    )
    service = AuditService(database=busy, cursors=CURSORS)
    verdict = await service.verify()
    assert (verdict.entries, verdict.problem) == (2, None)
    verdict = await service.verify()
    assert verdict.entries > 2
    assert verdict.problem is None


@pytest.mark.parametrize("backend", ["mysql"])
async def test_entries_appended_between_statements_are_not_beyond_the_head(database: Database) -> None:
    """SQLite reads one snapshot, so this concerns the other databases."""
    busy = _BusyLogDatabase(
        engine=database.engine, slots=database.slots, writers=database.writers, wait_seconds=database.wait_seconds
    )
    for _ in range(2):
        assert (await AuditService(database=busy, cursors=CURSORS).verify()).problem is None


@pytest.mark.parametrize(
    ("column", "sequence"),
    list(zip((name for name in COLUMNS if name != "sequence"), itertools.cycle([1, 2, 3]), strict=False)),
)
async def test_change_of_any_column_is_found(service: AuditService, log: Database, column: str, sequence: int) -> None:
    value = _altered(column, (await _row(log, sequence))[column])
    await _run(log, f"UPDATE audit_log SET {column} = :value WHERE sequence = {sequence}", value=value)
    verdict = await service.verify()
    assert (verdict.entries, verdict.problem) == (sequence - 1, f"entry {sequence} was changed")


@pytest.mark.parametrize("column", NULLABLE)
async def test_removed_value_is_found(service: AuditService, log: Database, column: str) -> None:
    await _run(log, f"UPDATE audit_log SET {column} = NULL WHERE sequence = 2")
    assert (await service.verify()).problem == "entry 2 was changed"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("action", "what no release knows"),
        ("actor_type", ""),
        ("details", "no JSON"),
        ("details", '{"name":"fox 🦊"}'),
        ("address", "192.0.2.1 "),
        ("previous_sha256", ""),
        ("entry_sha256", ""),
    ],
)
async def test_impossible_value_is_found(service: AuditService, log: Database, column: str, value: str) -> None:
    await _run(log, f"UPDATE audit_log SET {column} = :value WHERE sequence = 2", value=value)
    assert (await service.verify()).problem == "entry 2 was changed"


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "sequence"])
@pytest.mark.parametrize("backend", ["sqlite"])
async def test_value_of_another_type_is_found(service: AuditService, log: Database, column: str) -> None:
    await _run(log, f"UPDATE audit_log SET {column} = CAST({column} AS BLOB) WHERE sequence = 2")
    assert (await service.verify()).problem == "entry 2 was changed"


@pytest.mark.parametrize("sequence", [1, 2, 3])
async def test_changed_sequence_is_found(service: AuditService, log: Database, sequence: int) -> None:
    await _run(log, f"UPDATE audit_log SET sequence = 100 WHERE sequence = {sequence}")
    verdict = await service.verify()
    assert (verdict.entries, verdict.problem) == (sequence - 1, f"entry {sequence} is missing")


@pytest.mark.parametrize("sequence", [1, 2, 3])
async def test_deleted_entry_is_found(service: AuditService, log: Database, sequence: int) -> None:
    await _run(log, f"DELETE FROM audit_log WHERE sequence = {sequence}")
    verdict = await service.verify()
    assert (verdict.entries, verdict.problem) == (sequence - 1, f"entry {sequence} is missing")


async def test_emptied_log_is_found(service: AuditService, log: Database) -> None:
    await log.write(lambda data: data.connection.execute(text("DELETE FROM audit_log")))
    assert (await service.verify()).problem == "entry 1 is missing"


async def test_swapped_entries_are_found(service: AuditService, log: Database) -> None:
    for before, after in ((1, 99), (2, 1), (99, 2)):
        await _run(log, f"UPDATE audit_log SET sequence = {after} WHERE sequence = {before}")
    assert (await service.verify()).problem == "entry 1 was changed"


@pytest.mark.parametrize("sequence", [0, -1, -(2**63)])
async def test_entry_inserted_before_the_first_is_found(service: AuditService, log: Database, sequence: int) -> None:
    row = await _row(log, 1) | {"sequence": sequence}
    await _run(log, insert_statement("audit_log", COLUMNS), **row)
    verdict = await service.verify()
    assert (verdict.entries, verdict.problem) == (0, f"unexpected entry {sequence}")


@pytest.mark.parametrize("sequence", [4, 5, 2**63 - 1])
async def test_entry_inserted_after_the_last_is_found(service: AuditService, log: Database, sequence: int) -> None:
    row: dict[str, object] = await _row(log, 3)
    row |= {"sequence": sequence, "previous_sha256": row["entry_sha256"]}
    await _run(log, insert_statement("audit_log", COLUMNS), **row | {"entry_sha256": digest(row)})
    verdict = await service.verify()
    assert (verdict.entries, verdict.problem) == (3, f"entries up to {sequence} lie beyond the head, which is entry 3")


@pytest.mark.parametrize("sequence", [1, 2])
async def test_changed_entry_with_a_recomputed_digest_is_found(
    service: AuditService, log: Database, sequence: int
) -> None:
    await _replace(log, sequence, actor="z")
    problem = f"entry {sequence + 1} does not follow the current entry {sequence}"
    assert (await service.verify()).problem == problem


async def test_changed_last_entry_with_a_recomputed_digest_is_found(service: AuditService, log: Database) -> None:
    await _replace(log, 3, actor="z")
    assert (await service.verify()).problem == "the head does not match entry 3"


async def test_rechained_tail_without_the_head_is_found(service: AuditService, log: Database) -> None:
    changed = await _replace(log, 2, actor="z")
    await _replace(log, 3, previous_sha256=changed["entry_sha256"])
    assert (await service.verify()).problem == "the head does not match entry 3"


async def test_rewritten_chain_is_valid_but_has_another_head_digest(service: AuditService, log: Database) -> None:
    noted = await service.verify()
    changed = await _replace(log, 3, actor="z")
    await _run(log, "UPDATE audit_head SET entry_sha256 = :sha256", sha256=changed["entry_sha256"])
    verdict = await service.verify()
    assert verdict.problem is None
    assert verdict.head_sha256 != noted.head_sha256


async def test_chain_with_another_first_digest_is_found(service: AuditService, log: Database) -> None:
    await _replace(log, 1, previous_sha256=OTHER_SHA256)
    assert (await service.verify()).problem == "entry 1 does not follow the current entry 0"


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("entry_sha256", OTHER_SHA256, "the head does not match entry 3"),
        ("sequence", 4, "entry 4 is missing"),
        ("sequence", 2, "the head does not match entry 2"),
        ("sequence", 0, "the head does not match entry 0"),
        ("id", 2, "the head is missing"),
    ],
)
async def test_changed_head_is_found(
    service: AuditService, log: Database, column: str, value: object, problem: str
) -> None:
    await _run(log, f"UPDATE audit_head SET {column} = :value", value=value)
    assert (await service.verify()).problem == problem


async def test_head_set_back_to_an_earlier_entry_is_found(service: AuditService, log: Database) -> None:
    sha256 = (await _row(log, 2))["entry_sha256"]
    await _run(log, "UPDATE audit_head SET sequence = 2, entry_sha256 = :sha256", sha256=sha256)
    verdict = await service.verify()
    assert (verdict.entries, verdict.problem) == (2, "entries up to 3 lie beyond the head, which is entry 2")


async def test_missing_head_is_found(service: AuditService, log: Database) -> None:
    await log.write(lambda data: data.connection.execute(text("UPDATE audit_head SET id = 7")))
    assert await service.verify() == AuditVerdict(entries=0, head_sha256=None, problem="the head is missing")


async def test_recorded_entry_is_listed(service: AuditService) -> None:
    act = entry(ACTOR, AuditAction.SCOPE_REFUSED, details={"scope": "admin"})
    await service.record(act)
    page = await service.list_entries(AuditFilter(), limit=1, cursor=None)
    assert page.next_cursor is None
    (listed,) = page.entries
    assert listed.model_dump(include=set(act.model_dump())) == act.model_dump()
    assert listed.sequence == 1


async def test_pages_are_consecutive_while_entries_are_appended(service: AuditService, database: Database) -> None:
    await _append(database, 5)
    seen, cursor = [], None
    for _ in range(3):
        page = await service.list_entries(AuditFilter(), limit=2, cursor=cursor)
        seen += [listed.sequence for listed in page.entries]
        cursor = page.next_cursor
        await _append(database, 1)
    assert seen == [5, 4, 3, 2, 1]
    assert cursor is None


async def test_pages_contain_only_matching_entries(service: AuditService, database: Database) -> None:
    await _append(database, 1)
    for _ in range(3):
        await service.record(entry(ACTOR, AuditAction.SIGN_IN_FAILED))
        await _append(database, 1)
    wanted = AuditFilter(action=AuditAction.SIGN_IN_FAILED, actor=ACTOR.subject)
    first = await service.list_entries(wanted, limit=2, cursor=None)
    second = await service.list_entries(wanted, limit=2, cursor=first.next_cursor)
    assert [listed.sequence for listed in first.entries + second.entries] == [6, 4, 2]
    assert second.next_cursor is None


async def test_full_last_page_has_no_cursor(service: AuditService, database: Database) -> None:
    await _append(database, 2)
    page = await service.list_entries(AuditFilter(), limit=2, cursor=None)
    assert [listed.sequence for listed in page.entries] == [2, 1]
    assert page.next_cursor is None


async def test_empty_log_has_an_empty_page(service: AuditService) -> None:
    assert await service.list_entries(AuditFilter(), limit=2, cursor=None) == AuditPage([], None)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "garbage",
        CURSORS.encode(1, AuditFilter(actor="other")),
        CURSORS.encode(1, ImageFilter()),
        CursorCodec(SecretStr("other")).encode(1, AuditFilter()),
    ],
)
async def test_cursor_of_another_list_is_rejected(service: AuditService, cursor: str) -> None:
    with pytest.raises(InvalidCursorException):
        await service.list_entries(AuditFilter(), limit=1, cursor=cursor)


async def test_unvalidated_filter_is_rejected(service: AuditService) -> None:
    wanted = AuditFilter().model_copy(update={"action": "' OR 1"})
    with pytest.raises(InvalidRequestException):
        await service.list_entries(wanted, limit=1, cursor=None)


def test_entry_contains_its_request_and_client() -> None:
    request, address = current_request_id.set("a request"), current_client_address.set("192.0.2.1")
    try:
        before = clock.now()
        made = entry(ACTOR, AuditAction.KEY_REVOKED, tenant_guid=TenantGuid("t"), target="k", details={"key_id": "x"})
    finally:
        current_request_id.reset(request)
        current_client_address.reset(address)
    assert before <= made.at <= clock.now()
    assert (made.request_id, made.address) == ("a request", "192.0.2.1")
    assert (made.actor_type, made.actor, made.actor_tenant_guid) == (ACTOR.type, ACTOR.subject, ACTOR.tenant_guid)
    assert (made.action, made.tenant_guid, made.target) == (AuditAction.KEY_REVOKED, "t", "k")
    assert made.details == {"key_id": "x"}


def test_entry_outside_a_request_contains_neither() -> None:
    made = entry(ACTOR, AuditAction.SIGNING_KEYS_ROTATED)
    assert (made.request_id, made.address, made.tenant_guid, made.target) == ("-", None, None, None)
    assert made.details == {}


def test_command_actor_is_the_operating_systems_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    assert command_actor() == Actor(type=SubjectType.COMMAND, subject="ann", tenant_guid=None)


def test_command_actor_does_not_need_environment_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    names = {user.pw_uid: user.pw_name for user in pwd.getpwall()}
    assert command_actor().subject == names.get(os.getuid(), str(os.getuid()))
