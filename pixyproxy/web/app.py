"""The application: lifespan, middleware order and routers."""

import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import Lifespan

from pixyproxy.core.exceptions import DatabaseException, PixyProxyException
from pixyproxy.core.settings import DEFAULT_URL, Settings
from pixyproxy.service.composition import Services, open_services
from pixyproxy.web.auth.metadata import metadata_router
from pixyproxy.web.auth.token import token_router
from pixyproxy.web.errors.handler import ErrorBoundary, allowed_methods, answer_exception
from pixyproxy.web.middleware.body_limit import BodyLimitMiddleware
from pixyproxy.web.middleware.cors import CorsMiddleware
from pixyproxy.web.middleware.head import HeadMiddleware
from pixyproxy.web.middleware.lost_clients import LostClients
from pixyproxy.web.middleware.request_bounds import RequestBounds
from pixyproxy.web.middleware.request_log import RequestLogMiddleware, log_request
from pixyproxy.web.middleware.response_headers import ResponseHeaders
from pixyproxy.web.middleware.url_prefix import UrlPrefixMiddleware
from pixyproxy.web.openai.requests import MOST_FIELD_BYTES, MOST_FIELDS
from pixyproxy.web.openai.router import openai_router
from pixyproxy.web.openapi import install_openapi
from pixyproxy.web.pages.router import page_router
from pixyproxy.web.private.account import account_router
from pixyproxy.web.private.admin import admin_router
from pixyproxy.web.private.generations import generation_router
from pixyproxy.web.private.images import private_image_router
from pixyproxy.web.private.keys import key_router
from pixyproxy.web.private.users import user_router
from pixyproxy.web.private.webhooks import webhook_router
from pixyproxy.web.public.health import health_router
from pixyproxy.web.public.images import public_image_router
from pixyproxy.web.rate_limits.buckets import RateLimitHeaders
from pixyproxy.web.rate_limits.limits import create_rate_limits
from pixyproxy.web.server.background import running_loops
from pixyproxy.web.server.stopping import stop_noticed

if TYPE_CHECKING:
    from pixyproxy.web.rate_limits.counters import Counters

logger = logging.getLogger(__name__)

DESCRIPTION = (
    "Generate pictures from prompts, pay for each once, and serve them under permanent URLs. "
    "Every GET endpoint also accepts HEAD."
)


def create_app(settings: Settings, *, local_url: str = DEFAULT_URL, executes: bool = True) -> FastAPI:
    """Return a new application for these settings, served at ``local_url``; resources are opened at startup.

    ``executes``: the process also executes generations.
    """
    app = FastAPI(
        title="PixyProxy",
        version=version("pixyproxy"),
        description=DESCRIPTION,
        servers=_servers(settings),
        lifespan=_lifespan_with(settings, local_url, executes=executes),
        dependencies=[Depends(log_request)],
        # The page router serves these, rate limited like every route.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        # Outermost first: log every request, add cache and security headers, then CORS and rate limit headers. Reject
        # oversized or excess requests, handle unexpected errors, and limit bodies.
        middleware=[
            Middleware(RequestLogMiddleware, unrouted=answer_exception),
            Middleware(ResponseHeaders),
            *([Middleware(UrlPrefixMiddleware, prefix=settings.url_prefix)] if settings.url_prefix else []),
            Middleware(HeadMiddleware),
            Middleware(CorsMiddleware, origins=settings.cors_origins),
            Middleware(RateLimitHeaders),
            Middleware(RequestBounds, most_requests=settings.max_connections),
            Middleware(LostClients),
            Middleware(ErrorBoundary),
            Middleware(
                BodyLimitMiddleware,
                max_bytes=settings.max_body_bytes,
                max_bytes_of={"/v1/images/edits": settings.max_upload_bytes},
            ),
        ],
        form_limits={"max_fields": MOST_FIELDS, "max_files": 0, "max_part_size": MOST_FIELD_BYTES},
        exception_handlers=dict.fromkeys((PixyProxyException, HTTPException, RequestValidationError), answer_exception),
    )
    app.state.limits = create_rate_limits(settings)
    routers = [
        public_image_router(),
        private_image_router(),
        generation_router(settings),
        openai_router(),
        token_router(),
        metadata_router(),
        key_router(),
        user_router(),
        webhook_router(),
        account_router(),
        admin_router(),
        health_router(),
        page_router(),
    ]
    for router in routers:
        app.include_router(router)
    app.state.allowed_methods = allowed_methods(routers)
    install_openapi(app, prefix=settings.url_prefix)
    return app


def _servers(settings: Settings) -> list[dict[str, Any]]:
    """Return the API's server URLs: the one that served the document, and the public URL if it is set."""
    servers = [{"url": settings.url_prefix or "/", "description": "This server"}]
    if settings.base_url is not None:
        servers.append({"url": settings.base_url, "description": "Public URL"})
    return servers


def _lifespan_with(settings: Settings, local_url: str, *, executes: bool) -> Lifespan[FastAPI]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        def take_nothing_new() -> None:
            services: Services | None = getattr(app.state, "services", None)
            if services is not None:
                services.slots.open = False

        with stop_noticed(take_nothing_new) as seconds_since_stop:
            async with (
                open_services(settings, local_url=local_url, executes=executes) as services,
                _background(app, services),
            ):
                try:
                    yield
                finally:
                    # Orders without a connected client; the HTTP server has waited for the others.
                    await services.tasks.drain(settings.shutdown_seconds - seconds_since_stop())

    return lifespan


@asynccontextmanager
async def _background(app: FastAPI, services: Services) -> AsyncIterator[None]:
    """Run the background loops while the application serves."""
    app.state.services = services
    counters: Counters = app.state.limits.counters
    logger.info("image source: %s", services.pool.name)
    # Log an unreachable Redis at startup, not at the first request.
    await counters.probe()
    try:
        async with running_loops(
            *services.loops(),
            counters.probe_forever(),
        ):
            yield
    finally:
        await counters.close()
        with contextlib.suppress(DatabaseException):
            await services.heartbeat.stop()
