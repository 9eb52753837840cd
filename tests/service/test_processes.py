"""Heartbeats: who serves, and a warning where request limits are counted apart."""

import logging
import os
from datetime import timedelta

import pytest

from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.processes import ALIVE, KEPT, Heartbeat, list_serving

LOGGER = "pixyproxy.service.processes"


async def shift(database: Database, heartbeat: Heartbeat, **times: timedelta) -> None:
    """Move times of a process into the past."""

    def work(data: Repositories) -> None:
        known = {each.guid: each for each in data.processes.list_seen(since=data.processes.now() - KEPT)}
        process = known[heartbeat.guid]
        data.processes.delete(process.guid)
        data.processes.insert(
            process.model_copy(update={name: getattr(process, name) - past for name, past in times.items()})
        )

    await database.write(work)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of warnings."""
    return [each.message for each in caplog.records if (each.name, each.levelno) == (LOGGER, logging.WARNING)]


@pytest.mark.anyio
async def test_a_process_is_there_until_it_stops(database: Database) -> None:
    heartbeat = Heartbeat(database, redis=True)
    for _ in range(2):
        await heartbeat.beat()
    (process,) = await list_serving(database)
    assert (process.guid, process.pid, process.serves, process.executes) == (heartbeat.guid, os.getpid(), True, True)
    await heartbeat.stop()
    assert await list_serving(database) == []


@pytest.mark.anyio
async def test_a_second_one_that_serves_without_redis_is_warned_of_once(
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
async def test_with_redis_or_without_serving_nothing_is_warned_of(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    beats = [Heartbeat(database, redis=True), Heartbeat(database, redis=True)]
    beats += [Heartbeat(database, redis=False, serves=False)]
    for heartbeat in beats * 2:
        await heartbeat.beat()
        await shift(database, heartbeat, started_at=timedelta(seconds=1))
    assert warnings(caplog) == []
    assert len(await list_serving(database)) == 2


@pytest.mark.anyio
async def test_a_process_that_crashed_is_no_cause_for_a_warning_and_is_forgotten(
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
