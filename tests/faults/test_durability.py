"""On every path of a picture, each step is durable before the next one starts: a power cut loses nothing."""

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pixyproxy.core.exceptions import RecordPendingException, UpstreamSilentException
from pixyproxy.core.models.generation import Generation, GenerationGuid
from pixyproxy.core.models.order import NewOrder
from pixyproxy.core.models.principal import Principal
from pixyproxy.data.database import Database
from pixyproxy.data.files.durable import write_durably
from pixyproxy.data.files.spool import SpoolFolder
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.private.generation.inputs import Upload
from pixyproxy.service.private.images import ImageEditor
from tests.faults.recorded_disk import RecordedDisk, recorded_disk
from tests.service.private.conftest import FailingDatabase, Outage
from tests.service.private.processes import Process, start_process
from tests.support.builders import add_tenant, principal_of
from tests.support.drawing import FakeDrawer
from tests.support.pictures import png

pytestmark = pytest.mark.anyio
PICTURE = png(32, 16)


@pytest.fixture
def backend() -> str:
    """Return one kind of database: the files are the same with either."""
    return "sqlite"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[RecordedDisk]:
    """Yield the disk of spool and store."""
    with recorded_disk(tmp_path) as disk:
        yield disk


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Return an empty picture store."""
    return LocalStore(tmp_path / "images", room_bytes=1)


@pytest.fixture
def drawer() -> FakeDrawer:
    """Return the upstream."""
    return FakeDrawer()


@pytest.fixture
def outage() -> Outage:
    """Return the outage of the first process's database."""
    return Outage()


@pytest.fixture
async def process(
    database: Database, outage: Outage, store: LocalStore, drawer: FakeDrawer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Process]:
    """Yield the process that gets the order, and that waits for nothing when it stops."""
    monkeypatch.setattr("pixyproxy.service.private.detached.LEAST_SECONDS", 0)
    shaky = FailingDatabase(database.engine, database.slots, database.writers, database.wait_seconds, outage=outage)
    started = await start_process(shaky, store, drawer.pooled())
    yield started
    await started.stop()


@pytest.fixture
async def other(database: Database, store: LocalStore, drawer: FakeDrawer) -> AsyncIterator[Process]:
    """Yield another process of this machine."""
    started = await start_process(database, store, drawer.pooled())
    yield started
    await started.stop()


@pytest.fixture
async def principal(database: Database) -> Principal:
    """Return the principal of the orders."""
    return principal_of(await database.write(add_tenant))


async def order(process: Process, principal: Principal, *, count: int) -> GenerationGuid:
    """Order pictures, with previews and with input pictures."""
    uploads = [Upload(field="image", content=io.BytesIO(PICTURE)) for _ in range(2)]
    wanted = NewOrder(prompt="a red fox", count=count, previews=2)
    return (await process.submit(wanted, principal=principal, uploads=uploads)).guid


def assert_kept_durably(disk: RecordedDisk, folder: SpoolFolder, generation: Generation, store: LocalStore) -> None:
    """Assert the order of all steps that moved a generation's pictures through a spool folder into the store."""
    entry = folder.path / f"{generation.guid}.json"
    written = disk.source_of(entry)
    disk.assert_order(("write", written), ("fsync", written), ("replace", entry))
    guids = generation.image_guids[: generation.image_count]
    assert len(guids) > 0
    for index, guid in enumerate(guids):
        picture, stored = folder.picture(generation.guid, index), store.path(guid, "image/png")
        disk.assert_order(
            ("mkdir", folder.path),
            ("fsync", folder.path.parent),
            ("write", picture),
            ("fsync", picture),
            ("replace", entry),
            ("fsync", folder.path),
            ("replace", stored),
            ("fsync", stored.parent),
            ("unlink", entry),
        )
        disk.assert_order(("mkdir", stored.parent), ("fsync", store.folder), ("unlink", entry))
    for index in range(2):
        given = store.orders.input(generation.guid, index)
        disk.assert_order(
            ("mkdir", given.parent), ("fsync", given.parent.parent), ("fsync", given), ("fsync", given.parent)
        )
        disk.assert_order(("fsync", given.parent), ("replace", entry))


