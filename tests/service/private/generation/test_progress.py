"""Followers are notified of every change, and of noticeable moves in the queue."""

import asyncio

import pytest

from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.service.private.generation.progress import Progress

pytestmark = pytest.mark.anyio
GUID = GenerationGuid("g")


def _told(progress: Progress, version: int, position: int | None) -> bool:
    """Return whether a poll of the row notifies the followers."""
    followed = progress.followed[GUID]
    before = followed.count
    progress.note(GUID, version, position)
    return followed.count > before


def test_first_poll_always_notifies() -> None:
    """A follower may have read the row just before it changed."""
    progress = Progress()
    with progress.follow(GUID):
        assert _told(progress, 7, None)
        assert not _told(progress, 7, None)


def test_each_new_version_notifies_once() -> None:
    progress = Progress()
    with progress.follow(GUID):
        _told(progress, 0, None)
        assert [_told(progress, version, None) for version in (1, 1, 3, 3)] == [True, False, True, False]


def test_front_moves_always_notify_and_others_after_a_quarter() -> None:
    progress = Progress()
    with progress.follow(GUID):
        told = [position for position in range(1000, 0, -1) if _told(progress, 0, position)]
        assert _told(progress, 0, None)
    assert told[0] == 1000
    assert told[-4:] == [4, 3, 2, 1]
    assert 10 < len(told) < 30


def test_unchanged_position_does_not_notify() -> None:
    progress = Progress()
    with progress.follow(GUID):
        _told(progress, 0, 5)
        assert not _told(progress, 0, 5)


async def test_any_of_several_followers_may_stop() -> None:
    progress = Progress()

    async def follow() -> int:
        with progress.follow(GUID) as followed:
            await followed.wait(followed.count)
            return followed.count

    following = [asyncio.create_task(follow()) for _ in range(3)]
    await asyncio.sleep(0)
    following[0].cancel()
    await asyncio.wait(following[:1])
    progress.notify(GUID)
    assert await asyncio.gather(*following[1:]) == [1, 1]
    assert progress.followed == {}


async def test_wait_returns_at_once_after_an_unseen_change() -> None:
    progress = Progress()
    with progress.follow(GUID) as followed:
        seen = followed.count
        progress.notify(GUID)
        async with asyncio.timeout(20):
            await followed.wait(seen)
        # A wait without a change times out.
        await followed.wait(followed.count, 0)
        assert followed.count == seen + 1
