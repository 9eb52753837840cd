"""Rate limits: requests per tenant or address, pictures per tenant and key, and failed credentials.

Dependencies count requests: the policies of ``auth.policies`` by tenant, ``PROBE`` and ``SIGN_IN`` by address.
All routes of a class share their buckets.
"""

from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Literal

from fastapi import Depends
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.exceptions import HTTPException
from starlette.requests import Request

from pixyproxy.core.exceptions import TooManyFailuresException
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.settings import Settings
from pixyproxy.web.rate_limits.addresses import client_address
from pixyproxy.web.rate_limits.buckets import SCOPE_KEY, Bucket, Counted, RemainingLimit, digest
from pixyproxy.web.rate_limits.counters import Counters
from pixyproxy.web.rate_limits.guarded_route import Admission
from pixyproxy.web.rate_limits.image_limits import ImageLimits, create_image_limits

TOO_MANY_REFUSALS = "This credential was refused too often. Wait for `Retry-After` seconds and use another."
REFUSALS_PER_MINUTE = 120
"""How often a subject may be refused for a missing scope; each refusal adds an audit log row."""

RequestClass = Literal["read", "change", "sign-in", "probe"]


@dataclass(frozen=True)
class RateLimits:
    """The limits of one application."""

    settings: Settings
    counters: Counters
    images: ImageLimits

    async def count(self, request: Request, policy: RequestClass, caller: Principal | None = None) -> None:
        """Count a request once, for the caller's tenant or else its address. Raise a 429 if the limit is reached."""
        if SCOPE_KEY in request.scope:
            return
        owner = f"address:{client_address(request)}" if caller is None else f"tenant:{caller.tenant_guid}"
        bucket = Bucket(policy, owner, self._size(policy))
        counted = request.scope[SCOPE_KEY] = Counted((bucket,))
        has_room, remaining = await self.counters.ask(partial(_hit_and_measure, bucket))
        counted.remaining = (remaining,)
        if not has_room:
            headers = {"Retry-After": str(counted.retry_after_seconds)}
            raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, headers=headers)

    async def refuse_guessing(self, address: str, name: str | None) -> None:
        """Raise ``TooManyFailuresException`` if the address or name has no failures left; count nothing."""
        _refuse(await self.counters.ask(partial(_measure, self._failure_buckets(address, name))))

    async def is_used_up(self, address: str) -> bool:
        """Return whether the address has no failures left; count nothing."""
        (by_address,) = await self.counters.ask(partial(_measure, self._failure_buckets(address, None)))
        return by_address.remaining == 0

    async def note_failure(self, address: str, name: str | None, *, cost: int = 1) -> None:
        """Count a wrong credential as ``cost`` failures of the address and one of the name."""
        by_address, *by_name = self._failure_buckets(address, name)

        async def count(limiter: MovingWindowRateLimiter) -> None:
            await _spend(by_address, cost, limiter)
            for bucket in by_name:
                await _spend(bucket, 1, limiter)

        await self.counters.ask(count)

    async def note_refusal(self, subject: str) -> None:
        """Count a refusal for a missing scope. Raise ``TooManyFailuresException`` if there are too many."""
        bucket = Bucket("refusals", digest(subject), RateLimitItemPerMinute(REFUSALS_PER_MINUTE))
        has_room, remaining = await self.counters.ask(partial(_hit_and_measure, bucket))
        if not has_room:
            _refuse((remaining,), TOO_MANY_REFUSALS)

    def _size(self, policy: RequestClass) -> RateLimitItemPerSecond | RateLimitItemPerMinute:
        if policy == "change":
            return RateLimitItemPerMinute(self.settings.changes_per_minute)
        if policy == "sign-in":
            return RateLimitItemPerMinute(self.settings.sign_ins_per_minute)
        return RateLimitItemPerSecond(self.settings.reads_per_second)

    def _failure_buckets(self, address: str, name: str | None) -> tuple[Bucket, ...]:
        size = RateLimitItemPerMinute(self.settings.failures_per_address)
        by_address = Bucket("failures", f"address:{address}", size)
        if name is None:
            return (by_address,)
        # Hashed because clients choose names of any length.
        return by_address, Bucket(
            "failures-of-name", digest(name), RateLimitItemPerMinute(self.settings.failures_per_name)
        )


@dataclass(frozen=True)
class AddressLimit(Admission):
    """A dependency that counts requests by address."""

    policy: RequestClass

    async def __call__(self, request: Request) -> None:
        """Count the request. Raise a 429 if the limit is reached."""
        limits: RateLimits = request.app.state.limits
        await limits.count(request, self.policy)


SIGN_IN = Depends(AddressLimit("sign-in"))
PROBE = Depends(AddressLimit("probe"))
"""For routes without a tenant; the limit is that of reads."""


def create_rate_limits(settings: Settings) -> RateLimits:
    """Return the limits for these settings. Raise ``ConfigurationException`` if the Redis URL is invalid."""
    return RateLimits(settings, Counters(settings.redis_url), create_image_limits(settings))


async def _hit_and_measure(bucket: Bucket, limiter: MovingWindowRateLimiter) -> tuple[bool, RemainingLimit]:
    has_room = await limiter.hit(bucket.size, bucket.owner, bucket.policy)
    (remaining,) = await _measure((bucket,), limiter)
    return has_room, remaining


async def _measure(buckets: tuple[Bucket, ...], limiter: MovingWindowRateLimiter) -> tuple[RemainingLimit, ...]:
    return tuple(
        [each.remaining(await limiter.get_window_stats(each.size, each.owner, each.policy)) for each in buckets]
    )


async def _spend(bucket: Bucket, cost: int, limiter: MovingWindowRateLimiter) -> None:
    """Count ``cost``, or as much as there is room for."""
    if not await limiter.hit(bucket.size, bucket.owner, bucket.policy, cost=cost):
        (left,) = await _measure((bucket,), limiter)
        if left.remaining:
            await limiter.hit(bucket.size, bucket.owner, bucket.policy, cost=min(cost, left.remaining))


def _refuse(remaining: tuple[RemainingLimit, ...], message: str | None = None) -> None:
    used_up = [each.reset_seconds for each in remaining if each.remaining == 0]
    if used_up:
        raise TooManyFailuresException(message, retry_after_seconds=max(used_up))
