"""Generations: orders that run without waiting clients, and their progress."""

import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from starlette.requests import Request

from pixyproxy.core.exceptions import PixyProxyException
from pixyproxy.core.models.generation import GenerationDetail, GenerationFilter, GenerationStatus
from pixyproxy.core.models.image import GenerationPrompt
from pixyproxy.core.settings import Settings
from pixyproxy.service.private.generation.watching import FINAL_ID, GenerationEvent, GenerationState, Preview
from pixyproxy.web.auth.policies import ImageGenerate, ImageManage, ImageRead
from pixyproxy.web.dependencies import (
    Cursor,
    Editor,
    GenerationGuidInPath,
    Generator,
    IdempotencyKey,
    Limit,
    Limits,
    PublicUrl,
    Watcher,
)
from pixyproxy.web.following import submit_followed
from pixyproxy.web.openapi import (
    ACCEPTED_RESPONSES,
    ALL_EVENTS_RESPONSES,
    EVENTS_RESPONSES,
    LIST_RESPONSES,
    Tag,
    problems,
)
from pixyproxy.web.presentation import generation_detail, link_to_next
from pixyproxy.web.protocol.preferences import Prefer
from pixyproxy.web.protocol.server_sent_events import HEARTBEAT, Followers, event, event_stream, event_with_picture
from pixyproxy.web.rate_limits.guarded_route import GuardedRoute

LastEventId = Annotated[
    str, Header(alias="Last-Event-ID", description="The id of the last event received; later events are sent.")
]


async def create_generation(
    request: Request,
    response: Response,
    prompt: GenerationPrompt,
    principal: ImageGenerate,
    generation: Generator,
    watcher: Watcher,
    limits: Limits,
    public_url: PublicUrl,
    idempotency_key: IdempotencyKey = None,
) -> GenerationDetail:
    """Order pictures; poll the returned generation for its outcome."""
    limits.images.count_more(request, principal, prompt.n - 1)
    order = await submit_followed(request, generation, prompt, principal=principal, idempotency_key=idempotency_key)
    state = await watcher.state(order.guid, tenant_id=principal.tenant_id)
    response.headers["Location"] = f"/generation/{order.guid}"
    if order.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return generation_detail(state, public_url=public_url)


async def cancel_generation(
    guid: GenerationGuidInPath, principal: ImageManage, generation: Generator, editor: Editor
) -> None:
    """Cancel a waiting generation, or delete a finished one with its images."""
    if not await generation.cancel(guid, tenant_id=principal.tenant_id):
        await editor.delete_generation(guid, principal=principal)


