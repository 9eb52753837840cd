"""``stream=true``: previews as they arrive, then the pictures, as OpenAI's events."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from fastapi import Response
from starlette.requests import Request

from pixyproxy.core.exceptions import PixyProxyException
from pixyproxy.service.private.generation.submission import Submission
from pixyproxy.service.private.generation.watching import GenerationEvent, GenerationWatcher, Preview
from pixyproxy.web.errors.handler import describe
from pixyproxy.web.openai.answers import StoredPictures, completed_events, partial_events
from pixyproxy.web.openai.envelope import openai_error
from pixyproxy.web.protocol.server_sent_events import HEARTBEAT, event, event_stream


@dataclass(frozen=True)
class StreamedGeneration:
    """A generation that one request follows until it finishes."""

    request: Request
    watcher: GenerationWatcher
    order: Submission

    async def answer(self) -> Response:
        """Return the response; errors before the first event are raised and returned with a status."""
        events = self.watcher.events(self.order.guid, tenant_id=self.order.tenant_id, after=0)
        async for first in events:
            if isinstance(first.what, Preview) or first.what is None:
                return event_stream(self._told(first, events))
            if first.what.status.is_final:
                break
        return event_stream(completed_events(await self._pictures()))

    async def _told(
        self, first: GenerationEvent, events: AsyncIterator[GenerationEvent]
    ) -> AsyncGenerator[bytes, None]:
        async for piece in _told_of(first):
            yield piece
        try:
            async for each in events:
                async for piece in _told_of(each):
                    yield piece
            async for piece in completed_events(await self._pictures()):
                yield piece
        except PixyProxyException as error:
            yield event("error", {"error": openai_error(describe(self.request, error))})

    async def _pictures(self) -> StoredPictures:
        found = await self.watcher.outcome(
            self.order.guid, tenant_id=self.order.tenant_id, replayed=self.order.replayed
        )
        return StoredPictures(found, await self.watcher.pictures(found))


async def _told_of(what: GenerationEvent) -> AsyncGenerator[bytes, None]:
    if what.what is None:
        yield HEARTBEAT
    elif isinstance(what.what, Preview):
        # The preview is deleted as soon as the generation finishes.
        with contextlib.suppress(FileNotFoundError):
            async for piece in partial_events(what.what.generation, what.what.index, what.what.path):
                yield piece
