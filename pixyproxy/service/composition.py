"""The composition root: the only module that builds services and wires their dependencies."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.fair_slots import FairSlots
from pixyproxy.core.models.principal import Actor
from pixyproxy.core.models.upstream import UpstreamSettings
from pixyproxy.core.settings import DEFAULT_URL, Settings
from pixyproxy.data.database import Database
from pixyproxy.data.files.durable import keep_files_private
from pixyproxy.data.files.retained_answers import FOLDER as KEPT_FOLDER
from pixyproxy.data.files.retained_answers import RetainedAnswers
from pixyproxy.data.files.spool import Spool
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.data.init import open_database
from pixyproxy.data.threads import run_in_thread
from pixyproxy.data.wake_ups import QUEUE, WakeUps
from pixyproxy.service.cursors import CursorCodec
from pixyproxy.service.private.audit import AuditService
from pixyproxy.service.private.billing.prices import Prices, load_prices
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.generation.claims import Claims
from pixyproxy.service.private.generation.dispatch import Dispatcher
from pixyproxy.service.private.generation.engine import Engine
from pixyproxy.service.private.generation.inputs import InputReceiver
from pixyproxy.service.private.generation.progress import Progress
from pixyproxy.service.private.generation.received import PictureLimits
from pixyproxy.service.private.generation.recovery import Recovery
from pixyproxy.service.private.generation.resolution import OperationsService
from pixyproxy.service.private.generation.settlement import Settlement
from pixyproxy.service.private.generation.slots import ProcessSlots
from pixyproxy.service.private.generation.submission import GenerationService
from pixyproxy.service.private.generation.watching import GenerationWatcher
from pixyproxy.service.private.guarded_http import GuardedHttpClient, open_guarded_http_client
from pixyproxy.service.private.identity.api_keys import ApiKeyService
from pixyproxy.service.private.identity.authentication import Authenticator
from pixyproxy.service.private.identity.credential_cache import CredentialCache
from pixyproxy.service.private.identity.installation_secret import installation_secret
from pixyproxy.service.private.identity.oauth.access_tokens import AccessTokens
from pixyproxy.service.private.identity.oauth.key_vault import reseal
from pixyproxy.service.private.identity.oauth.signing_keys import KeyRing, open_key_ring
from pixyproxy.service.private.identity.oauth.token_status import TokenStatusService
from pixyproxy.service.private.identity.oauth.tokens import TokenLifetimes, TokenService
from pixyproxy.service.private.identity.oauth.trusted_issuers import TrustedIssuers, open_trusted_issuers
from pixyproxy.service.private.identity.passwords import PasswordHasher
from pixyproxy.service.private.identity.tenants import TenantService
from pixyproxy.service.private.identity.users import UserService
from pixyproxy.service.private.images import ImageEditor
from pixyproxy.service.private.removal import TenantRemoval
from pixyproxy.service.private.upstream.model_catalog import ModelCatalog
from pixyproxy.service.private.upstream.pool import PooledUpstream, UpstreamPool
from pixyproxy.service.private.upstream.scheduling import Scheduler
from pixyproxy.service.private.upstream.upstream import DEFAULT_NAME, OFFLINE_MODEL
from pixyproxy.service.private.webhooks.delivery import WebhookDelivery
from pixyproxy.service.private.webhooks.subscriptions import WebhookSecrets, WebhookService
from pixyproxy.service.processes import Heartbeat
from pixyproxy.service.public.images import ImageReader
from pixyproxy.service.public.readiness import ReadinessCheck

logger = logging.getLogger(__name__)

FILE_THREADS = 40
"""Maximum number of concurrent file operations; asyncio's default executor has 6 threads on two cores."""
SKETCHES_AT_ONCE = 2
PASSWORD_WAIT_SECONDS = 10


