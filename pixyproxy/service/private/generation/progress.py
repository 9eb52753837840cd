"""What this process executes, and what is followed in it: whoever follows a generation is told when to look again."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

from pixyproxy.core.exceptions import PixyProxyException
from pixyproxy.core.models.generation import (
    Generation,
    GenerationChange,
    GenerationGuid,
    GenerationStatus,
    GenerationWithImages,
)
from pixyproxy.core.models.tenant import TenantId

Key = TypeVar("Key")
AnyFollowed = TypeVar("AnyFollowed", bound="Followed")
NOTICEABLE = 4
"""A position is told again when about this part of those in front are gone."""


@dataclass
class Execution:
    """A generation that this process has a place at an upstream for.

    ``began`` is when the transaction began that gave it the place (``time.monotonic``). ``asked``: the upstream has
    been, or is being, asked, so that it may have done the work. ``handed_over``: another generation has its place in
    this process. ``outcome`` is set once: the pictures, the generation's error as an exception, or None where the table
    has to be looked at.
    """

    generation: Generation
    began: float
    status: GenerationStatus = GenerationStatus.CALLING
    asked: bool = False
    handed_over: bool = False
    outcome: "asyncio.Future[GenerationWithImages | None]" = field(default_factory=asyncio.Future)

    def succeed(self, stored: GenerationWithImages | None) -> None:
        """Give the pictures to all who wait for them; None: they are to look at the table."""
        if not self.outcome.done():
            self.outcome.set_result(stored)

    def fail(self, error: PixyProxyException) -> None:
        """Give an error to all who wait, though the work on it may go on."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            # Nobody has to wait for it.
            self.outcome.exception()


@dataclass(eq=False)
class Followed:
    """A generation that somebody follows here. ``count`` grows with everything that is new."""

    followers: int = 0
    version: int | None = None
    position: int | None = None
    count: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Tell those who follow that there is something new."""
        self.count += 1
        self.changed.set()
        self.changed = asyncio.Event()

    async def wait(self, count: int, seconds: float | None = None) -> None:
        """Return when there is something newer than ``count``, or the time is over."""
        if self.count <= count:
            await wait_at_most(self.changed, seconds)


@dataclass(eq=False)
class FollowedTenant(Followed):
    """A tenant all of whose generations somebody follows here.

    ``changes`` is how those stood that were not over, or new, at ``looked_at`` (seconds since 1970; None: not yet).
    """

    changes: list[GenerationChange] = field(default_factory=list)
    looked_at: float | None = None

    @property
    def looked_at_second(self) -> int:
        """The whole second of the last look."""
        return int(self.looked_at or 0)

    def note(self, changes: list[GenerationChange], looked_at: float) -> None:
        """Note how the generations stand; the followers are notified if that is new."""
        self.looked_at = looked_at
        if changes != self.changes:
            self.changes = changes
            self.tell()


@dataclass(frozen=True)
class Progress:
    """The generations that are executed in this process, by their GUIDs, and what is followed in it."""

    executions: dict[GenerationGuid, Execution] = field(default_factory=dict)
    followed: dict[GenerationGuid, Followed] = field(default_factory=dict)
    publish: Callable[[str], None] = lambda _: None
    """What tells the other processes, after a COMMIT, that there is something new."""
    tenants: dict[TenantId, FollowedTenant] = field(default_factory=dict)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, execution: Execution) -> None:
        """Note what this process executes from now on."""
        self.executions[execution.generation.guid] = execution
        self.announce(execution.generation.guid)

    def end(self, execution: Execution) -> None:
        """Note that this process does not execute it any more; who has no answer yet looks at the table."""
        if self.executions.get(execution.generation.guid) is execution:
            del self.executions[execution.generation.guid]
        execution.succeed(None)
        self.announce(execution.generation.guid)

    def tell(self, guid: GenerationGuid) -> None:
        """Tell those who follow a generation that there is something new."""
        if (followed := self.followed.get(guid)) is not None:
            followed.tell()

    def announce(self, guid: GenerationGuid) -> None:
        """Tell those who follow a generation, here and elsewhere, that there is something new."""
        self.tell(guid)
        self.publish(guid)

    def wake(self, guid: str) -> None:
        """Have the next look at once, if somebody follows this generation here and it is executed elsewhere."""
        if guid in self.followed and guid not in self.executions:
            self._woken.set()

    def follow(self, guid: GenerationGuid) -> AbstractContextManager[Followed]:
        """What tells of changes for as long as the block lasts."""
        return _follow(self.followed, guid, Followed)

    def follow_tenant(self, tenant_id: TenantId) -> AbstractContextManager[FollowedTenant]:
        """Follow all generations of a tenant for as long as the block lasts."""
        return _follow(self.tenants, tenant_id, FollowedTenant)

    async def pause(self, seconds: float) -> None:
        """Wait for the time of the next look, or until woken."""
        await wait_at_most(self._woken, seconds)
        self._woken.clear()

    @property
    def followed_elsewhere(self) -> list[GenerationGuid]:
        """What is followed here and not executed here."""
        return [guid for guid in self.followed if guid not in self.executions]

    def note(self, guid: GenerationGuid, version: int, position: int | None) -> None:
        """Note how a generation stands in the table; who follows it is told of what is new.

        Far behind, changes of the position by a quarter are; near the front each one is. The first look is always told:
        the generation may have changed between its follower's own look and this one.
        """
        followed = self.followed.get(guid)
        if followed is None:
            return
        moved = has_moved(followed.position, position)
        if moved or followed.version != version:
            followed.tell()
        if moved:
            followed.position = position
        followed.version = version


async def wait_at_most(event: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set, or the time is over; None: never before it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def has_moved(former: int | None, position: int | None) -> bool:
    """Whether a position differs so much from one that was told that it is told again."""
    return former != position and (former is None or position is None or former - position >= former // NOTICEABLE)


@contextlib.contextmanager
def _follow(table: dict[Key, AnyFollowed], key: Key, new: Callable[[], AnyFollowed]) -> Iterator[AnyFollowed]:
    followed = table.get(key)
    if followed is None:
        followed = table[key] = new()
    followed.followers += 1
    try:
        yield followed
    finally:
        followed.followers -= 1
        if not followed.followers:
            del table[key]
