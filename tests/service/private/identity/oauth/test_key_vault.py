"""The keys in the database, shared by the processes of an installation."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from pixyproxy.core import clock
from pixyproxy.core.exceptions import ConfigurationException, DatabaseException
from pixyproxy.core.models.audit import AuditAction, AuditFilter
from pixyproxy.core.models.signing_key import SigningKey
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.data.database import Database
from pixyproxy.service.private.identity.oauth.jwt import sign_token, verify_signature
from pixyproxy.service.private.identity.oauth.key_vault import PUBLISH_AHEAD, new_signing_key, reseal
from pixyproxy.service.private.identity.oauth.signing_keys import KeyRing, open_key_ring
from tests.support.keys import OPERATOR, SECRET, open_ring, published, rotate, write_former_file
from tests.support.server import make_settings

pytestmark = pytest.mark.anyio
NEW = SecretStr("the secret that takes the place of the former")
LONGEST = timedelta(seconds=LONGEST_TOKEN_SECONDS)
AGES = timedelta(days=100)


@pytest.fixture
def now() -> datetime:
    """Provide the current time to the second, as columns store it."""
    return clock.now()


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder and below."""
    return list(folder.rglob("*"))


async def audited(database: Database) -> list[tuple[AuditAction, dict[str, str]]]:
    entries = await database.read(lambda data: data.audit_log.list_entries(AuditFilter(), before=None, limit=10))
    return [(entry.action, entry.details) for entry in entries]


async def private_halves(database: Database) -> dict[str, str | None]:
    keys = await database.read(lambda data: data.signing_keys.list_all())
    return {key.kid: key.sealed_pem for key in keys}


async def verifies(ring: KeyRing, token: str, kid: str, at: datetime) -> bool:
    key = await ring.find_verification_key(kid, at)
    return key is not None and verify_signature(token, key) == b"{}"


async def test_all_processes_sign_with_the_first_key(database: Database, tmp_path: Path, now: datetime) -> None:
    rings = await asyncio.gather(*(open_ring(database, tmp_path / name) for name in "abcdef"))
    assert len({ring.signing_key(now).kid for ring in rings}) == 1
    assert len(await private_halves(database)) == 1


async def test_private_keys_are_encrypted_in_the_database(database: Database, tmp_path: Path, now: datetime) -> None:
    ring = await open_ring(database, tmp_path)
    private_pem = ring.signing_key(now).private_pem.get_secret_value()
    secrets = [line for line in private_pem.splitlines() if not line.startswith("-----")]
    assert len(secrets) > 1
    (row,) = await database.read(lambda data: data.connection.execute(text("SELECT * FROM signing_keys")).all())
    assert [line for line in secrets if line in str(row)] == []
    assert files_in(tmp_path) == []


async def test_token_is_verified_by_another_process_right_after_a_rotation(
    database: Database, tmp_path: Path, now: datetime
) -> None:
    one, other = await open_ring(database, tmp_path / "one"), await open_ring(database, tmp_path / "other")
    former = sign_token({}, one.signing_key(now))
    assert await verifies(other, former, one.signing_key(now).kid, now)
    key = await rotate(one, now, at_once=True)
    assert await verifies(other, sign_token({}, one.signing_key(now)), key.kid, now)
    assert published(other, now) == [key.kid]


async def test_concurrent_rotations_lose_no_key(database: Database, tmp_path: Path, now: datetime) -> None:
    rings = [await open_ring(database, tmp_path / name) for name in "abcd"]
    made = await asyncio.gather(*(rotate(ring, now) for ring in rings for _ in range(3)))
    for ring in rings:
        await ring.refresh()
    assert {key.kid for key in made} < set(published(rings[0], now))
    assert len(published(rings[0], now)) == 13
    assert len({tuple(published(ring, now)) for ring in rings}) == 1
    assert len({ring.signing_key(now + PUBLISH_AHEAD).kid for ring in rings}) == 1


