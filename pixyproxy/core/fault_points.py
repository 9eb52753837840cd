"""Named places where a test can make the process die, fail or wait.

Nothing arms them but a test's own program: neither a setting nor a request can. Unarmed, passing one is a look at a
variable.
"""

import asyncio
from collections.abc import Callable, Coroutine
from enum import StrEnum


class FaultPoint(StrEnum):
    """The steps of a generation, in their order, and those of its recovery."""

    CLAIMED = "claimed"
    """The generation is committed, and its budget reserved."""
    CALLING = "calling"
    """It is committed that the upstream is about to be asked."""
    ANSWERED = "answered"
    """The whole answer has been received; its pictures are in the spool, not synced."""
    SPOOLED = "spooled"
    """The spool's entry is durable."""
    MOVED = "moved"
    """The pictures are in the store."""
    RECORDED = "recorded"
    """Images, charge and status are committed; nobody was told yet."""
    CLEANED = "cleaned"
    """The spool's entry is gone."""
    REFUSED = "refused"
    """The upstream said no, or nothing that can be known; that is not committed yet."""
    SETTLED = "settled"
    """It is committed that there will be no picture."""
    RECOVERING = "recovering"
    """An entry of a dead process was found in the spool, and is about to be finished."""


Act = Callable[[FaultPoint], Coroutine[None, None, None]]
_act: Act | None = None


def arm(act: Act | None) -> None:
    """Have ``act`` called at every fault point; None: none again."""
    global _act  # noqa: PLW0603  (a variable of the module is what costs nothing while unarmed)
    _act = act


async def reach(point: FaultPoint) -> None:
    """Pass a fault point."""
    if _act is not None:
        await _act(point)


def reach_from_thread(point: FaultPoint, loop: asyncio.AbstractEventLoop) -> None:
    """Pass a fault point in a worker thread of this event loop."""
    if _act is not None:
        asyncio.run_coroutine_threadsafe(_act(point), loop).result()
