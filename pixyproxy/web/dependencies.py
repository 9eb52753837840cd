"""The ``Annotated`` aliases for resource parameters, except those for authentication.

All dependencies are ``async``, though none awaits anything: FastAPI runs others in a thread, 0.2 ms per call.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Header, Path, Query
from starlette.requests import Request

from pixyproxy.core.exceptions import (
    ApiKeyNotFoundException,
    GenerationNotFoundException,
    ImageNotFoundException,
    PixyProxyException,
    TenantNotFoundException,
    UserNotFoundException,
    WebhookNotFoundException,
)
from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.core.models.image import GUID_PATTERN, ImageGuid
from pixyproxy.service.composition import Services
from pixyproxy.service.private.generation.submission import GenerationService
from pixyproxy.service.private.generation.watching import GenerationWatcher
from pixyproxy.service.private.images import ImageEditor
from pixyproxy.service.public.images import ImageReader
from pixyproxy.web.rate_limits.limits import RateLimits

HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


AllServices = Annotated[Services, Depends(_services)]


async def _limits(request: Request) -> RateLimits:
    limits: RateLimits = request.app.state.limits
    return limits


Limits = Annotated[RateLimits, Depends(_limits)]


def _guid_of(missing: type[PixyProxyException]) -> Callable[[str], Awaitable[str]]:
    """Return a dependency that reads the GUID in the path, in lower case; an invalid GUID raises ``missing``."""

    async def guid_in_path(guid: Annotated[str, Path(json_schema_extra={"format": "uuid"})]) -> str:
        if re.fullmatch(GUID_PATTERN, guid) is None:
            raise missing
        return guid.lower()

    return guid_in_path


async def _image_reader(services: AllServices) -> ImageReader:
    return services.image_reader


async def _image_editor(services: AllServices) -> ImageEditor:
    return services.image_editor


async def _generation(services: AllServices) -> GenerationService:
    return services.generation


async def _watcher(services: AllServices) -> GenerationWatcher:
    return services.watcher


ImageGuidInPath = Annotated[ImageGuid, Depends(_guid_of(ImageNotFoundException))]
KeyGuid = Annotated[str, Depends(_guid_of(ApiKeyNotFoundException))]
UserGuidInPath = Annotated[str, Depends(_guid_of(UserNotFoundException))]
TenantGuidInPath = Annotated[str, Depends(_guid_of(TenantNotFoundException))]
WebhookGuidInPath = Annotated[str, Depends(_guid_of(WebhookNotFoundException))]
GenerationGuidInPath = Annotated[GenerationGuid, Depends(_guid_of(GenerationNotFoundException))]
Reader = Annotated[ImageReader, Depends(_image_reader)]
Editor = Annotated[ImageEditor, Depends(_image_editor)]
Generator = Annotated[GenerationService, Depends(_generation)]
Watcher = Annotated[GenerationWatcher, Depends(_watcher)]

Limit = Annotated[int, Query(ge=1, le=100, description="Maximum number of items to return.")]
Cursor = Annotated[str | None, Query(max_length=500, description="Next page, from the previous page's `Link` header.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Identifies the request within the tenant. A repeated request returns the original result.",
    ),
]


async def _public_url(request: Request, services: AllServices) -> str:
    """Return the base URL that clients use, without a trailing slash.

    The setting takes precedence. Without it the request's ``Host`` is used if it is only a host and port: the client
    controls it, and it appears in responses.
    """
    if services.settings.base_url is not None:
        return services.settings.base_url
    host = request.headers.get("host", "")
    if HOST.fullmatch(host) is None:
        address, port = request.scope["server"]
        host = f"{address}:{port}"
    return f"{request.url.scheme}://{host}"


PublicUrl = Annotated[str, Depends(_public_url)]
