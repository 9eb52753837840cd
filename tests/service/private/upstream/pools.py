"""A pool of upstreams that only tell their models, and a clock that tests move on."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixyproxy.core.exceptions import ImageGenerationException
from pixyproxy.core.models.order import PictureOrder, UpstreamAnswer
from pixyproxy.service.private.upstream.pool import PooledUpstream, Turn, UpstreamPool
from pixyproxy.service.private.upstream.upstream import PictureSink

Call = tuple[float, int, Callable[[], None], asyncio.Handle]


@dataclass
class StandingClock:
    """A clock that stands still until a test moves it on, and then calls what is due on its way."""

    now: float = 1000.0
    calls: list[Call] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def time(self) -> float:
        """Where it stands."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> asyncio.Handle:
        """Keep it for ``pass_by``."""
        handle = asyncio.Handle(callback, (), asyncio.get_running_loop())
        heapq.heappush(self.calls, (when, next(self.numbers), callback, handle))
        return handle

    def pass_by(self, seconds: float) -> None:
        """Move it on."""
        target = self.now + seconds
        while self.calls and self.calls[0][0] <= target:
            when, _, callback, handle = heapq.heappop(self.calls)
            self.now = max(self.now, when)
            if not handle.cancelled():
                callback()
        self.now = target

    @property
    def pending(self) -> int:
        """How many calls are still to come."""
        return sum(not handle.cancelled() for _, _, _, handle in self.calls)


@dataclass
class FakeListing:
    """An upstream that only tells its models."""

    name: str = "fake"
    models: tuple[str, ...] = ()
    error: ImageGenerationException | None = None
    closing_error: OSError | None = None
    closed: bool = False

    async def draw(self, order: PictureOrder, *, inputs: Sequence[Path], sink: PictureSink) -> UpstreamAnswer:
        """No pool draws."""
        raise NotImplementedError

    async def list_models(self) -> list[str]:
        """What it was made with."""
        if self.error is not None:
            raise self.error
        return list(self.models)

    async def close(self) -> None:
        """Notes it."""
        self.closed = True
        if self.closing_error is not None:
            raise self.closing_error


def pooled(  # noqa: PLR0913  (what an upstream has, each with a default)
    name: str = "only",
    *,
    upstream: FakeListing | None = None,
    models: tuple[str, ...] | None = None,
    weight: int = 1,
    concurrency: int = 1,
    per_minute: int | None = None,
) -> PooledUpstream:
    """An upstream of a pool; what is not named stands in no test's way."""
    return PooledUpstream(name, upstream or FakeListing(name), models, weight, concurrency, per_minute)


def make_pool(timing: StandingClock, *upstreams: PooledUpstream, queue_size: int = 1000) -> UpstreamPool:
    """A pool of these, or of one with one place."""
    return UpstreamPool(upstreams or (pooled(),), queue_size=queue_size, timing=timing)


def name_of(turn: Turn) -> str:
    """The upstream whose place a turn holds, or held."""
    assert turn.upstream is not None
    return turn.upstream.name


async def settle() -> None:
    """Let every task go on until it waits again."""
    for _ in range(4):
        await asyncio.sleep(0)
