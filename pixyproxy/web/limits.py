"""Rate limits: how many requests a tenant, a key or an address may make, and how many credentials may be wrong.

Every route belongs to one class, by a decorator in its router factory: ``limits.read(endpoint)``. All routes of
a class share their buckets, which slowapi counts. The decorators are methods of an object that each application
has for itself, since a limiter that several applications share counts twice (slowapi 0.1.10).
"""

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast, get_args

from anyio import CapacityLimiter, to_thread
from fastapi import Depends
from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from slowapi import Limiter
from starlette.requests import Request

from pixyproxy.core import clock
from pixyproxy.core.exceptions import ImageLimitException, TooManyFailuresException
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.settings import Settings
from pixyproxy.web.buckets import (
    SCOPE_KEY,
    Bucket,
    Counted,
    Counter,
    RateLimitHeaders,
    RemainingLimit,
    amount_of,
    client_address,
    digest,
    image_bucket,
    owner_of_address,
    owner_of_caller,
    slowapi_counter,
)
from pixyproxy.web.process_storage import ProcessStorage

if TYPE_CHECKING:
    from pixyproxy.web.shared_storage import SharedStorage

__all__ = [
    "RateLimitHeaders",
    "RateLimits",
    "RemainingLimit",
    "admission_of",
    "client_address",
    "create_rate_limits",
    "seconds_until_reset",
]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Any]])
Result = TypeVar("Result")
Admission = Callable[[Request], Awaitable[object]]
ADMISSION = "pixyproxy_admission"
"""The attribute of a limited endpoint."""
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
TOO_MANY_REFUSALS = "This credential was refused too often. Wait as long as `Retry-After` says, and use another."
REFUSALS_PER_MINUTE = 120
"""How often a subject may be refused for want of a scope; each refusal is a row of the audit log."""


