"""``/v1``: generation for OpenAI clients; images are stored, listed and charged like any other."""

from typing import Literal

from fastapi import APIRouter, Response
from starlette.requests import Request

from pixyproxy.core.exceptions import ModelUnknownException
from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.order import Operation
from pixyproxy.service.private.generation.submission import Submission
from pixyproxy.web.auth.policies import AnyCaller, ImageGenerate
from pixyproxy.web.dependencies import AllServices, IdempotencyKey, Limits, PublicUrl
from pixyproxy.web.following import submit_followed
from pixyproxy.web.openai.answers import StoredPictures, answer_with_pictures, answer_with_urls
from pixyproxy.web.openai.requests import OpenAIImageRequest, read_edit
from pixyproxy.web.openai.streaming import StreamedGeneration
from pixyproxy.web.openapi import EDIT_BODY, IMAGES_RESPONSES, Tag, openai_errors
from pixyproxy.web.rate_limits.guarded_route import GuardedRoute


class Model(FrozenModel):
    """A model that is available to the caller."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "pixyproxy"


class ModelList(FrozenModel):
    """The models that are available to the caller."""

    object: Literal["list"] = "list"
    data: list[Model]


async def create_openai_image(
    request: Request,
    body: OpenAIImageRequest,
    principal: ImageGenerate,
    services: AllServices,
    limits: Limits,
    public_url: PublicUrl,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Generate pictures from a prompt, like OpenAI's `images.generate`. Unknown parameters are passed on."""
    limits.images.count_more(request, principal, (body.n or 1) - 1)
    wanted = body.order(Operation.GENERATE)
    order = await submit_followed(
        request, services.generation, wanted, principal=principal, idempotency_key=idempotency_key
    )
    return await _answer(request, body, services, order=order, public_url=public_url)


async def edit_openai_image(
    request: Request,
    principal: ImageGenerate,
    services: AllServices,
    limits: Limits,
    public_url: PublicUrl,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Edit pictures with a prompt, like OpenAI's `images.edit`; `image_guid` names an existing image."""
    spool = await services.spool.open()
    async with read_edit(request, spool.path) as (body, uploads):
        limits.images.count_more(request, principal, (body.n or 1) - 1)
        wanted = body.order(Operation.EDIT)
        order = await submit_followed(
            request,
            services.generation,
            wanted,
            principal=principal,
            idempotency_key=idempotency_key,
            uploads=uploads,
        )
    return await _answer(request, body, services, order=order, public_url=public_url)


async def list_models(principal: AnyCaller, services: AllServices) -> ModelList:
    """List the models that are available to the caller."""
    return ModelList(data=[Model(id=name) for name in await services.models.list_models(principal)])


async def get_model(model: str, principal: AnyCaller, services: AllServices) -> Model:
    """Return one model that is available to the caller."""
    if model not in await services.models.list_models(principal):
        raise ModelUnknownException
    return Model(id=model)


async def _answer(
    request: Request, body: OpenAIImageRequest, services: AllServices, *, order: Submission, public_url: str
) -> Response:
    """Return the pictures of an order in the requested form, after they are stored."""
    watcher = services.watcher
    if body.stream:
        return await StreamedGeneration(request, watcher, order).answer()
    found = await watcher.outcome(order.guid, tenant_id=order.tenant_id, replayed=order.replayed)
    if body.response_format == "url":
        return answer_with_urls(found, public_url=public_url)
    return answer_with_pictures(StoredPictures(found, await watcher.pictures(found)))


def openai_router() -> APIRouter:
    """Return the router of the OpenAI-compatible API."""
    router = APIRouter(prefix="/v1", tags=[Tag.OPENAI], route_class=GuardedRoute)
    errors = openai_errors(400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504, 507)
    router.post("/images/generations", response_class=Response, responses=IMAGES_RESPONSES | errors)(
        create_openai_image
    )
    router.post("/images/edits", response_class=Response, responses=IMAGES_RESPONSES | errors, openapi_extra=EDIT_BODY)(
        edit_openai_image
    )
    router.get("/models", responses=openai_errors(401, 403, 429, 502, 503, 504))(list_models)
    router.get("/models/{model:path}", responses=openai_errors(401, 403, 404, 429, 502, 503, 504))(get_model)
    return router
