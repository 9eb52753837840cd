"""Orders and upstreams in a test's own transaction, with a time that the test advances."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from pixyproxy.core.models.generation import Generation, GenerationStatus, ProcessGuid
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.upstream import UpstreamId, UpstreamState
from pixyproxy.data.database import Repositories
from pixyproxy.service.private.upstream.pool import PooledUpstream
from pixyproxy.service.private.upstream.scheduling import Schedule, Scheduler
from tests.service.private.upstream.listing import FakeListing
from tests.support.builders import add_generation, stored_outcome

MODEL = "flare"
CALL_SECONDS = 600.0
ANY_NUMBER = 10_000


def pooled(
    name: str = "only",
    *,
    models: tuple[str, ...] | None = None,
    weight: int = 1,
    concurrency: int = 1,
    per_minute: int | None = None,
) -> PooledUpstream:
    """Return an upstream; parameters that are not given never limit a test."""
    return PooledUpstream(name, FakeListing(name), models, weight, concurrency, per_minute)


@dataclass
class Schedules:
    """Creates one schedule after the other, as the services do. ``begun`` are the orders that got a slot, in order."""

    data: Repositories
    scheduler: Scheduler
    now: float = 1_800_000_000.0
    begun: list[Generation] = field(default_factory=list)

    def open(self) -> Schedule:
        """Return a schedule for the current time."""
        states = self.data.upstreams.list_named(list(self.scheduler.upstreams), lock=True)
        return Schedule(self.scheduler, self.data, states, self.now)

    def order(self, tenant_id: TenantId, model: str = MODEL) -> Generation:
        """Add an order, which starts if no other order waits and a slot is free."""
        schedule = self.open()
        slot = schedule.free_slot(tenant_id, model)
        held = {} if slot is None else asdict(slot)
        status = GenerationStatus.ACCEPTED if slot is None else GenerationStatus.CALLING
        created_at = datetime.fromtimestamp(int(self.now), UTC)
        generation = add_generation(self.data, tenant_id, status=status, model=model, created_at=created_at, **held)
        begun = schedule.start_waiting(limit=ANY_NUMBER) if slot is None else [generation]
        schedule.require_room(tenant_id, model)
        schedule.save()
        self.begun += begun
        return generation

    def end(self, generation: Generation, error: BaseException | None = None) -> list[Generation]:
        """Settle a started order, and start the next."""
        current = self.find(generation)
        schedule = self.open()
        outcome = stored_outcome(status=GenerationStatus.FAILED if error else GenerationStatus.STORED)
        assert self.data.generations.settle(current.id, outcome, tenant_id=current.tenant_id)
        schedule.leave(current, error)
        return self._begin(schedule)

    def settle(self, generation: Generation) -> None:
        """Settle an order without starting another."""
        outcome = stored_outcome(status=GenerationStatus.FAILED)
        assert self.data.generations.settle(generation.id, outcome, tenant_id=generation.tenant_id)

    def put_back(self, generation: Generation, excluded: frozenset[UpstreamId]) -> None:
        """Return an order to the queue for other upstreams."""
        assert self.data.queue.put_back(self.find(generation), excluded=excluded, error=None)

    def tick(self) -> list[Generation]:
        """Start what time alone allows."""
        return self._begin(self.open())

    def find(self, generation: Generation) -> Generation:
        """Return an order's current row."""
        found = self.data.generations.get(generation.id, tenant_id=generation.tenant_id)
        assert found is not None
        return found

    @property
    def at_work(self) -> list[Generation]:
        """Return the orders with a slot, oldest first."""
        return self._list(GenerationStatus.CALLING)

    @property
    def waiting(self) -> list[Generation]:
        """Return the waiting orders, oldest first."""
        return self._list(GenerationStatus.ACCEPTED)

    @property
    def starts(self) -> dict[str, list[float]]:
        """Return when the orders started, by upstream."""
        found: dict[str, list[float]] = defaultdict(list)
        for generation in self.begun:
            found[generation.upstream or ""].append(generation.started_at or 0.0)
        return found

    def _list(self, status: GenerationStatus) -> list[Generation]:
        listed = self.data.generations.list_of_status(status, limit=ANY_NUMBER)
        return [generation for _, generation in reversed(listed)]

    def upstream_of(self, generation: Generation) -> str | None:
        """Return the present or last upstream of an order; None if it waits."""
        return self.find(generation).upstream

    def position(self, generation: Generation) -> int:
        """Return the position of a waiting order."""
        return self.open().queue_positions(generation.tenant_id)[generation.id][0]

    def states(self) -> Mapping[str, UpstreamState]:
        """Return the upstreams by name."""
        return {state.name: state for state in self.data.upstreams.list_named(list(self.scheduler.upstreams))}

    def _begin(self, schedule: Schedule) -> list[Generation]:
        begun = schedule.start_waiting(limit=ANY_NUMBER)
        schedule.save()
        self.begun += begun
        return begun


def open_schedules(
    data: Repositories, upstreams: Sequence[PooledUpstream], *, queue_size: int = ANY_NUMBER
) -> Schedules:
    """Create the schedules of a process with these upstreams."""
    scheduler = Scheduler(
        upstreams={each.name: each for each in upstreams},
        owner=ProcessGuid("this"),
        call_seconds=CALL_SECONDS,
        queue_size=queue_size,
    )
    scheduler.register(data, revision=0)
    return Schedules(data, scheduler)