async def test_rotation_without_audit_entry_is_rolled_back(database: Database, tmp_path: Path, now: datetime) -> None:
    ring = await open_ring(database, tmp_path)
    before = await private_halves(database)
    await database.write(lambda data: data.connection.execute(text("UPDATE audit_head SET id = 2")))
    try:
        for at_once in (False, True):
            with pytest.raises(DatabaseException):
                await rotate(ring, now, at_once=at_once)
    finally:
        await database.write(lambda data: data.connection.execute(text("UPDATE audit_head SET id = 1")))
    assert await private_halves(database) == before
    await ring.refresh()
    assert published(ring, now) == list(before)


async def test_retired_keys_are_erased_by_the_next_rotation(database: Database, tmp_path: Path, now: datetime) -> None:
    ring = await open_ring(database, tmp_path)
    old = ring.signing_key(now).kid
    first = await rotate(ring, now)
    assert (await private_halves(database))[old] is not None
    second = await rotate(ring, now + PUBLISH_AHEAD + LONGEST)
    assert published(ring, now) == [first.kid, second.kid]
    assert (await private_halves(database))[old] is None


def two_machines(now: datetime) -> tuple[list[SigningKey], list[SigningKey]]:
    """Return the keys of two machines that rotated separately; the newer key of the second signs in five minutes."""
    return (
        [new_signing_key(now - AGES), new_signing_key(now - timedelta(hours=1))],
        [new_signing_key(now - AGES * 2), new_signing_key(now + timedelta(minutes=5))],
    )


async def test_key_files_of_all_machines_are_imported(database: Database, tmp_path: Path, now: datetime) -> None:
    one, other = two_machines(now)
    for name, keys in (("one", one), ("other", other)):
        write_former_file(tmp_path / name / "var", keys)
    rings = [await open_ring(database, tmp_path / name) for name in ("one", "other")]
    assert [files_in(tmp_path / name / "var") for name in ("one", "other")] == [[], []]
    refused = [
        key.kid
        for key in (*one, *other)
        for ring in rings
        if not await verifies(ring, sign_token({}, key), key.kid, now)
    ]
    assert refused == []
    # One machine's key continues to sign on both, even after the other's would have started to.
    assert {ring.signing_key(now + AGES).kid for ring in rings} == {one[1].kid}
    again = await open_ring(database, tmp_path / "other")
    assert published(again, now) == published(rings[1], now)


async def test_first_imported_file_keeps_its_rotation(database: Database, tmp_path: Path, now: datetime) -> None:
    old, new = new_signing_key(now - AGES), new_signing_key(now + timedelta(minutes=5))
    write_former_file(tmp_path / "var", [old, new])
    ring = await open_ring(database, tmp_path)
    assert ring.signing_key(now).kid == old.kid
    assert ring.signing_key(new.signs_from).kid == new.kid
    end = new.signs_from + LONGEST
    assert [ring.verification_key(old.kid, at) is not None for at in (end - timedelta(seconds=1), end)] == [True, False]


async def test_tokens_of_later_imported_keys_stay_valid(database: Database, tmp_path: Path, now: datetime) -> None:
    await open_ring(database, tmp_path / "one")
    key = new_signing_key(now - AGES)
    write_former_file(tmp_path / "other" / "var", [key])
    ring = await open_ring(database, tmp_path / "other")
    assert ring.verification_key(key.kid, now + LONGEST - timedelta(seconds=1)) is not None
    assert ring.verification_key(key.kid, now + LONGEST + timedelta(minutes=1)) is None


async def test_processes_of_one_machine_import_a_file_concurrently(
    database: Database, tmp_path: Path, now: datetime
) -> None:
    keys = two_machines(now)[0]
    write_former_file(tmp_path / "var", keys)
    rings = await asyncio.gather(*(open_ring(database, tmp_path) for _ in range(6)))
    assert {tuple(published(ring, now)) for ring in rings} == {tuple(key.kid for key in keys)}
    assert files_in(tmp_path / "var") == []


async def test_leaked_key_is_not_imported_from_another_machines_file(
    database: Database, tmp_path: Path, now: datetime
) -> None:
    leaked = new_signing_key(now - AGES)
    for name in ("one", "other"):
        write_former_file(tmp_path / name / "var", [leaked])
    ring = await open_ring(database, tmp_path / "one")
    key = await rotate(ring, now, at_once=True)
    other = await open_ring(database, tmp_path / "other")
    assert await other.find_verification_key(leaked.kid, now) is None
    assert published(other, now) == [key.kid]
    assert files_in(tmp_path / "other" / "var") == []


