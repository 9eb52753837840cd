"""Convert stored models to response models."""

from typing import Any

from fastapi import Response
from starlette.requests import Request

from pixyproxy.core.models.api_key import ApiKeyWithSecret, IssuedApiKey
from pixyproxy.core.models.budget import usd
from pixyproxy.core.models.generation import GenerationDetail, ShownError
from pixyproxy.core.models.image import LISTED_PROMPT_LENGTH, ImageDetail, ImageGuid, StoredImage
from pixyproxy.service.private.generation.watching import GenerationState

SHOWN = set(ImageDetail.model_fields) - {"content_url", "prompt", "prompt_truncated"}


def content_path(guid: ImageGuid) -> str:
    """Return the permanent path of a picture."""
    return f"/image/{guid}/content"


def image_detail(image: StoredImage, *, public_url: str, listed: bool = False) -> ImageDetail:
    """Return the public details of an image, without internal id and tenant; ``listed`` shortens the prompt."""
    return ImageDetail(
        **image.model_dump(include=SHOWN),
        **_prompt(image.prompt, listed=listed),
        content_url=public_url + content_path(image.guid),
    )


def generation_detail(state: GenerationState, *, public_url: str, listed: bool = False) -> GenerationDetail:
    """Return the tenant's details of a generation; ``listed`` shortens the prompts."""
    generation = state.found.generation
    # A waiting generation may have an error from another upstream.
    error = generation.error if state.status.is_final else None
    return GenerationDetail(
        guid=generation.guid,
        status=state.status,
        **_prompt(generation.order.prompt, listed=listed),
        model=generation.order.model,
        n=generation.order.count,
        images=[image_detail(image, public_url=public_url, listed=listed) for image in state.found.images],
        error=None if error is None else ShownError(code=error.code, detail=error.detail),
        cost_usd=usd(generation.cost_micro_usd),
        created_at=generation.created_at,
        finished_at=generation.finished_at,
        position=state.position,
        estimate_seconds=None if state.estimate_seconds is None else round(state.estimate_seconds, 1),
    )


def api_key_with_secret(issued: IssuedApiKey) -> ApiKeyWithSecret:
    """Return the response with a key's secret, which is shown only once."""
    return ApiKeyWithSecret(**issued.detail.model_dump(), api_key=issued.api_key.get_secret_value())


def link_to_next(request: Request, response: Response, cursor: str | None) -> None:
    """Add the ``Link`` header for the next page, if there is one (RFC 8288)."""
    if cursor is not None:
        following = request.url.include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'


def _prompt(prompt: str, *, listed: bool) -> dict[str, Any]:
    """Return the prompt fields. A hundred full prompts would take 12 MB in a list."""
    if listed and len(prompt) > LISTED_PROMPT_LENGTH:
        return {"prompt": prompt[:LISTED_PROMPT_LENGTH], "prompt_truncated": True}
    return {"prompt": prompt}
