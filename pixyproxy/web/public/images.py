"""Public image resources: lists, details and pictures."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.requests import Request

from pixyproxy.core.models.image import ImageDetail, ImageFilter
from pixyproxy.web.auth.policies import AnyViewer
from pixyproxy.web.dependencies import Cursor, ImageGuidInPath, Limit, PublicUrl, Reader
from pixyproxy.web.openapi import CONTENT_RESPONSES, LIST_RESPONSES, OPEN_TO_EVERYONE, Tag, problems
from pixyproxy.web.presentation import image_detail, link_to_next
from pixyproxy.web.protocol.picture_response import (
    PictureResponse,
    is_not_modified,
    picture_as_json,
    picture_headers,
    prefers_json,
)
from pixyproxy.web.rate_limits.addresses import client_address
from pixyproxy.web.rate_limits.guarded_route import GuardedRoute


class ImageQuery(ImageFilter):
    """The query of the image list: filter and page."""

    limit: Limit = 20
    cursor: Cursor = None


async def list_images(
    request: Request,
    response: Response,
    query: Annotated[ImageQuery, Query()],
    viewer: AnyViewer,
    reader: Reader,
    public_url: PublicUrl,
) -> list[ImageDetail]:
    """List the newest images visible to the caller: public ones, and the tenant's own with a credential."""
    wanted = ImageFilter.model_validate(query.model_dump(include=set(ImageFilter.model_fields)))
    page = await reader.list_images(
        wanted, viewer=viewer, limit=query.limit, cursor=query.cursor, address=client_address(request)
    )
    link_to_next(request, response, page.next_cursor)
    return [image_detail(image, public_url=public_url, listed=True) for image in page.images]


async def get_image(guid: ImageGuidInPath, viewer: AnyViewer, reader: Reader, public_url: PublicUrl) -> ImageDetail:
    """Return the details of an image."""
    image = await reader.require_image(guid, viewer=viewer)
    return image_detail(image, public_url=public_url)


async def get_image_content(request: Request, guid: ImageGuidInPath, viewer: AnyViewer, reader: Reader) -> Response:
    """Return the unchanged bytes of a picture, or JSON with base64 if `Accept` prefers `application/json`."""
    picture = await reader.require_picture(guid, viewer=viewer)
    headers = picture_headers(picture.image)
    if prefers_json(request.headers.get("accept", "*/*"), picture.image.media_type):
        return picture_as_json(picture, headers)
    if is_not_modified(request.headers, headers):
        return Response(status_code=304, headers=headers)
    return PictureResponse(picture, headers)


def public_image_router() -> APIRouter:
    """Return the router of the public image resource."""
    router = APIRouter(tags=[Tag.IMAGE], route_class=GuardedRoute)
    router.get(
        "/image",
        responses=LIST_RESPONSES | problems(400, 401, 403, 414, 422, 429, 503),
        openapi_extra=OPEN_TO_EVERYONE,
    )(list_images)
    router.get("/image/{guid}", responses=problems(401, 403, 404, 429, 503), openapi_extra=OPEN_TO_EVERYONE)(get_image)
    router.get(
        "/image/{guid}/content",
        response_class=Response,
        responses=CONTENT_RESPONSES | problems(401, 403, 404, 416, 429, 500, 503),
        openapi_extra=OPEN_TO_EVERYONE,
    )(get_image_content)
    return router
