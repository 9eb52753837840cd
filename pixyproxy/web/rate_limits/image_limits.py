"""Pictures per minute of a tenant and of a key: slowapi's limiter on the routes that call the upstream.

It counts in the memory of this process, as a cheap guard.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from slowapi import Limiter
from starlette.requests import Request

from pixyproxy.core.exceptions import ImageLimitException
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.settings import Settings
from pixyproxy.web.rate_limits.buckets import SCOPE_KEY, Bucket, Counted, RemainingLimit, digest

TENANT, KEY = "generation", "generation-key"


@dataclass(frozen=True)
class ImageLimits:
    """The limits of one application; slowapi (0.1.10) counts twice if applications share a limiter."""

    default_per_minute: int
    limiter: Limiter
    guard: Callable[[Request], Awaitable[None]]

    async def count_request(self, request: Request, principal: Principal) -> None:
        """Count a request as one picture, once. Raise ``RateLimitExceeded`` if the limit is reached."""
        if SCOPE_KEY in request.scope:
            return
        counted = request.scope[SCOPE_KEY] = Counted(self._buckets(principal))
        try:
            await self.guard(request)
        finally:
            counted.remaining = self._measure(counted.buckets)

    def count_more(self, request: Request, principal: Principal, more: int) -> None:
        """Count more pictures of the request, all or none. Raise ``ImageLimitException`` if too few are left."""
        if more < 1:
            return
        buckets = self._buckets(principal)
        has_room = all(each.remaining >= more for each in self._measure(buckets))
        if has_room:
            for bucket in buckets:
                self.limiter.limiter.hit(bucket.size, bucket.owner, bucket.policy, cost=more)
        remaining = self._measure(buckets)
        request.scope[SCOPE_KEY] = Counted(buckets, remaining)
        if not has_room:
            raise ImageLimitException(retry_after_seconds=max(each.reset_seconds for each in remaining))

    def remaining(self, principal: Principal) -> tuple[RemainingLimit, ...]:
        """Return what is left of the principal's limits."""
        return self._measure(self._buckets(principal))

    def _measure(self, buckets: tuple[Bucket, ...]) -> tuple[RemainingLimit, ...]:
        stats = self.limiter.limiter.get_window_stats
        return tuple(each.remaining(stats(each.size, each.owner, each.policy)) for each in buckets)

    def _buckets(self, principal: Principal) -> tuple[Bucket, ...]:
        """Return the key's bucket, if it is limited, then the tenant's, which the key's refusals do not use up."""
        amount = principal.tenant_images_per_minute
        tenant = _bucket(TENANT, self.default_per_minute if amount is None else amount, principal.tenant_guid)
        if principal.key_images_per_minute is None:
            return (tenant,)
        return _bucket(KEY, principal.key_images_per_minute, digest(principal.subject)), tenant


def create_image_limits(settings: Settings) -> ImageLimits:
    """Return the image limits for these settings."""
    limiter = Limiter(key_func=_owner_in(TENANT), strategy="moving-window", storage_uri="process:")
    # slowapi also reads RATELIMIT_ENABLED, but only PixyProxy's own settings may decide.
    limiter.enabled = True

    @limiter.shared_limit(_amount, scope=TENANT)
    @limiter.shared_limit(_amount, scope=KEY, key_func=_owner_in(KEY), exempt_when=_has_no_limited_key)
    async def guard(request: Request) -> None:
        """Do nothing: slowapi's decorators count the request."""

    return ImageLimits(settings.images_per_minute, limiter, guard)


def _bucket(policy: str, per_minute: int, owner: str) -> Bucket:
    """Return a bucket whose owner starts with the amount, because slowapi derives the amount from the owner."""
    return Bucket(policy, f"{per_minute} {owner}", RateLimitItemPerMinute(per_minute))


def _amount(key: str) -> str:
    return f"{key.partition(' ')[0]}/minute"


def _owner_in(policy: str) -> Callable[[Request], str]:
    def owner(request: Request) -> str:
        """Return the owner of the bucket; slowapi asks even if the request is exempt from the limit."""
        buckets: tuple[Bucket, ...] = request.scope[SCOPE_KEY].buckets
        return next((each.owner for each in buckets if each.policy == policy), buckets[0].owner)

    return owner


def _has_no_limited_key(request: Request) -> bool:
    buckets: tuple[Bucket, ...] = request.scope[SCOPE_KEY].buckets
    return all(each.policy != KEY for each in buckets)
