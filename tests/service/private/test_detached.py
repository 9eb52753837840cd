"""Detached tasks outlive their caller and finish before their server stops."""

import asyncio
import logging

import pytest

from pixyproxy.service.private.detached import DetachedTasks

pytestmark = pytest.mark.anyio


class _Work:
    """Work that a test releases and whose completion it sees."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.ended: str | None = None

    async def __call__(self) -> str:
        self.begun.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "done"
        return "result"


@pytest.fixture
def tasks() -> DetachedTasks:
    return DetachedTasks()


async def test_caller_gets_the_result(tasks: DetachedTasks) -> None:
    work = _Work()
    work.gate.set()
    assert await tasks.run(work()) == "result"
    assert not tasks.running


async def test_caller_gets_the_exception(tasks: DetachedTasks) -> None:
    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await tasks.run(fail())
    assert not tasks.running


async def test_cancelling_the_caller_does_not_cancel_the_work(tasks: DetachedTasks) -> None:
    work = _Work()
    caller = asyncio.create_task(tasks.run(work()))
    await work.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert len(tasks.running) == 1
    work.gate.set()
    await tasks.drain(20)
    assert work.ended == "done"


async def test_unawaited_failure_is_not_logged(tasks: DetachedTasks, caplog: pytest.LogCaptureFixture) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        begun.set()
        await gate.wait()
        raise LookupError

    caller = asyncio.create_task(tasks.run(fail()))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gate.set()
    await tasks.drain(20)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_drain_waits_for_running_work(tasks: DetachedTasks) -> None:
    work = _Work()
    caller = asyncio.create_task(tasks.run(work()))
    await work.begun.wait()
    draining = asyncio.create_task(tasks.drain(20))
    await asyncio.sleep(0)
    assert not draining.done()
    work.gate.set()
    await draining
    assert work.ended == "done"
    assert await caller == "result"


async def test_drain_cancels_work_at_its_deadline(tasks: DetachedTasks) -> None:
    work = _Work()
    caller = asyncio.create_task(tasks.run(work()))
    await work.begun.wait()
    await tasks.drain(0)
    assert work.ended == "cancelled"
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not tasks.running


async def test_drain_without_tasks_returns_immediately(tasks: DetachedTasks) -> None:
    draining = asyncio.create_task(tasks.drain(3600))
    for _ in range(3):
        await asyncio.sleep(0)
    assert draining.done()


async def test_drain_waits_for_tasks_started_by_the_work(tasks: DetachedTasks) -> None:
    second = _Work()

    async def start_second() -> None:
        await asyncio.sleep(0)
        tasks.start(second())

    tasks.start(start_second())
    draining = asyncio.create_task(tasks.drain(60))
    await second.begun.wait()
    second.gate.set()
    await draining
    assert second.ended == "done"
    assert not tasks.running
