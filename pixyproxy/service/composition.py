"""The composition root: which object gets which. Nothing else builds services."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from anyio import CapacityLimiter

from pixyproxy.core.settings import Settings
from pixyproxy.data.database import Database
from pixyproxy.data.init import open_database
from pixyproxy.data.secrets import load_or_create_secret
from pixyproxy.data.store.local import LocalStore
from pixyproxy.service.private.api_keys import ApiKeyService
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.generation import GenerationService
from pixyproxy.service.private.images import ImageEditor
from pixyproxy.service.private.recovery import Recovery
from pixyproxy.service.private.tenants import TenantService
from pixyproxy.service.private.upstream.picture import PictureLimits, Upstream
from pixyproxy.service.public.cursors import CursorCodec
from pixyproxy.service.public.images import ImageReader

logger = logging.getLogger(__name__)

RECOVERY_MARGIN_SECONDS = 60
"""Beyond the upstream's time: what storing and committing may take at the worst."""
LAST_SECONDS = 1
"""For work under way when the HTTP server has waited ``shutdown_seconds`` for it already."""
SKETCHES_AT_ONCE = 2


@dataclass(frozen=True)
class Services:
    """Every service of a running PixyProxy."""

    settings: Settings
    database: Database
    store: LocalStore
    upstream: Upstream
    tasks: DetachedTasks
    recovery: Recovery
    image_reader: ImageReader
    image_editor: ImageEditor
    generation: GenerationService
    api_keys: ApiKeyService
    tenants: TenantService


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Every service, on an open and migrated database; closed again on exit, work under way first.

    Raises ``DatabaseException`` where the database cannot be used.
    """
    database = await open_database(settings)
    upstream = open_upstream(settings)
    services = _compose(settings, database, upstream)
    try:
        yield services
    finally:
        await services.tasks.drain(LAST_SECONDS)
        await upstream.close()
        await database.close()


async def migrate_database(settings: Settings) -> None:
    """Connect, migrate and verify, and nothing more. Raises ``DatabaseException``."""
    database = await open_database(settings)
    await database.close()


def open_upstream(settings: Settings) -> Upstream:
    """The OpenAI Images API where a key is set, the offline generator where none is: never one for the other."""
    limits = _limits(settings)
    if settings.openai_api_key is None:
        from pixyproxy.service.private.upstream.offline import OfflineUpstream  # noqa: PLC0415  (loaded only if used)

        return OfflineUpstream(limits=limits, threads=CapacityLimiter(SKETCHES_AT_ONCE))
    # The SDK takes 0.4 s and 25 MB to load, which a server without a key never needs.
    from pixyproxy.service.private.upstream.openai_images import open_openai_upstream  # noqa: PLC0415

    return open_openai_upstream(settings, api_key=settings.openai_api_key.get_secret_value(), limits=limits)


def _limits(settings: Settings) -> PictureLimits:
    return PictureLimits(max_bytes=settings.max_picture_bytes, max_pixels=settings.max_picture_pixels)


def _compose(settings: Settings, database: Database, upstream: Upstream) -> Services:
    store = LocalStore(settings.images, room_bytes=settings.max_picture_bytes)
    tasks = DetachedTasks()
    secret = settings.secret_key or load_or_create_secret(settings.data_dir, "secret_key")
    return Services(
        settings=settings,
        database=database,
        store=store,
        upstream=upstream,
        tasks=tasks,
        recovery=Recovery(
            database=database,
            store=store,
            limits=_limits(settings),
            longest_call_seconds=settings.upstream_timeout_seconds + RECOVERY_MARGIN_SECONDS,
        ),
        image_reader=ImageReader(database=database, store=store, cursors=CursorCodec(secret)),
        image_editor=ImageEditor(database=database, store=store),
        generation=GenerationService(database=database, store=store, upstream=upstream, tasks=tasks),
        api_keys=ApiKeyService(database),
        tenants=TenantService(database=database, default_visibility=settings.default_visibility),
    )
