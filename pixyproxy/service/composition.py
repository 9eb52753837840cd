"""The composition root: which object gets which. Nothing else builds services."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from anyio import CapacityLimiter

from pixyproxy.core.settings import Settings
from pixyproxy.data.database import Database
from pixyproxy.data.init import open_database
from pixyproxy.data.secrets import load_or_create_secret
from pixyproxy.data.store.local import LocalStore
from pixyproxy.service.cursors import CursorCodec
from pixyproxy.service.private.access_tokens import AccessTokens
from pixyproxy.service.private.api_keys import ApiKeyService
from pixyproxy.service.private.audit import AuditService
from pixyproxy.service.private.authentication import Authenticator
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.generation import GenerationService
from pixyproxy.service.private.images import ImageEditor
from pixyproxy.service.private.operations import OperationsService
from pixyproxy.service.private.passwords import PasswordHasher
from pixyproxy.service.private.recognized import RecognizedCredentials
from pixyproxy.service.private.recovery import Recovery
from pixyproxy.service.private.removal import TenantRemoval
from pixyproxy.service.private.signing_keys import KeyRing, open_key_ring
from pixyproxy.service.private.tenants import TenantService
from pixyproxy.service.private.token_status import TokenStatusService
from pixyproxy.service.private.tokens import TokenLifetimes, TokenService
from pixyproxy.service.private.trusted_issuers import TrustedIssuers, open_trusted_issuers
from pixyproxy.service.private.upstream.picture import PictureLimits, Upstream
from pixyproxy.service.private.users import UserService
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
    operations: OperationsService
    api_keys: ApiKeyService
    users: UserService
    tenants: TenantService
    key_ring: KeyRing
    recognized: RecognizedCredentials
    authenticator: Authenticator
    tokens: TokenService
    token_status: TokenStatusService
    audit: AuditService


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Every service, on an open and migrated database; closed again on exit, work under way first.

    Raises ``DatabaseException`` where the database cannot be used.
    """
    database = await open_database(settings)
    upstream = open_upstream(settings)
    trusted_issuers = open_trusted_issuers(settings.trusted_issuers)
    services = _compose(settings, database, upstream, trusted_issuers)
    try:
        yield services
    finally:
        await services.tasks.drain(LAST_SECONDS)
        await upstream.close()
        await trusted_issuers.close()
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


def _compose(settings: Settings, database: Database, upstream: Upstream, trusted_issuers: TrustedIssuers) -> Services:
    store = LocalStore(settings.images, room_bytes=settings.max_picture_bytes)
    tasks = DetachedTasks()
    secret = settings.secret_key or load_or_create_secret(settings.data_dir, "secret_key")
    cursors = CursorCodec(secret)
    key_ring = open_key_ring(settings)
    access_tokens = AccessTokens(keys=key_ring, issuer=settings.issuer)
    recognized = RecognizedCredentials()
    passwords = PasswordHasher(anyio.Semaphore(settings.password_checks_at_once))
    removal = TenantRemoval(database=database, store=store)
    return Services(
        settings=settings,
        database=database,
        store=store,
        upstream=upstream,
        tasks=tasks,
        recovery=Recovery(
            database=database,
            store=store,
            removal=removal,
            limits=_limits(settings),
            longest_call_seconds=settings.upstream_timeout_seconds + RECOVERY_MARGIN_SECONDS,
        ),
        image_reader=ImageReader(database=database, store=store, cursors=cursors),
        image_editor=ImageEditor(database=database, store=store),
        generation=GenerationService(
            database=database, store=store, upstream=upstream, tasks=tasks, default_model=settings.default_model
        ),
        operations=OperationsService(database),
        api_keys=ApiKeyService(database=database, recognized=recognized),
        users=UserService(database=database, passwords=passwords, recognized=recognized),
        tenants=TenantService(
            database=database,
            default_visibility=settings.default_visibility,
            removal=removal,
            tasks=tasks,
            recognized=recognized,
        ),
        key_ring=key_ring,
        recognized=recognized,
        authenticator=Authenticator(
            database=database,
            access_tokens=access_tokens,
            trusted_issuers=trusted_issuers,
            recognized=recognized,
            tasks=tasks,
        ),
        tokens=TokenService(
            database=database,
            access_tokens=access_tokens,
            passwords=passwords,
            lifetimes=TokenLifetimes(access=settings.access_token_seconds, refresh=settings.refresh_token_seconds),
            password_sign_in=settings.password_sign_in,
            recognized=recognized,
        ),
        token_status=TokenStatusService(database=database, access_tokens=access_tokens, recognized=recognized),
        audit=AuditService(database=database, cursors=cursors),
    )
