"""Heartbeats: the serving processes, and a warning if they count requests separately."""

import logging
import os
from datetime import timedelta

import pytest

from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.processes import ALIVE, KEPT, Heartbeat, list_serving

LOGGER = "pixyproxy.service.processes"


async def shift(database: Database, heartbeat: Heartbeat, **times: timedelta) -> None:
    """Move the times of a process into the past."""

    def work(data: Repositories) -> None:
        known = {each.guid: each for each in data.processes.list_seen(since=data.processes.now() - KEPT)}
        process = known[heartbeat.guid]
        data.processes.delete(process.guid)
        data.processes.insert(
            process.model_copy(update={name: getattr(process, name) - past for name, past in times.items()})
        )

    await database.write(work)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of the warnings."""
    return [each.message for each in caplog.records if (each.name, each.levelno) == (LOGGER, logging.WARNING)]


@pytest.mark.anyio
async def test_process_is_listed_until_it_stops(database: Database) -> None:
    heartbeat = Heartbeat(database, redis=True)
    for _ in range(2):
        await heartbeat.beat()
    (process,) = await list_serving(database)
    assert (process.guid, process.pid, process.serves, process.executes) == (heartbeat.guid, os.getpid(), True, True)
    await heartbeat.stop()
    assert await list_serving(database) == []


@pytest.mark.anyio
async def test_second_serving_process_without_redis_is_warned_about_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = Heartbeat(database, redis=False), Heartbeat(database, redis=False)
    await one.beat()
    await shift(database, one, started_at=timedelta(seconds=1))
    assert warnings(caplog) == []
    await two.beat()
    for _ in range(3):
        await one.beat()
    (message,) = warnings(caplog)
    assert f"pid {os.getpid()}" in message
    assert "PIXYPROXY_REDIS_URL" in message
    await two.stop()
    await one.beat()
    await two.beat()
    await one.beat()
    assert len(warnings(caplog)) == 2


@pytest.mark.anyio
async def test_no_warning_with_redis_or_without_serving(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    beats = [Heartbeat(database, redis=True), Heartbeat(database, redis=True)]
    beats += [Heartbeat(database, redis=False, serves=False)]
    for heartbeat in beats * 2:
        await heartbeat.beat()
        await shift(database, heartbeat, started_at=timedelta(seconds=1))
    assert warnings(caplog) == []
    assert len(await list_serving(database)) == 2


@pytest.mark.anyio
async def test_crashed_process_causes_no_warning_and_is_deleted(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    crashed, next_one = Heartbeat(database, redis=False), Heartbeat(database, redis=False)
    await crashed.beat()
    await shift(database, crashed, seen_at=timedelta(seconds=1))
    for _ in range(2):
        await next_one.beat()
    assert warnings(caplog) == []
    await shift(database, crashed, seen_at=ALIVE)
    assert [each.guid for each in await list_serving(database)] == [next_one.guid]
    await shift(database, crashed, seen_at=KEPT - ALIVE)
    await next_one.beat()
    left = await database.read(lambda data: data.processes.list_seen(since=data.processes.now() - 2 * KEPT))
    assert [each.guid for each in left] == [next_one.guid]
