"""Named points where a test can make the process die, fail or wait.

Only a test's own program can arm them, no setting or request. An unarmed point costs one read of a variable.
"""

import asyncio
from collections.abc import Callable, Coroutine
from enum import StrEnum


class FaultPoint(StrEnum):
    """The steps of a generation in order, and those of its recovery."""

    CLAIMED = "claimed"
    """The generation is committed and its budget reserved."""
    CALLING = "calling"
    """It is committed that the upstream is about to be called."""
    ANSWERED = "answered"
    """The whole answer is received; its pictures are in the spool, not yet synced."""
    SPOOLED = "spooled"
    """The spool entry is durable."""
    MOVED = "moved"
    """The pictures are in the store."""
    RECORDED = "recorded"
    """Images, charge and status are committed; nothing is notified yet."""
    CLEANED = "cleaned"
    """The spool entry is deleted."""
    REFUSED = "refused"
    """The upstream refused, or the outcome is unknown; not committed yet."""
    SETTLED = "settled"
    """It is committed that there will be no picture."""
    RECOVERING = "recovering"
    """A dead process's entry was found in the spool and is about to be completed."""


Act = Callable[[FaultPoint], Coroutine[None, None, None]]
_act: Act | None = None


def arm(act: Act | None) -> None:
    """Call ``act`` at every fault point; None disarms them."""
    global _act  # noqa: PLW0603  (a module variable costs nothing while unarmed)
    _act = act


async def reach(point: FaultPoint) -> None:
    """Pass a fault point."""
    if _act is not None:
        await _act(point)


def reach_from_thread(point: FaultPoint, loop: asyncio.AbstractEventLoop) -> None:
    """Pass a fault point from a worker thread of this event loop."""
    if _act is not None:
        asyncio.run_coroutine_threadsafe(_act(point), loop).result()