@pytest.mark.parametrize(
    ("ordered", "error", "received"),
    [(1, None, 1), (3, None, 3), (3, UpstreamSilentException(), 2)],
    ids=["one", "several", "broken off"],
)
async def test_pictures_are_stored_in_durable_steps(  # noqa: PLR0913, PLR0917  (a table, and where it happens)
    process: Process,
    principal: Principal,
    drawer: FakeDrawer,
    disk: RecordedDisk,
    ordered: int,
    error: Exception | None,
    received: int,
) -> None:
    drawer.error, drawer.given = error, received
    guid = await order(process, principal, count=ordered)
    await process.finish()
    stored = await process.generation(guid)
    assert stored.image_count == received
    assert_kept_durably(disk, process.spool.own, stored, process.store)


async def test_pictures_are_copied_to_another_file_system_in_durable_steps(
    process: Process, principal: Principal, disk: RecordedDisk, store: LocalStore
) -> None:
    disk.mounted = (store.folder,)
    guid = await order(process, principal, count=2)
    await process.finish()
    generation = await process.generation(guid)
    assert_kept_durably(disk, process.spool.own, generation, store)
    assert len(generation.image_guids) == 2
    for index, image in enumerate(generation.image_guids):
        stored = store.path(image, "image/png")
        copy = disk.source_of(stored)
        disk.assert_order(
            ("write", copy),
            ("fsync", copy),
            ("replace", stored),
            ("fsync", stored.parent),
            ("unlink", process.spool.own.picture(guid, index)),
        )


async def test_pictures_that_could_not_be_moved_are_recovered_in_durable_steps(  # noqa: PLR0913, PLR0917
    process: Process,
    other: Process,
    principal: Principal,
    drawer: FakeDrawer,
    disk: RecordedDisk,
    store: LocalStore,
) -> None:
    drawer.close_gate()
    guid = await order(process, principal, count=2)
    await drawer.drawing.wait()
    generation = await process.generation(guid)
    in_the_way = store.path(generation.image_guids[0], "image/png").parent
    in_the_way.write_text("in the way")
    await stop_before_the_record(process, drawer, principal, guid)
    in_the_way.unlink()
    await other.recovery.recover()
    assert_kept_durably(disk, process.spool.own, await process.generation(guid), store)


async def test_moved_but_unrecorded_pictures_are_recovered_in_durable_steps(  # noqa: PLR0913, PLR0917
    process: Process, other: Process, principal: Principal, drawer: FakeDrawer, disk: RecordedDisk, outage: Outage
) -> None:
    drawer.close_gate()
    guid = await order(process, principal, count=2)
    await drawer.drawing.wait()
    outage.lasts = True
    await stop_before_the_record(process, drawer, principal, guid)
    outage.lasts = False
    await other.recovery.recover()
    assert_kept_durably(disk, process.spool.own, await process.generation(guid), process.store)


async def stop_before_the_record(
    process: Process, drawer: FakeDrawer, principal: Principal, guid: GenerationGuid
) -> None:
    """Let the upstream answer, and stop the process once the callers know that the record is delayed."""
    drawer.open_gate()
    with pytest.raises(RecordPendingException):
        await process.watcher.outcome(guid, tenant_id=principal.tenant_id, seconds=20)
    await process.stop()


async def test_a_picture_of_a_deleted_generation_is_removed_durably_before_its_entry(
    process: Process, principal: Principal, drawer: FakeDrawer, disk: RecordedDisk
) -> None:
    drawer.close_gate()
    guid = await order(process, principal, count=1)
    (image,) = (await process.generation(guid)).image_guids
    await drawer.drawing.wait()
    await process.database.write(lambda data: data.connection.exec_driver_sql("DELETE FROM generations"))
    drawer.open_gate()
    await process.finish()
    removed = process.store.path(image, "image/png")
    entry = process.spool.own.path / f"{guid}.json"
    disk.assert_order(("replace", removed), ("unlink", removed), ("fsync", removed.parent), ("unlink", entry))


async def test_a_picture_is_removed_durably(
    process: Process, principal: Principal, disk: RecordedDisk, store: LocalStore
) -> None:
    (image,) = (await process.make(principal=principal)).images
    await process.finish()
    await ImageEditor(process.database, store).delete_image(image.guid, principal=principal)
    removed = store.path(image.guid, image.media_type)
    disk.assert_order(("replace", removed), ("unlink", removed), ("fsync", removed.parent))


def test_a_file_is_written_in_durable_steps(disk: RecordedDisk, tmp_path: Path) -> None:
    path = tmp_path / "root" / "ab" / "picture.png"
    write_durably(path, [PICTURE, PICTURE], root=tmp_path / "root")
    written = disk.source_of(path)
    disk.assert_order(
        ("mkdir", path.parent),
        ("fsync", path.parent.parent),
        ("write", written),
        ("fsync", written),
        ("replace", path),
        ("fsync", path.parent),
    )
