"""Generation services over a real database, wired as in the server: one process, or several on one machine."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.models.budget import Spending
from pixyproxy.core.models.generation import Generation, GenerationWithImages
from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.models.order import NewOrder
from pixyproxy.core.models.price import PicturePrice, TokenPrice, TokenRates
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.database import Database
from pixyproxy.data.files.retained_answers import FOLDER, RetainedAnswers
from pixyproxy.data.files.spool import Spool
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.cursors import CursorCodec
from pixyproxy.service.private.billing.prices import Prices
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.generation.claims import Claims
from pixyproxy.service.private.generation.dispatch import Dispatcher
from pixyproxy.service.private.generation.engine import Engine
from pixyproxy.service.private.generation.inputs import InputReceiver, Upload
from pixyproxy.service.private.generation.progress import Progress
from pixyproxy.service.private.generation.recovery import Recovery
from pixyproxy.service.private.generation.settlement import Settlement
from pixyproxy.service.private.generation.slots import ProcessSlots
from pixyproxy.service.private.generation.submission import GenerationService, Submission
from pixyproxy.service.private.generation.watching import GenerationWatcher
from pixyproxy.service.private.removal import TenantRemoval
from pixyproxy.service.private.upstream.pool import PooledUpstream, UpstreamPool
from pixyproxy.service.private.upstream.scheduling import Scheduler
from tests.support.drawing import LIMITS

FOX = ImagePrompt(prompt="A red Fox, 2 hens & a 🦊!")
PRICE = 40_000
"""Micro-dollars for a picture of the model ``priced``."""
RATES = {"input_text": Decimal(1), "input_image": Decimal(1), "output_image": Decimal(10)}
PRICES = Prices(
    lists=(
        {
            "priced": PicturePrice.model_validate({"per_picture": Decimal("0.04")}),
            "by-tokens": TokenPrice.model_validate(
                {
                    "per_million_tokens": TokenRates.model_validate(RATES),
                    "most_output_tokens": {"*": {"*": 1000}},
                    "most_input_tokens": {"*": 1000},
                }
            ),
        },
    )
)
"""The model with a price; the model ``fake`` has none."""
LONG_ENOUGH = 20
ANY_NUMBER = 10_000


@dataclass(frozen=True)
class Process:
    """The generation services of one process and their shared objects."""

    database: Database
    store: LocalStore
    spool: Spool
    scheduler: Scheduler
    tasks: DetachedTasks
    slots: ProcessSlots
    progress: Progress
    engine: Engine
    dispatcher: Dispatcher
    service: GenerationService
    watcher: GenerationWatcher
    recovery: Recovery
    loops: list["asyncio.Task[None]"]

    async def submit(
        self,
        prompt: ImagePrompt | NewOrder = FOX,
        *,
        principal: Principal,
        key: str | None = None,
        uploads: Sequence[Upload] = (),
    ) -> Submission:
        """Order pictures."""
        return await self.service.submit(prompt, principal=principal, idempotency_key=key, uploads=uploads)

    async def make(
        self, prompt: ImagePrompt | NewOrder = FOX, *, principal: Principal, key: str | None = None
    ) -> GenerationWithImages:
        """Order pictures and wait for them; raise the error of the order if it fails."""
        submitted = await self.submit(prompt, principal=principal, key=key)
        return await self.watcher.outcome(submitted.guid, tenant_id=principal.tenant_id, seconds=LONG_ENOUGH)

    async def generation(self, guid: str) -> Generation:
        """Return a generation as stored in the table."""
        found = await self.database.read(lambda data: data.generations.find(guid))
        assert found is not None
        return found

    async def of_key(self, key: str, *, principal: Principal) -> Generation | None:
        """Return the generation with an Idempotency-Key, as stored in the table, or None."""
        return await self.database.read(
            lambda data: data.generations.get_by_idempotency_key(key, tenant_id=principal.tenant_id)
        )

    async def count_generations(self, tenant_id: TenantId) -> int:
        """Return the number of the tenant's generations."""
        statement = f"SELECT COUNT(*) FROM generations WHERE tenant_id = {tenant_id}"
        count: int = await self.database.read(lambda data: data.connection.exec_driver_sql(statement).scalar_one())
        return count

    async def spending(self, generation: Generation) -> Spending:
        """Return the budget that a generation is charged to."""
        month = generation.budget_month
        assert month is not None
        return await self.database.read(lambda data: data.budgets.get(month, tenant_id=generation.tenant_id))

    async def finish(self) -> None:
        """Wait until this process has finished its generations, including those that took freed slots."""
        await self.tasks.drain(LONG_ENOUGH)

    async def stop(self) -> None:
        """Stop without waiting, as a server does."""
        for loop in self.loops:
            loop.cancel()
        self.slots.open = False
        await self.tasks.drain(0)
        await self.recovery.close()

    @property
    def spooled(self) -> list[str]:
        """Return the names of all files in the spools of this machine, without locks."""
        return sorted(path.name for path in self.spool.folder.glob("*/*"))


async def start_process(  # noqa: PLR0913  (settings, by keyword)
    database: Database,
    store: LocalStore,
    *upstreams: PooledUpstream,
    queue_size: int = 1000,
    queue_seconds: float = LONG_ENOUGH,
    at_once: int = ANY_NUMBER,
    retry_window_seconds: float = 0,
) -> Process:
    """Start a process that shares database, store and spool folder with processes started alike.

    Each order is new unless ``retry_window_seconds`` says otherwise, since tests repeat their orders.
    """
    spool = Spool(store.folder.parent / "spool")
    answers = RetainedAnswers(spool.folder / FOLDER)
    pool = UpstreamPool(upstreams)
    tasks, progress, slots = DetachedTasks(), Progress(), ProcessSlots(at_once)
    scheduler = Scheduler(upstreams=pool.by_name, owner=spool.owner, call_seconds=LONG_ENOUGH, queue_size=queue_size)
    await database.write(lambda data: scheduler.register(data, revision=clock.seconds()))
    engine = Engine(
        database=database,
        spool=spool,
        answers=answers,
        store=store,
        pool=pool,
        scheduler=scheduler,
        slots=slots,
        progress=progress,
        settlement=Settlement(prices=PRICES),
        limits=LIMITS,
        tasks=tasks,
    )
    dispatcher = Dispatcher(
        database=database, scheduler=scheduler, slots=slots, engine=engine, queue_seconds=queue_seconds
    )
    service = GenerationService(
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
            images_per_minute=ANY_NUMBER,
        ),
        prices=PRICES,
        tasks=tasks,
        inputs=InputReceiver(database=database, store=store, limits=LIMITS),
        default_model="fake",
        only_model=None,
        default_options={},
        retry_window_seconds=retry_window_seconds,
    )
    removal = TenantRemoval(database=database, store=store, answers=answers)
    watcher = GenerationWatcher(
        database=database,
        store=store,
        scheduler=scheduler,
        progress=progress,
        cursors=CursorCodec(SecretStr("secret")),
    )
    loops = [asyncio.create_task(loop) for loop in (dispatcher.run_forever(), watcher.look_forever())]
    return Process(
        database=database,
        store=store,
        spool=spool,
        scheduler=scheduler,
        tasks=tasks,
        slots=slots,
        progress=progress,
        engine=engine,
        dispatcher=dispatcher,
        service=service,
        watcher=watcher,
        recovery=Recovery(
            database=database, store=store, spool=spool, engine=engine, dispatcher=dispatcher, removal=removal
        ),
        loops=loops,
    )
