"""The models that clients may request."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pixyproxy.core.exceptions import ImageGenerationException
from pixyproxy.core.models.principal import Principal
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.upstream.pool import UpstreamPool

KEPT_SECONDS = 60
FAILURE_KEPT_SECONDS = 5
MOST_SECONDS = 10
"""The time limit of each upstream's response."""
Listed = list[str] | ImageGenerationException


@dataclass
class ModelCatalog:
    """The models that the upstreams offer, fetched at most once a minute and shared by all concurrent callers."""

    pool: UpstreamPool
    most_seconds: float = MOST_SECONDS
    clock: Callable[[], float] = time.monotonic
    _asking: asyncio.Task[Listed] | None = None
    _listed: Listed = field(default_factory=list)
    _until: float | None = None
    _tasks: DetachedTasks = field(default_factory=DetachedTasks)

    async def list_models(self, principal: Principal) -> list[str]:
        """Return the models that the principal may request, sorted.

        Raise ``ImageGenerationException``; the same one for some seconds, to spare failing upstreams.
        """
        listed = self._listed
        if self._until is None or self.clock() >= self._until:
            if self._asking is None or self._asking.done():
                self._asking = self._tasks.start(self._ask())
            # A cancelled caller must not cancel the fetch for the others.
            listed = await asyncio.shield(self._asking)
        if isinstance(listed, ImageGenerationException):
            # Raise a new instance: one shared by many callers would collect the frames of all of them.
            raise type(listed)(listed.message, retry_after_seconds=listed.retry_after_seconds, context=listed.context)
        allowed = principal.allowed_models
        return [name for name in listed if allowed is None or name in allowed]

    async def _ask(self) -> Listed:
        try:
            self._listed = await self.pool.list_models(seconds=self.most_seconds)
        except ImageGenerationException as error:
            self._listed = error.with_traceback(None)
        failed = isinstance(self._listed, ImageGenerationException)
        self._until = self.clock() + (FAILURE_KEPT_SECONDS if failed else KEPT_SECONDS)
        return self._listed
