"""Who follows a generation is told when to look again: of all that is new, and of noticeable moves in the queue."""

import asyncio

import pytest

from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.service.private.generation.progress import Progress

pytestmark = pytest.mark.anyio
GUID = GenerationGuid("g")


def _told(progress: Progress, version: int, position: int | None) -> bool:
    """Whether a look at the row tells those who follow."""
    followed = progress.followed[GUID]
    before = followed.count
    progress.note(GUID, version, position)
    return followed.count > before


def test_the_first_look_tells_since_it_may_be_over_by_then() -> None:
    """Whoever follows has read the row before, maybe just before it changed."""
    progress = Progress()
    with progress.follow(GUID):
        assert _told(progress, 7, None)
        assert not _told(progress, 7, None)


def test_each_new_version_is_told_once() -> None:
    progress = Progress()
    with progress.follow(GUID):
        _told(progress, 0, None)
        assert [_told(progress, version, None) for version in (1, 1, 3, 3)] == [True, False, True, False]


def test_near_the_front_each_move_is_told_and_far_behind_those_by_a_quarter() -> None:
    progress = Progress()
    with progress.follow(GUID):
        told = [position for position in range(1000, 0, -1) if _told(progress, 0, position)]
        assert _told(progress, 0, None)
    assert told[0] == 1000
    assert told[-4:] == [4, 3, 2, 1]
    assert 10 < len(told) < 30


def test_what_does_not_move_is_not_told_of() -> None:
    progress = Progress()
    with progress.follow(GUID):
        _told(progress, 0, 5)
        assert not _told(progress, 0, 5)


async def test_many_follow_one_and_any_of_them_may_stop() -> None:
    progress = Progress()

    async def follow() -> int:
        with progress.follow(GUID) as followed:
            await followed.wait(followed.count)
            return followed.count

    following = [asyncio.create_task(follow()) for _ in range(3)]
    await asyncio.sleep(0)
    following[0].cancel()
    await asyncio.wait(following[:1])
    progress.tell(GUID)
    assert await asyncio.gather(*following[1:]) == [1, 1]
    assert progress.followed == {}


async def test_a_wait_ends_at_once_where_something_is_newer_than_what_was_seen() -> None:
    progress = Progress()
    with progress.follow(GUID) as followed:
        seen = followed.count
        progress.tell(GUID)
        async with asyncio.timeout(20):
            await followed.wait(seen)
        # And in time where nothing is.
        await followed.wait(followed.count, 0)
        assert followed.count == seen + 1
