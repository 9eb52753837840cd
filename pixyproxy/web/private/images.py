"""Generate and manage a tenant's images."""

from http import HTTPStatus

from fastapi import APIRouter, Response
from starlette.requests import Request

from pixyproxy.core.exceptions import GenerationInFlightException
from pixyproxy.core.models.generation import GenerationDetail
from pixyproxy.core.models.image import ImageChange, ImageDetail, ImagePrompt
from pixyproxy.web.auth.policies import ImageGenerate, ImageManage
from pixyproxy.web.dependencies import Editor, Generator, IdempotencyKey, ImageGuidInPath, PublicUrl, Watcher
from pixyproxy.web.following import submit_followed
from pixyproxy.web.openapi import ACCEPTED_RESPONSES, CREATED_RESPONSES, Tag, problems
from pixyproxy.web.presentation import generation_detail, image_detail
from pixyproxy.web.protocol.preferences import Prefer
from pixyproxy.web.rate_limits.guarded_route import GuardedRoute


async def create_image(
    request: Request,
    response: Response,
    prompt: ImagePrompt,
    principal: ImageGenerate,
    generation: Generator,
    watcher: Watcher,
    public_url: PublicUrl,
    prefer: Prefer,
    idempotency_key: IdempotencyKey = None,
) -> ImageDetail | GenerationDetail:
    """Generate and store a picture, and return its details; with `Prefer: respond-async` return the generation."""
    order = await submit_followed(request, generation, prompt, principal=principal, idempotency_key=idempotency_key)
    if order.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    try:
        stored = await watcher.outcome(
            order.guid, tenant_id=principal.tenant_id, seconds=prefer.seconds, replayed=order.replayed
        )
    except TimeoutError as error:
        if order.replayed and not prefer.respond_async:
            raise GenerationInFlightException(context={"generation": order.guid}) from error
        state = await watcher.state(order.guid, tenant_id=principal.tenant_id)
        response.status_code = HTTPStatus.ACCEPTED
        response.headers.update({"Location": f"/generation/{order.guid}", "Preference-Applied": prefer.applied})
        return generation_detail(state, public_url=public_url)
    response.headers["Location"] = f"/image/{stored.images[0].guid}"
    return image_detail(stored.images[0], public_url=public_url)


async def change_image(
    guid: ImageGuidInPath, change: ImageChange, principal: ImageManage, editor: Editor, public_url: PublicUrl
) -> ImageDetail:
    """Change the visibility or filename of an image of the tenant."""
    image = await editor.change_image(guid, change, principal=principal)
    return image_detail(image, public_url=public_url)


async def delete_image(guid: ImageGuidInPath, principal: ImageManage, editor: Editor) -> None:
    """Delete an image of the tenant permanently; the last image of a generation also deletes its prompt."""
    await editor.delete_image(guid, principal=principal)


def private_image_router() -> APIRouter:
    """Return the router of the private image resource."""
    router = APIRouter(tags=[Tag.IMAGE], route_class=GuardedRoute)
    router.post(
        "/image",
        status_code=201,
        # Each status has its own model.
        response_model=None,
        responses=CREATED_RESPONSES
        | ACCEPTED_RESPONSES
        | problems(400, 401, 402, 403, 404, 409, 413, 422, 429, 502, 503, 504, 507),
    )(create_image)
    router.patch("/image/{guid}", responses=problems(400, 401, 403, 404, 413, 422, 429, 503))(change_image)
    router.delete(
        "/image/{guid}", status_code=204, response_class=Response, responses=problems(401, 403, 404, 429, 503)
    )(delete_image)
    return router