@dataclass(frozen=True)
class RateLimits:
    """The limits of one application; ``shared`` is None where they are those of this process alone.

    A decorated endpoint is counted by a dependency, before its other ones but for the principal. So a request
    that is malformed counts too, where slowapi's usual place, around the endpoint, would never see it. Routes with a
    body are counted before that is read (``admission_of``); no request is counted twice.
    """

    settings: Settings
    limiter: Limiter
    shared: "SharedStorage | None"
    counters: dict[tuple[str, ...], Counter]
    # slowapi keeps the request on an object that all requests share while it works out a limit of its own for
    # each, so it may not run twice at once; and it waits for Redis, so it may not run in the event loop.
    one_thread: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))

    def generation(self, endpoint: Endpoint) -> Endpoint:
        """Images: so many a minute of a tenant, and of a key that has a limit of its own."""
        return self._limited_by_caller(endpoint, lambda _, principal: self._image_buckets(principal))

    def read(self, endpoint: Endpoint) -> Endpoint:
        """Reads: so many a second of a tenant, or of an address without a credential."""
        size = RateLimitItemPerSecond(self.settings.reads_per_second)
        return self._limited_by_caller(
            endpoint, lambda request, caller: (Bucket("read", owner_of_caller(request, caller), size),)
        )

    def change(self, endpoint: Endpoint) -> Endpoint:
        """Changes and acts of administration: so many a minute of a tenant."""
        size = RateLimitItemPerMinute(self.settings.changes_per_minute)
        return self._limited_by_caller(
            endpoint, lambda request, caller: (Bucket("change", owner_of_caller(request, caller), size),)
        )

    def sign_in(self, endpoint: Endpoint) -> Endpoint:
        """Requests for tokens: so many a minute of an address, whoever it says it is."""
        return self._limited_by_address(endpoint, "sign-in", RateLimitItemPerMinute(self.settings.sign_ins_per_minute))

    def probe(self, endpoint: Endpoint) -> Endpoint:
        """What tells nothing of a tenant: as many as reads, by address."""
        return self._limited_by_address(endpoint, "probe", RateLimitItemPerSecond(self.settings.reads_per_second))

    async def refuse_guessing(self, address: str, name: str | None) -> None:
        """Raise ``TooManyFailuresException`` while the address or the name has no failure left; counts nothing."""
        buckets = self._failure_buckets(address, name)
        self._refuse(await self._run(lambda: self._measure(buckets)))

    async def is_used_up(self, address: str) -> bool:
        """Return whether the address has no failure left; counts nothing."""
        buckets = self._failure_buckets(address, None)
        return any(each.remaining == 0 for each in await self._run(lambda: self._measure(buckets)))

    async def note_failure(self, address: str, name: str | None, *, cost: int = 1) -> None:
        """Count a wrong credential; it costs the address ``cost``, and the name one."""
        by_address, *by_name = self._failure_buckets(address, name)

        def count() -> None:
            self._spend(by_address, cost)
            for bucket in by_name:
                self._spend(bucket, 1)

        await self._run(count)

    async def note_refusal(self, subject: str) -> None:
        """Count a refusal for want of a scope; raise ``TooManyFailuresException`` where there were too many."""
        bucket = Bucket("refusals", digest(subject), RateLimitItemPerMinute(REFUSALS_PER_MINUTE))
        if not await self._run(lambda: self._spend(bucket, 1)):
            self._refuse(await self._run(lambda: self._measure((bucket,))), TOO_MANY_REFUSALS)

    async def count_anonymous(self, request: Request) -> None:
        """Count a request without a credential for what needs one, as a read of its address."""
        size = RateLimitItemPerSecond(self.settings.reads_per_second)
        await self._count(request, (Bucket("read", owner_of_address(request), size),))

    async def remaining_images(self, principal: Principal) -> list[RemainingLimit]:
        """What is left of the principal's limits of images; counts nothing."""
        return list(await self._run(lambda: self._measure(self._image_buckets(principal))))

    async def count_more_images(self, request: Request, principal: Principal, more: int) -> None:
        """Count the further pictures of an order, all or none of them; the request itself counts as the first.

        Raises ``ImageLimitException`` where fewer are left.
        """
        if more < 1:
            return
        buckets = self._image_buckets(principal)

        def count() -> bool:
            if any(self._remaining(bucket).remaining < more for bucket in buckets):
                return False
            # Another process may have been quicker, so that there is room no more.
            return all(self._hit(bucket, more) for bucket in buckets)

        counted = await self._run(count)
        remaining = await self._run(lambda: self._measure(buckets))
        request.scope[SCOPE_KEY] = Counted(buckets, remaining)
        if not counted:
            raise ImageLimitException(retry_after_seconds=max(each.reset_seconds for each in remaining))

    async def ask_storage(self) -> None:
        """Ask once, so that the log tells at the start, not with the first request, where Redis is away."""
        await self._run(lambda: self.limiter.limiter.storage.get("start"))

    @property
    def held(self) -> Literal["shared", "local"] | None:
        """Who counts: ``shared`` for Redis, ``local`` while it is away, None where none was asked for."""
        if self.shared is None:
            return None
        return "shared" if self.shared.available else "local"

    def close(self) -> None:
        """Let go of Redis."""
        if self.shared is not None:
            self.shared.close()

    def _limited_by_caller(
        self, endpoint: Endpoint, buckets_of: Callable[[Request, Any], tuple[Bucket, ...]]
    ) -> Endpoint:
        """Count once the endpoint's own principal is known, which authentication notes on the request."""
        parameters = inspect.signature(endpoint).parameters.values()
        caller = next((each for each in parameters if _is_principal(each.annotation)), None)
        if caller is None:
            problem = f"{endpoint.__name__} takes no principal: it can only be limited by address"
            raise TypeError(problem)
        recognize: Admission = get_args(caller.annotation)[1].dependency

        async def admit(request: Request) -> None:
            await recognize(request)
            await self._count(request, buckets_of(request, request.state.principal))

        return _counted(endpoint, admit, after=caller.name)

    def _limited_by_address(self, endpoint: Endpoint, policy: str, size: RateLimitItem) -> Endpoint:
        async def admit(request: Request) -> None:
            await self._count(request, (Bucket(policy, owner_of_address(request), size),))

        return _counted(endpoint, admit)

    async def _count(self, request: Request, buckets: tuple[Bucket, ...]) -> None:
        """Raise ``RateLimitExceeded`` if one of the buckets is full; what is left is noted for the headers."""
        if SCOPE_KEY in request.scope:
            return
        counted = request.scope[SCOPE_KEY] = Counted(buckets)
        counter = self.counters[tuple(bucket.policy for bucket in buckets)]

        def count() -> None:
            try:
                counter(request)
            finally:
                counted.remaining = self._measure(buckets)

        await self._run(count)

    async def _run(self, work: Callable[[], Result]) -> Result:
        """The result of ``work``, which speaks with the storage: in a thread where that may be Redis."""
        if self.shared is None:
            return work()
        return await to_thread.run_sync(work, limiter=self.one_thread)

    def _measure(self, buckets: tuple[Bucket, ...]) -> tuple[RemainingLimit, ...]:
        return tuple(self._remaining(bucket) for bucket in buckets)

    def _remaining(self, bucket: Bucket) -> RemainingLimit:
        reset_at, left = self.limiter.limiter.get_window_stats(bucket.size, bucket.owner, bucket.policy)
        amount, window = bucket.size.amount, bucket.size.get_expiry()
        # A whole second more than what is over of one: the oldest entry counts at its very end, too.
        seconds = 0 if left >= amount > 0 else min(int(max(0.0, reset_at - clock.seconds())) + 1, window)
        return RemainingLimit(policy=bucket.policy, limit=amount, remaining=max(0, left), reset_seconds=seconds)

    def _spend(self, bucket: Bucket, cost: int) -> bool:
        """Count ``cost``, or as much of it as there is room for; whether there was room for all."""
        strategy = self.limiter.limiter
        if self._hit(bucket, cost):
            return True
        while strategy.hit(bucket.size, bucket.owner, bucket.policy):
            pass
        return False

    def _hit(self, bucket: Bucket, cost: int) -> bool:
        return self.limiter.limiter.hit(bucket.size, bucket.owner, bucket.policy, cost=cost)

    def _refuse(self, remaining: tuple[RemainingLimit, ...], message: str | None = None) -> None:
        used_up = [each.reset_seconds for each in remaining if each.remaining == 0]
        if used_up:
            raise TooManyFailuresException(message, retry_after_seconds=max(used_up))

    def _failure_buckets(self, address: str, name: str | None) -> tuple[Bucket, ...]:
        size = RateLimitItemPerMinute(self.settings.failures_per_address)
        by_address = Bucket("failures", f"address:{address}", size)
        if name is None:
            return (by_address,)
        # A client chose the name, of any length.
        size = RateLimitItemPerMinute(self.settings.failures_per_name)
        return by_address, Bucket("failures-of-name", digest(name), size)

    def _image_buckets(self, principal: Principal) -> tuple[Bucket, ...]:
        """The key's own limit first: what it refuses must not use up what the tenant has."""
        of_tenant = principal.tenant_images_per_minute
        amount = self.settings.images_per_minute if of_tenant is None else of_tenant
        tenant = image_bucket("generation", f"tenant:{principal.tenant_guid}", amount)
        if principal.key_images_per_minute is None:
            return (tenant,)
        return image_bucket("generation-key", digest(principal.subject), principal.key_images_per_minute), tenant


