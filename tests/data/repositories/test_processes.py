"""The ``processes`` repository."""

import uuid
from datetime import timedelta

from pixyproxy.core import clock
from pixyproxy.core.models.generation import ProcessGuid
from pixyproxy.core.models.process import Process
from pixyproxy.data.database import Repositories
from tests.support.builders import LATER, MOMENT

SECOND = timedelta(seconds=1)


def _add(data: Repositories, **changes: object) -> Process:
    process = Process(
        guid=ProcessGuid(str(uuid.uuid4())),
        host="web1",
        pid=4711,
        serves=True,
        executes=False,
        redis=True,
        started_at=MOMENT,
        seen_at=LATER,
    ).model_copy(update=changes)
    data.processes.insert(process)
    return process


def test_every_column_round_trips(data: Repositories) -> None:
    added = [_add(data), _add(data, started_at=MOMENT + SECOND, serves=False, executes=True, redis=False)]
    assert data.processes.list_seen(since=LATER) == added


def test_touch_updates_only_an_existing_process(data: Repositories) -> None:
    process = _add(data)
    assert data.processes.touch(process.guid, seen_at=LATER + SECOND) is True
    assert data.processes.touch(ProcessGuid("absent"), seen_at=LATER + SECOND) is False
    assert data.processes.list_seen(since=LATER) == [process.model_copy(update={"seen_at": LATER + SECOND})]


def test_unseen_processes_are_not_listed_and_removed(data: Repositories) -> None:
    unseen, seen = _add(data, seen_at=LATER - SECOND), _add(data)
    assert data.processes.list_seen(since=LATER) == [seen]
    data.processes.delete_unseen(before=LATER)
    assert data.processes.list_seen(since=unseen.seen_at) == [seen]
    data.processes.delete(seen.guid)
    assert data.processes.list_seen(since=unseen.seen_at) == []


def test_database_time_is_in_utc(data: Repositories) -> None:
    assert abs(data.processes.now() - clock.now()) < timedelta(minutes=1)