async def test_file_with_a_damaged_key_is_rejected_and_not_removed(
    database: Database, tmp_path: Path, now: datetime
) -> None:
    keys = [new_signing_key(now).model_copy(update={"kid": "stranger"})]
    path = write_former_file(tmp_path / "var", keys)
    with pytest.raises(ConfigurationException, match=f"A signing key in {path} is damaged"):
        await open_ring(database, tmp_path)
    assert path.exists()
    assert await private_halves(database) == {}


async def test_reseal_keeps_the_keys(database: Database, tmp_path: Path, now: datetime) -> None:
    ring = await open_ring(database, tmp_path)
    await rotate(ring, now)
    before = await private_halves(database)
    await reseal(database, former=SECRET, new=NEW, actor=OPERATOR)
    with pytest.raises(ConfigurationException, match="This process has another secret"):
        await open_ring(database, tmp_path)
    again = await open_key_ring(make_settings(tmp_path), database, NEW)
    assert published(again, now) == published(ring, now)
    assert again.signing_key(now).private_pem == ring.signing_key(now).private_pem
    after = await private_halves(database)
    assert after.keys() == before.keys()
    assert set(after.values()) & set(before.values()) == set()
    assert (await audited(database))[0] == (AuditAction.SIGNING_KEYS_RESEALED, {"keys": "kept"})


async def test_process_with_the_former_secret_still_verifies_but_changes_nothing(
    database: Database, tmp_path: Path, now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    ring = await open_ring(database, tmp_path)
    kid = ring.signing_key(now).kid
    await reseal(database, former=SECRET, new=NEW, actor=OPERATOR)
    for _ in range(2):
        await ring.refresh()
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [message.partition(". ")[0] for message in told] == [
        "signing keys not refreshed: The secret of this installation has changed"
    ]
    assert ring.verification_key(kid, now) is not None
    for at_once in (False, True):
        with pytest.raises(ConfigurationException, match="Restart this process"):
            await rotate(ring, now, at_once=at_once)
    assert published(await open_key_ring(make_settings(tmp_path), database, NEW), now) == [kid]


async def test_reseal_with_a_wrong_former_secret_changes_nothing(
    database: Database, tmp_path: Path, now: datetime
) -> None:
    ring = await open_ring(database, tmp_path)
    with pytest.raises(ConfigurationException, match="The former secret is not the secret"):
        await reseal(database, former=NEW, new=NEW, actor=OPERATOR)
    assert published(await open_ring(database, tmp_path), now) == published(ring, now)


async def test_reseal_without_the_former_secret_replaces_the_keys(
    database: Database, tmp_path: Path, now: datetime
) -> None:
    lost = (await open_ring(database, tmp_path)).signing_key(now).kid
    await reseal(database, former=None, new=NEW, actor=OPERATOR)
    ring = await open_key_ring(make_settings(tmp_path), database, NEW)
    assert ring.signing_key(clock.now()).kid != lost
    assert await ring.find_verification_key(lost, now) is None
    assert (await private_halves(database))[lost] is None
    assert (await audited(database))[0] == (AuditAction.SIGNING_KEYS_RESEALED, {"keys": "replaced"})


async def test_reseal_fails_without_an_installation(database: Database) -> None:
    with pytest.raises(ConfigurationException, match="nothing to reseal"):
        await reseal(database, former=SECRET, new=NEW, actor=OPERATOR)


@pytest.mark.parametrize("column", ["sealed_pem = 'AAAA'", "kid = 'stranger'"])
async def test_process_does_not_start_with_a_damaged_key(database: Database, tmp_path: Path, column: str) -> None:
    ring = await open_ring(database, tmp_path)
    await database.write(lambda data: data.connection.execute(text(f"UPDATE signing_keys SET {column}")))
    with pytest.raises(ConfigurationException, match="table signing_keys is damaged"):
        await open_ring(database, tmp_path)
    await reseal(database, former=None, new=SECRET, actor=OPERATOR)
    await ring.refresh()
    again = await open_key_ring(make_settings(tmp_path), database, SECRET)
    assert len(published(again, clock.now())) == 1