def create_rate_limits(settings: Settings) -> RateLimits:
    """The limits of these settings, with nothing counted yet in this process. Redis is not asked before the first."""
    shared = {} if settings.redis_url is None else {"redis_url": settings.redis_url}
    if shared:
        # It registers its scheme as it loads, which takes the time of the client of Redis.
        import pixyproxy.web.shared_storage  # noqa: F401, PLC0415
    limiter = Limiter(
        key_func=client_address,
        key_style="endpoint",
        strategy="moving-window",
        storage_uri="shared:" if shared else "process:",
        storage_options=cast("dict[str, str]", shared),
    )
    # slowapi reads RATELIMIT_ENABLED as well; only settings of ours decide here.
    limiter.enabled = True
    storage = limiter.limiter.storage
    per_second = f"{settings.reads_per_second}/second"
    counters = [
        slowapi_counter(limiter, {"generation": amount_of}),
        slowapi_counter(limiter, {"generation-key": amount_of, "generation": amount_of}),
        slowapi_counter(limiter, {"read": per_second}),
        slowapi_counter(limiter, {"change": f"{settings.changes_per_minute}/minute"}),
        slowapi_counter(limiter, {"sign-in": f"{settings.sign_ins_per_minute}/minute"}),
        slowapi_counter(limiter, {"probe": per_second}),
    ]
    return RateLimits(
        settings,
        limiter,
        None if isinstance(storage, ProcessStorage) else cast("SharedStorage", storage),
        dict(counters),
    )


def seconds_until_reset(request: Request) -> int:
    """How long until the limit that a request ran into has room again, at least 1."""
    counted: Counted = request.scope[SCOPE_KEY]
    return max([1, *(each.reset_seconds for each in counted.remaining if each.remaining == 0)])


def _is_principal(annotation: object) -> bool:
    """Whether this is ``Annotated[Principal, …]`` or ``Annotated[Principal | None, …]``."""
    kind = next(iter(get_args(annotation)), None)
    return kind is Principal or Principal in get_args(kind)


def admission_of(endpoint: Callable[..., Any]) -> Admission:
    """Return what recognizes the caller of a limited endpoint and counts the request, once for each request."""
    admit: Admission = endpoint.__dict__[ADMISSION]
    return admit


def _counted(endpoint: Endpoint, admit: Admission, *, after: str | None = None) -> Endpoint:
    """The endpoint with a parameter more, for which FastAPI calls ``admit``: before any other but ``after``.

    FastAPI takes parameters in their order, and whatever raises first is the answer.
    """
    signature = inspect.signature(endpoint)

    @functools.wraps(endpoint)
    async def limited(*, rate_limit: None, **arguments: object) -> object:  # noqa: ARG001  (FastAPI fills it)
        return await endpoint(**arguments)

    counted = inspect.Parameter("rate_limit", KEYWORD_ONLY, annotation=Annotated[None, Depends(admit)])
    own = [parameter.replace(kind=KEYWORD_ONLY) for parameter in signature.parameters.values()]
    before = [parameter for parameter in own if parameter.name == after]
    others = [parameter for parameter in own if parameter.name != after]
    limited.__dict__["__signature__"] = signature.replace(parameters=[*before, counted, *others])
    limited.__dict__[ADMISSION] = admit
    return cast("Endpoint", limited)