async def list_own_generations(
    request: Request,
    response: Response,
    principal: ImageRead,
    watcher: Watcher,
    public_url: PublicUrl,
    status: Annotated[GenerationStatus | None, Query(description="Return only generations with this status.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> list[GenerationDetail]:
    """List the tenant's generations, newest first."""
    wanted = GenerationFilter(status=status)
    page = await watcher.list_generations(wanted, tenant_id=principal.tenant_id, limit=limit, cursor=cursor)
    link_to_next(request, response, page.next_cursor)
    return [
        generation_detail(GenerationState(each, each.generation.status), public_url=public_url, listed=True)
        for each in page.generations
    ]


@dataclass(frozen=True)
class WatchedGenerations:
    """Resources that hold a connection until a generation changes, with a limit per tenant."""

    followers: Followers

    async def get_generation(
        self, guid: GenerationGuidInPath, principal: ImageRead, watcher: Watcher, public_url: PublicUrl, prefer: Prefer
    ) -> GenerationDetail:
        """Return a generation of the tenant now, or when it finishes if that is within `Prefer: wait` seconds."""
        if prefer.wait:
            with self.followers.one_of(principal.tenant_id), contextlib.suppress(TimeoutError, PixyProxyException):
                await watcher.outcome(guid, tenant_id=principal.tenant_id, seconds=prefer.wait)
        state = await watcher.state(guid, tenant_id=principal.tenant_id)
        return generation_detail(state, public_url=public_url)

    async def follow_generation(
        self,
        guid: GenerationGuidInPath,
        principal: ImageRead,
        watcher: Watcher,
        public_url: PublicUrl,
        last_event_id: LastEventId = "",
    ) -> Response:
        """Stream the events of a generation: `status`, `partial`, and finally `stored` or `failed`."""
        await watcher.state(guid, tenant_id=principal.tenant_id)
        seen = int(last_event_id) if re.fullmatch(r"[0-9]{1,9}", last_event_id) else 0
        if seen >= FINAL_ID:
            # No more events will follow; 204 stops clients from reconnecting (WHATWG HTML, 9.2.3).
            return Response(status_code=HTTPStatus.NO_CONTENT)
        events = watcher.events(guid, tenant_id=principal.tenant_id, after=seen)
        return event_stream(_written(events, public_url), place=self.followers.one_of(principal.tenant_id))

    async def follow_generations(
        self, principal: ImageRead, watcher: Watcher, public_url: PublicUrl, last_event_id: LastEventId = ""
    ) -> Response:
        """Stream the events of all unfinished generations of the tenant: `status`, `stored` and `failed`."""
        after = int(last_event_id) if re.fullmatch(r"[0-9]{1,10}", last_event_id) else None
        events = watcher.tenant_events(tenant_id=principal.tenant_id, after=after)
        return event_stream(_written(events, public_url), place=self.followers.one_of(principal.tenant_id))


async def _written(events: AsyncIterator[GenerationEvent], public_url: str) -> AsyncGenerator[bytes, None]:
    async for each in events:
        if isinstance(each.what, Preview):
            data = {"guid": each.what.generation.guid, "index": each.what.index}
            # The preview is deleted as soon as the generation finishes.
            with contextlib.suppress(FileNotFoundError):
                async for piece in event_with_picture("partial", data, each.what.path, event_id=each.id):
                    yield piece
        elif each.what is None:
            yield HEARTBEAT
        else:
            yield event(_name_of(each.what), _shown(each.what, public_url), event_id=each.id)


def _name_of(state: GenerationState) -> str:
    if not state.status.is_final:
        return "status"
    return "stored" if state.status is GenerationStatus.STORED else "failed"


def _shown(state: GenerationState, public_url: str) -> object:
    shown: object = json.loads(generation_detail(state, public_url=public_url).model_dump_json())
    return shown


def generation_router(settings: Settings) -> APIRouter:
    """Return the generation router. One tenant's followers may hold a quarter of a process's connections."""
    router = APIRouter(tags=[Tag.GENERATION], route_class=GuardedRoute)
    watched = WatchedGenerations(Followers(most=max(1, settings.max_connections // 4)))
    router.post(
        "/generation",
        status_code=202,
        responses=ACCEPTED_RESPONSES | problems(400, 401, 402, 403, 404, 409, 413, 422, 429, 503, 507),
    )(create_generation)
    router.get("/generation", responses=LIST_RESPONSES | problems(400, 401, 403, 414, 422, 429, 503))(
        list_own_generations
    )
    # Before `/generation/{guid}`, which also matches it.
    router.get(
        "/generation/events", response_class=Response, responses=ALL_EVENTS_RESPONSES | problems(401, 403, 429, 503)
    )(watched.follow_generations)
    router.get("/generation/{guid}", responses=problems(401, 403, 404, 429, 503))(watched.get_generation)
    router.delete(
        "/generation/{guid}", status_code=204, response_class=Response, responses=problems(401, 403, 404, 409, 429, 503)
    )(cancel_generation)
    router.get(
        "/generation/{guid}/events",
        response_class=Response,
        responses=EVENTS_RESPONSES | problems(401, 403, 404, 429, 503),
    )(watched.follow_generation)
    return router
