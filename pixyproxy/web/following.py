"""Submit orders for requests, and detect clients that disconnect before they get the result."""

import re
from collections.abc import Sequence
from functools import partial

from starlette.requests import Request

from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.models.order import NewOrder
from pixyproxy.core.models.principal import Principal
from pixyproxy.service.private.generation.inputs import Upload
from pixyproxy.service.private.generation.submission import GenerationService, Submission
from pixyproxy.web.middleware.lost_clients import note_when_lost

RETRY_COUNT = "x-stainless-retry-count"
"""The retry number that OpenAI's SDKs send: 0 for the first attempt (openai 3.57)."""


async def submit_followed(
    request: Request,
    generation: GenerationService,
    order: ImagePrompt | NewOrder,
    *,
    principal: Principal,
    idempotency_key: str | None,
    uploads: Sequence[Upload] = (),
) -> Submission:
    """Submit an order and record if its client disconnects. Raise what ``GenerationService.submit`` raises."""
    count = request.headers.get(RETRY_COUNT, "")
    submission = await generation.submit(
        order,
        principal=principal,
        idempotency_key=idempotency_key,
        uploads=uploads,
        says_repeated=re.fullmatch(r"0*[1-9][0-9]{0,3}", count) is not None,
    )
    if submission.follower is not None:
        note_when_lost(request, partial(generation.note_lost, submission))
    return submission
