"""Making and managing images: resources of a tenant."""

from fastapi import APIRouter, Response

from pixyproxy.core.models.image import ImageChange, ImageDetail, ImagePrompt
from pixyproxy.web.auth.policies import ImageGenerate, ImageManage
from pixyproxy.web.dependencies import Editor, Generator, IdempotencyKey, ImageGuidInPath, PublicUrl
from pixyproxy.web.limits import RateLimits
from pixyproxy.web.openapi import CREATED_RESPONSES, problems
from pixyproxy.web.presentation import image_detail


async def create_image(
    response: Response,
    prompt: ImagePrompt,
    principal: ImageGenerate,
    generation: Generator,
    public_url: PublicUrl,
    idempotency_key: IdempotencyKey = None,
) -> ImageDetail:
    """Make a picture from a prompt, keep it, and return its details."""
    made = await generation.generate_image(prompt, principal=principal, idempotency_key=idempotency_key)
    response.headers["Location"] = f"/image/{made.image.guid}"
    if made.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return image_detail(made.image, public_url=public_url)


async def change_image(
    guid: ImageGuidInPath, change: ImageChange, principal: ImageManage, editor: Editor, public_url: PublicUrl
) -> ImageDetail:
    """Change who sees an image of the tenant, or its filename."""
    image = await editor.change_image(guid, change, principal=principal)
    return image_detail(image, public_url=public_url)


async def delete_image(guid: ImageGuidInPath, principal: ImageManage, editor: Editor) -> None:
    """Remove an image of the tenant and its picture, for good."""
    await editor.delete_image(guid, principal=principal)


def private_image_router(limits: RateLimits) -> APIRouter:
    """The private image resource."""
    router = APIRouter(tags=["image"])
    router.post(
        "/image",
        status_code=201,
        responses=CREATED_RESPONSES | problems(400, 401, 402, 403, 409, 413, 422, 429, 502, 503, 504, 507),
    )(limits.generation(create_image))
    router.patch("/image/{guid}", responses=problems(400, 401, 403, 404, 413, 422, 429, 503))(
        limits.change(change_image)
    )
    router.delete(
        "/image/{guid}", status_code=204, response_class=Response, responses=problems(401, 403, 404, 429, 503)
    )(limits.change(delete_image))
    return router
