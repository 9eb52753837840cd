"""What this process executes and follows; followers of a generation are notified when to poll it again."""

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
"""Report a position again when about this fraction of the orders in front is gone."""


@dataclass
class Execution:
    """A generation with a slot of this process at an upstream.

    ``began`` is when the transaction started that gave it the slot (``time.monotonic``). ``asked``: the call has
    started, so the upstream may have done the work. ``handed_over``: another generation has its slot in
    this process. ``outcome`` is set once: the pictures, the generation's error as an exception, or None if the row must
    be read.
    """

    generation: Generation
    began: float
    status: GenerationStatus = GenerationStatus.CALLING
    asked: bool = False
    handed_over: bool = False
    outcome: "asyncio.Future[GenerationWithImages | None]" = field(default_factory=asyncio.Future)

    def succeed(self, stored: GenerationWithImages | None) -> None:
        """Return the pictures to all waiting callers; None makes them read the row."""
        if not self.outcome.done():
            self.outcome.set_result(stored)

    def fail(self, error: PixyProxyException) -> None:
        """Raise an error in all waiting callers; the work may go on."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            # Mark the exception as retrieved: there may be no waiting caller.
            self.outcome.exception()


@dataclass(eq=False)
class Followed:
    """A generation that is followed in this process. ``count`` grows with every change."""

    followers: int = 0
    version: int | None = None
    position: int | None = None
    count: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def notify(self) -> None:
        """Notify the followers of a change."""
        self.count += 1
        self.changed.set()
        self.changed = asyncio.Event()

    async def wait(self, count: int, seconds: float | None = None) -> None:
        """Return when there is a change newer than ``count``, or the time has passed."""
        if self.count <= count:
            await wait_at_most(self.changed, seconds)


@dataclass(eq=False)
class FollowedTenant(Followed):
    """A tenant whose generations are all followed in this process.

    ``changes`` are its open and recently finished generations at ``looked_at`` (seconds since 1970; None: not polled
    yet).
    """

    changes: list[GenerationChange] = field(default_factory=list)
    looked_at: float | None = None

    @property
    def looked_at_second(self) -> int:
        """The whole second of the last poll."""
        return int(self.looked_at or 0)

    def note(self, changes: list[GenerationChange], looked_at: float) -> None:
        """Store the state of the generations; notify the followers if it changed."""
        self.looked_at = looked_at
        if changes != self.changes:
            self.changes = changes
            self.notify()


@dataclass(frozen=True)
class Progress:
    """The generations that this process executes, by GUID, and those that it follows."""

    executions: dict[GenerationGuid, Execution] = field(default_factory=dict)
    followed: dict[GenerationGuid, Followed] = field(default_factory=dict)
    publish: Callable[[str], None] = lambda _: None
    """Notifies the other processes of a change, after its COMMIT."""
    tenants: dict[TenantId, FollowedTenant] = field(default_factory=dict)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, execution: Execution) -> None:
        """Register a generation that this process executes."""
        self.executions[execution.generation.guid] = execution
        self.announce(execution.generation.guid)

    def end(self, execution: Execution) -> None:
        """Unregister a generation; callers without an outcome read the row."""
        if self.executions.get(execution.generation.guid) is execution:
            del self.executions[execution.generation.guid]
        execution.succeed(None)
        self.announce(execution.generation.guid)

    def notify(self, guid: GenerationGuid) -> None:
        """Notify the followers of a generation in this process."""
        if (followed := self.followed.get(guid)) is not None:
            followed.notify()

    def announce(self, guid: GenerationGuid) -> None:
        """Notify the followers of a generation in all processes."""
        self.notify(guid)
        self.publish(guid)

    def wake(self, guid: str) -> None:
        """Poll immediately if this generation is followed here and executed elsewhere."""
        if guid in self.followed and guid not in self.executions:
            self._woken.set()

    def follow(self, guid: GenerationGuid) -> AbstractContextManager[Followed]:
        """Follow a generation for as long as the block lasts."""
        return _follow(self.followed, guid, Followed)

    def follow_tenant(self, tenant_id: TenantId) -> AbstractContextManager[FollowedTenant]:
        """Follow all generations of a tenant for as long as the block lasts."""
        return _follow(self.tenants, tenant_id, FollowedTenant)

    async def pause(self, seconds: float) -> None:
        """Wait for the next poll, or until woken."""
        await wait_at_most(self._woken, seconds)
        self._woken.clear()

    @property
    def followed_elsewhere(self) -> list[GenerationGuid]:
        """The generations that are followed here and executed elsewhere."""
        return [guid for guid in self.followed if guid not in self.executions]

    def note(self, guid: GenerationGuid, version: int, position: int | None) -> None:
        """Store a generation's version and position; notify its followers of a change.

        Far back in the queue, report a move of a quarter of the position; near the front, every move. Always report the
        first poll: the generation may have changed since its follower read it.
        """
        followed = self.followed.get(guid)
        if followed is None:
            return
        moved = has_moved(followed.position, position)
        if moved or followed.version != version:
            followed.notify()
        if moved:
            followed.position = position
        followed.version = version


async def wait_at_most(event: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set or the time has passed; None waits without a limit."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def has_moved(former: int | None, position: int | None) -> bool:
    """Return whether the position moved far enough since the last report to be reported again."""
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