@dataclass(frozen=True)
class Services:
    """Every service of a running PixyProxy."""

    settings: Settings
    issuer: str
    database: Database
    store: LocalStore
    spool: Spool
    pool: UpstreamPool
    tasks: DetachedTasks
    slots: ProcessSlots
    dispatcher: Dispatcher
    recovery: Recovery
    readiness: ReadinessCheck
    image_reader: ImageReader
    image_editor: ImageEditor
    generation: GenerationService
    watcher: GenerationWatcher
    models: ModelCatalog
    operations: OperationsService
    api_keys: ApiKeyService
    users: UserService
    tenants: TenantService
    key_ring: KeyRing
    recognized: CredentialCache
    authenticator: Authenticator
    tokens: TokenService
    token_status: TokenStatusService
    audit: AuditService
    webhooks: WebhookService
    webhook_delivery: WebhookDelivery
    heartbeat: Heartbeat
    wake_ups: WakeUps

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the background loops, which run until cancelled."""
        return [
            self.dispatcher.run_forever(),
            self.watcher.look_forever(),
            self.recovery.run_forever(),
            self.webhook_delivery.run_forever(),
            self.key_ring.refresh_forever(),
            self.heartbeat.run_forever(),
            self.wake_ups.run_forever(self._wake),
        ]

    def _wake(self, message: str) -> None:
        """Wake the loop that a message from another process is meant for."""
        if message == QUEUE:
            self.dispatcher.wake()
        else:
            self.watcher.progress.wake(message)


@asynccontextmanager
async def open_services(
    settings: Settings, *, local_url: str = DEFAULT_URL, serves: bool = True, executes: bool = True
) -> AsyncIterator[Services]:
    """Open every service on a migrated database; on exit, finish running work and close everything.

    ``local_url`` is the URL that this process listens on: the issuer of access tokens unless a public URL is set.
    ``serves``: this process serves HTTP. ``executes``: it executes generations; if False, the orders it accepts wait
    for a process that does.
    Raises ``DatabaseException`` if the database cannot be used, and ``ConfigurationException`` if the secret, the
    signing keys or the prices are invalid.
    """
    keep_files_private()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(FILE_THREADS, "files"))
    database = await open_database(settings)
    try:
        kept = await _load_kept(settings, database)
    except BaseException:
        await database.close()
        raise
    pool = open_pool(settings)
    trusted_issuers = open_trusted_issuers(settings.trusted_issuers)
    targets = open_guarded_http_client(settings.webhook_allowed_hosts)
    services = _compose(
        kept,
        issuer=settings.base_url or local_url,
        database=database,
        pool=pool,
        trusted_issuers=trusted_issuers,
        targets=targets,
        serves=serves,
        executes=executes,
    )
    try:
        revision = clock.seconds()
        await database.write(lambda data: services.generation.scheduler.register(data, revision=revision))
        yield services
    finally:
        services.slots.open = False
        await services.tasks.drain(0)
        await services.recovery.close()
        await pool.close()
        await trusted_issuers.close()
        await targets.close()
        services.users.passwords.close()
        await database.close()


async def migrate_database(settings: Settings) -> None:
    """Connect to the database, migrate it and verify its schema. Raises ``DatabaseException``."""
    keep_files_private()
    database = await open_database(settings)
    await database.close()


async def verify_installation(settings: Settings) -> None:
    """Check that services would open: migrate, and load keys and prices. Raises as ``open_services`` does."""
    keep_files_private()
    database = await open_database(settings)
    try:
        await _load_kept(settings, database)
    finally:
        await database.close()


async def reseal_installation(settings: Settings, *, former: SecretStr | None, actor: Actor) -> None:
    """Re-encrypt the signing keys with the secret in the settings. Raises as ``reseal`` does."""
    keep_files_private()
    database = await open_database(settings)
    try:
        new = await run_in_thread(installation_secret, settings)
        await reseal(database, former=former, new=new, actor=actor)
    finally:
        await database.close()


def open_pool(settings: Settings) -> UpstreamPool:
    """Return the configured upstreams, or the offline generator if none is configured; the two are never mixed."""
    if settings.upstreams:
        return UpstreamPool([_pooled(each, settings) for each in settings.upstreams])
    if settings.openai_api_key is not None:
        only = UpstreamSettings(name=DEFAULT_NAME, base_url=settings.openai_base_url, api_key=settings.openai_api_key)
        return UpstreamPool([_pooled(only, settings)])
    from pixyproxy.service.private.upstream.offline.generator import OfflineUpstream  # noqa: PLC0415  (loaded only if used)

    offline = PooledUpstream(
        name="offline",
        upstream=OfflineUpstream(),
        models=None,
        weight=1,
        concurrency=SKETCHES_AT_ONCE,
        requests_per_minute=None,
    )
    return UpstreamPool([offline])


def _pooled(upstream: UpstreamSettings, settings: Settings) -> PooledUpstream:
    # The SDK takes 0.4 s and 25 MB to load; a server without a key does not need it.
    from pixyproxy.service.private.upstream.openai.images import open_openai_upstream  # noqa: PLC0415

    return PooledUpstream(
        upstream=open_openai_upstream(
            upstream,
            timeout_seconds=settings.upstream_timeout_seconds,
            connect_seconds=settings.upstream_connect_seconds,
            targets=open_guarded_http_client(settings.picture_allowed_hosts),
        ),
        **upstream.model_dump(include={"name", "models", "weight", "concurrency", "requests_per_minute"}),
    )


def retained_answers(settings: Settings) -> RetainedAnswers:
    """Return the folder of retained answers on this machine."""
    return RetainedAnswers(settings.data_dir / "spool" / KEPT_FOLDER)


@dataclass(frozen=True)
class _Kept:
    """Settings, secret, signing keys and prices, loaded before services are built."""

    settings: Settings
    secret: SecretStr
    key_ring: KeyRing
    prices: Prices


async def _load_kept(settings: Settings, database: Database) -> _Kept:
    """Load prices, the secret and the signing keys; create the secret and keys if they are missing."""
    prices = await run_in_thread(load_prices, settings.prices)
    secret = await run_in_thread(installation_secret, settings)
    return _Kept(
        settings=settings, secret=secret, key_ring=await open_key_ring(settings, database, secret), prices=prices
    )


def _limits(settings: Settings) -> PictureLimits:
    return PictureLimits(max_bytes=settings.max_picture_bytes, max_pixels=settings.max_picture_pixels)


def _compose(  # noqa: PLR0913  (the opened resources, all by keyword)
    kept: _Kept,
    *,
    issuer: str,
    database: Database,
    pool: UpstreamPool,
    trusted_issuers: TrustedIssuers,
    targets: GuardedHttpClient,
    serves: bool,
    executes: bool,
) -> Services:
    settings = kept.settings
    store = LocalStore(settings.images, room_bytes=settings.max_picture_bytes)
    tasks = DetachedTasks()
    cursors = CursorCodec(kept.secret)
    webhook_secrets = WebhookSecrets(kept.secret)
    access_tokens = AccessTokens(keys=kept.key_ring, issuer=issuer, is_named=settings.base_url is not None)
    recognized = CredentialCache()
    passwords = PasswordHasher(FairSlots(settings.password_checks_at_once, wait_seconds=PASSWORD_WAIT_SECONDS))
    spool = Spool(settings.data_dir / "spool")
    answers = retained_answers(settings)
    removal = TenantRemoval(database=database, store=store, answers=answers)
    wake_ups = WakeUps(settings.redis_url)
    progress, slots = Progress(publish=wake_ups.notify), ProcessSlots(settings.generations_at_once if executes else 0)
    scheduler = Scheduler(
        upstreams=pool.by_name,
        owner=spool.owner,
        call_seconds=settings.upstream_timeout_seconds,
        queue_size=settings.queue_size,
    )
    engine = Engine(
        database=database,
        spool=spool,
        answers=answers,
        store=store,
        pool=pool,
        scheduler=scheduler,
        slots=slots,
        progress=progress,
        settlement=Settlement(prices=kept.prices),
        limits=_limits(settings),
        tasks=tasks,
    )
    dispatcher = Dispatcher(
        database=database,
        scheduler=scheduler,
        slots=slots,
        engine=engine,
        queue_seconds=settings.queue_seconds,
    )
    generation = GenerationService(
        database=database,
        store=store,
        scheduler=scheduler,
        engine=engine,
        claims=Claims(
            database=database,
            scheduler=scheduler,
            slots=slots,
            engine=engine,
            tasks=tasks,
            images_per_minute=settings.images_per_minute,
        ),
        prices=kept.prices,
        tasks=tasks,
        inputs=InputReceiver(database=database, store=store, limits=_limits(settings)),
        default_model=settings.default_model,
        only_model=None if settings.upstreams or settings.openai_api_key else OFFLINE_MODEL,
        default_options=settings.default_options,
        retry_window_seconds=settings.retry_window_seconds,
    )
    return Services(
        settings=settings,
        issuer=issuer,
        database=database,
        store=store,
        spool=spool,
        pool=pool,
        tasks=tasks,
        slots=slots,
        dispatcher=dispatcher,
        recovery=Recovery(
            database=database, store=store, spool=spool, engine=engine, dispatcher=dispatcher, removal=removal
        ),
        readiness=ReadinessCheck(database=database, store=store),
        image_reader=ImageReader(database=database, store=store, cursors=cursors),
        image_editor=ImageEditor(database=database, store=store),
        generation=generation,
        watcher=GenerationWatcher(
            database=database, store=store, scheduler=scheduler, progress=progress, cursors=cursors
        ),
        models=ModelCatalog(pool),
        operations=OperationsService(database, answers),
        api_keys=ApiKeyService(database=database, recognized=recognized, cursors=cursors),
        users=UserService(database=database, passwords=passwords, recognized=recognized, cursors=cursors),
        tenants=TenantService(
            database=database,
            default_visibility=settings.default_visibility,
            removal=removal,
            tasks=tasks,
            recognized=recognized,
        ),
        key_ring=kept.key_ring,
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
        webhooks=WebhookService(database=database, secrets=webhook_secrets, targets=targets),
        webhook_delivery=WebhookDelivery(database=database, secrets=webhook_secrets, targets=targets),
        heartbeat=Heartbeat(database, redis=settings.redis_url is not None, serves=serves, executes=executes),
        wake_ups=wake_ups,
    )
