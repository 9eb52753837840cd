"""Work that outlives its caller, and ends before its server does."""

import asyncio
import logging

import pytest

from pixyproxy.service.private.detached import DetachedTasks

pytestmark = pytest.mark.anyio


class _Work:
    """Work that a test lets go on, and whose end it sees."""

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


async def test_a_caller_gets_the_result(tasks: DetachedTasks) -> None:
    work = _Work()
    work.gate.set()
    assert await tasks.run(work()) == "result"
    assert not tasks.running


async def test_a_caller_gets_the_exception(tasks: DetachedTasks) -> None:
    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await tasks.run(fail())
    assert not tasks.running


async def test_a_caller_that_is_cancelled_does_not_cancel_the_work(tasks: DetachedTasks) -> None:
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


async def test_a_failure_that_nobody_waits_for_is_no_noise(
    tasks: DetachedTasks, caplog: pytest.LogCaptureFixture
) -> None:
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


async def test_draining_waits_for_the_work(tasks: DetachedTasks) -> None:
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


async def test_draining_cancels_what_takes_too_long(tasks: DetachedTasks) -> None:
    work = _Work()
    caller = asyncio.create_task(tasks.run(work()))
    await work.begun.wait()
    await tasks.drain(0)
    assert work.ended == "cancelled"
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not tasks.running


async def test_draining_nothing_is_over_at_once(tasks: DetachedTasks) -> None:
    draining = asyncio.create_task(tasks.drain(3600))
    for _ in range(3):
        await asyncio.sleep(0)
    assert draining.done()


async def test_what_the_work_starts_is_waited_for_as_well(tasks: DetachedTasks) -> None:
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
