"""What this process works on, and those who watch."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

from pixyproxy.core.exceptions import PixyProxyException
from pixyproxy.core.models.generation import Generation, GenerationGuid, GenerationStatus, GenerationWithImages
from pixyproxy.service.private.upstream.pool import Turn

logger = logging.getLogger(__name__)

MOST_DOUBTFUL = 10_000


@dataclass
class Job:
    """A generation that this process works on. ``outcome`` is set once; its exception is the generation's error.

    ``asked``: an upstream has been, or is being, asked, so that it may have done the work.
    """

    generation: Generation
    turn: Turn
    status: GenerationStatus
    asked: bool = False
    outcome: "asyncio.Future[GenerationWithImages]" = field(default_factory=asyncio.Future)
    version: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def upstream(self) -> str | None:
        """The name of the upstream that it has a place at, or had last."""
        return None if self.turn.upstream is None else self.turn.upstream.name

    def change(self, status: GenerationStatus | None = None) -> None:
        """Tell those who watch that there is something new."""
        self.status = status or self.status
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def succeed(self, stored: GenerationWithImages) -> None:
        """Give the pictures to all who wait for them."""
        if not self.outcome.done():
            self.outcome.set_result(stored)
        self.change(GenerationStatus.STORED)

    def fail(self, error: PixyProxyException, status: GenerationStatus) -> None:
        """Give an error to all who wait, though the work on it may go on."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            # Nobody has to wait for it.
            self.outcome.exception()
        self.change(status)

    async def wait_changed(self, version: int, seconds: float) -> None:
        """Return when there is something newer than ``version``, or the time is over."""
        if self.version > version:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


@dataclass(frozen=True)
class DoubtfulClaims:
    """Generations that nobody works on, and that are there only if a COMMIT whose answer was lost took effect.

    Of more than ``most`` the oldest is forgotten. If it is there, recovery finds it when its lease is over, and does
    not know then that it was refused: one that waits is executed, one that was about to be asked for is unknown.
    """

    most: int = MOST_DOUBTFUL
    _guids: dict[GenerationGuid, None] = field(default_factory=dict)
    """In the order in which they came, which a set does not keep."""

    def add(self, guid: GenerationGuid) -> None:
        """Note one that may be there."""
        self._guids[guid] = None
        if len(self._guids) > self.most:
            forgotten = next(iter(self._guids))
            self.discard(forgotten)
            logger.warning("generation %s was refused, and may be there once its lease is over", forgotten)

    def discard(self, guid: GenerationGuid) -> None:
        """Forget one of which it is known by now."""
        self._guids.pop(guid, None)

    def __contains__(self, guid: object) -> bool:
        """Whether it is noted."""
        return guid in self._guids

    def list_all(self) -> list[GenerationGuid]:
        """All of them, oldest first."""
        return list(self._guids)


@dataclass(frozen=True)
class Jobs:
    """The jobs of this process, by the GUIDs of their generations."""

    running: dict[GenerationGuid, Job] = field(default_factory=dict)
    doubtful: DoubtfulClaims = field(default_factory=DoubtfulClaims)

    def add(self, job: Job) -> Job:
        """Note a job."""
        self.running[job.generation.guid] = job
        return job

    def get(self, guid: str) -> Job | None:
        """The job of a generation, if this process works on it."""
        return self.running.get(GenerationGuid(guid))

    def remove(self, job: Job) -> None:
        """Forget a job that is over."""
        self.running.pop(job.generation.guid, None)
