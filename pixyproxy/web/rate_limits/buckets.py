"""Rate limit buckets and response headers."""

import hashlib
from dataclasses import dataclass

from limits import RateLimitItem
from limits.util import WindowStats
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixyproxy.core import clock
from pixyproxy.core.models.base import FrozenModel

SCOPE_KEY = "pixyproxy.rate_limits"


class RemainingLimit(FrozenModel):
    """What is left of a limit; the oldest counted request expires after ``reset_seconds``."""

    policy: str
    limit: int
    remaining: int
    reset_seconds: int


@dataclass(frozen=True)
class Bucket:
    """A counter for requests: the limit's name, owner and size."""

    policy: str
    owner: str
    size: RateLimitItem

    def remaining(self, stats: WindowStats) -> RemainingLimit:
        """Return what is left of the limit."""
        amount, window, left = self.size.amount, self.size.get_expiry(), stats.remaining
        # Rounded up by a whole second: the oldest entry still counts at the end of its window.
        seconds = 0 if left >= amount > 0 else min(int(max(0.0, stats.reset_time - clock.seconds())) + 1, window)
        return RemainingLimit(policy=self.policy, limit=amount, remaining=max(0, left), reset_seconds=seconds)


@dataclass
class Counted:
    """The buckets of one request, and what was left of them after it was counted."""

    buckets: tuple[Bucket, ...]
    remaining: tuple[RemainingLimit, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of draft-ietf-httpapi-ratelimit-headers-10: each limit, and what is left of it."""
        policies = [f'"{each.policy}";q={each.size.amount};w={each.size.get_expiry()}' for each in self.buckets]
        left = [f'"{each.policy}";r={each.remaining};t={each.reset_seconds}' for each in self.remaining]
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}

    @property
    def retry_after_seconds(self) -> int:
        """The seconds until every exhausted limit has room again, at least 1."""
        return max([1, *(each.reset_seconds for each in self.remaining if each.remaining == 0)])


@dataclass(frozen=True)
class RateLimitHeaders:
    """Add rate limit headers to every response to a counted request."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_with_limits(message: Message) -> None:
            counted: Counted | None = scope.get(SCOPE_KEY)
            if counted is not None and message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(counted.headers)
            await send(message)

        await self.app(scope, receive, send_with_limits if scope["type"] == "http" else send)


def digest(name: str) -> str:
    """Return a text of fixed length for a name of any length."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
