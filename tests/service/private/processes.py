"""Generation over a real database, wired as the server wires it: one process of it, or several on one machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from pydantic import SecretStr

from pixyproxy.core.models.budget import Spending
from pixyproxy.core.models.generation import Generation, GenerationWithImages
from pixyproxy.core.models.image import ImagePrompt
from pixyproxy.core.models.order import NewOrder
from pixyproxy.core.models.price import PicturePrice, TokenPrice, TokenRates
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.database import Database
from pixyproxy.data.kept_answers import FOLDER, KeptAnswers
from pixyproxy.data.spool import Spool
from pixyproxy.data.store.local import LocalStore
from pixyproxy.service.cursors import CursorCodec
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.generation.engine import Engine
from pixyproxy.service.private.generation.inputs import InputReceiver, Upload
from pixyproxy.service.private.generation.jobs import Jobs
from pixyproxy.service.private.generation.service import GenerationService, Submission
from pixyproxy.service.private.generation.settlement import Settlement
from pixyproxy.service.private.generation.watching import GenerationWatcher
from pixyproxy.service.private.prices import Prices
from pixyproxy.service.private.recovery import Recovery
from pixyproxy.service.private.removal import TenantRemoval
from pixyproxy.service.private.upstream.pool import PooledUpstream, UpstreamPool
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
"""What is priced, beside the model ``fake`` that has no price."""
LONG_ENOUGH = 20


@dataclass(frozen=True)
class Process:
    """The services that make pictures, and the objects that they share."""

    database: Database
    store: LocalStore
    spool: Spool
    pool: UpstreamPool
    tasks: DetachedTasks
    jobs: Jobs
    engine: Engine
    service: GenerationService
    watcher: GenerationWatcher
    recovery: Recovery

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
        """Order pictures and wait for them; what comes of the order is raised."""
        submitted = await self.submit(prompt, principal=principal, key=key)
        return await self.watcher.outcome(submitted.guid, tenant_id=principal.tenant_id, seconds=LONG_ENOUGH)

    async def generation(self, guid: str) -> Generation:
        """A generation as it stands in the table."""
        found = await self.database.read(lambda data: data.generations.find(guid))
        assert found is not None
        return found

    async def of_key(self, key: str, *, principal: Principal) -> Generation | None:
        """The generation that has an Idempotency-Key, as it stands in the table."""
        return await self.database.read(
            lambda data: data.generations.get_by_idempotency_key(key, tenant_id=principal.tenant_id)
        )

    async def count_generations(self, tenant_id: TenantId) -> int:
        """How many generations the tenant has."""
        statement = f"SELECT COUNT(*) FROM generations WHERE tenant_id = {tenant_id}"
        count: int = await self.database.read(lambda data: data.connection.exec_driver_sql(statement).scalar_one())
        return count

    async def spending(self, generation: Generation) -> Spending:
        """The budget that a generation is charged to."""
        month = generation.budget_month
        assert month is not None
        return await self.database.read(lambda data: data.budgets.get(month, tenant_id=generation.tenant_id))

    async def finish(self) -> None:
        """Wait until everything that was ordered is over."""
        await self.tasks.drain(LONG_ENOUGH)

    async def stop(self) -> None:
        """Stop, as a server does that waits for nothing."""
        await self.tasks.drain(0)
        await self.recovery.close()

    @property
    def spooled(self) -> list[str]:
        """The names of all files that the spools of this machine hold, but for locks."""
        return sorted(path.name for path in self.spool.folder.glob("*/*"))


def start_process(
    database: Database,
    store: LocalStore,
    *upstreams: PooledUpstream,
    queue_size: int = 1000,
    queue_seconds: float = LONG_ENOUGH,
) -> Process:
    """A process that shares database, store and spool's place with those that were started alike."""
    spool = Spool(store.folder.parent / "spool")
    answers = KeptAnswers(spool.folder / FOLDER)
    pool = UpstreamPool(upstreams, queue_size=queue_size)
    tasks, jobs = DetachedTasks(), Jobs()
    engine = Engine(
        database=database,
        spool=spool,
        answers=answers,
        store=store,
        pool=pool,
        jobs=jobs,
        settlement=Settlement(prices=PRICES),
        limits=LIMITS,
        queue_seconds=queue_seconds,
    )
    service = GenerationService(
        database=database,
        store=store,
        pool=pool,
        engine=engine,
        jobs=jobs,
        prices=PRICES,
        tasks=tasks,
        inputs=InputReceiver(database=database, store=store, limits=LIMITS),
        default_model="fake",
        only_model=None,
        default_options={},
    )
    removal = TenantRemoval(database=database, store=store, answers=answers)
    return Process(
        database=database,
        store=store,
        spool=spool,
        pool=pool,
        tasks=tasks,
        jobs=jobs,
        engine=engine,
        service=service,
        watcher=GenerationWatcher(
            database=database, store=store, spool=spool, jobs=jobs, cursors=CursorCodec(SecretStr("secret"))
        ),
        recovery=Recovery(
            database=database, store=store, spool=spool, engine=engine, generation=service, removal=removal
        ),
    )
