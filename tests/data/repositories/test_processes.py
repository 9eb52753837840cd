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


def test_every_column_comes_back_as_it_went_in(data: Repositories) -> None:
    added = [_add(data), _add(data, started_at=MOMENT + SECOND, serves=False, executes=True, redis=False)]
    assert data.processes.list_seen(since=LATER) == added


def test_only_a_process_that_is_there_is_touched(data: Repositories) -> None:
    process = _add(data)
    assert data.processes.touch(process.guid, seen_at=LATER + SECOND) is True
    assert data.processes.touch(ProcessGuid("absent"), seen_at=LATER + SECOND) is False
    assert data.processes.list_seen(since=LATER) == [process.model_copy(update={"seen_at": LATER + SECOND})]


def test_processes_that_were_not_seen_are_left_out_and_removed(data: Repositories) -> None:
    unseen, seen = _add(data, seen_at=LATER - SECOND), _add(data)
    assert data.processes.list_seen(since=LATER) == [seen]
    data.processes.delete_unseen(before=LATER)
    assert data.processes.list_seen(since=unseen.seen_at) == [seen]
    data.processes.delete(seen.guid)
    assert data.processes.list_seen(since=unseen.seen_at) == []


def test_the_time_is_that_of_the_database_in_utc(data: Repositories) -> None:
    assert abs(data.processes.now() - clock.now()) < timedelta(minutes=1)
