"""What this process works on, and those who watch."""

import asyncio
import contextlib
from dataclasses import dataclass, field

from pixyproxy.core.exceptions import PixyProxyException
from pixyproxy.core.models.generation import Generation, GenerationGuid, GenerationStatus, GenerationWithImages
from pixyproxy.service.private.upstream.pool import Turn


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
class Jobs:
    """The jobs of this process, by the GUIDs of their generations.

    ``doubtful`` are generations that nobody works on, and that are there only if a COMMIT whose answer was lost took
    effect.
    """

    running: dict[GenerationGuid, Job] = field(default_factory=dict)
    doubtful: set[GenerationGuid] = field(default_factory=set)

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
