"""What requests count in, how slowapi counts them there, and what an answer says of it."""

import functools
import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import slowapi.wrappers
from limits import RateLimitItem, RateLimitItemPerMinute, parse_many
from slowapi import Limiter
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.principal import Principal
from pixyproxy.web.addresses import network_of

Counter = Callable[[Request], None]
"""Raises slowapi's ``RateLimitExceeded`` if there is no room for the request."""
Amounts = dict[str, str | Callable[[str], str]]
"""Policy → its size as slowapi takes it: a text, or what makes the text of a bucket's key."""

SCOPE_KEY = "pixyproxy.rate_limits"

# slowapi reads a limit's text anew with each request, which takes longer than counting it. There are as many texts as
# there are different limits.
slowapi.wrappers.parse_many = functools.lru_cache(maxsize=1024)(parse_many)  # type: ignore[attr-defined]


class RemainingLimit(FrozenModel):
    """What is left of a limit: the oldest request that counts no longer does so after ``reset_seconds``."""

    policy: str
    limit: int
    remaining: int
    reset_seconds: int


@dataclass(frozen=True)
class Bucket:
    """What a request counts in: the limit's name, whose it is (never empty, or slowapi skips it), and its size."""

    policy: str
    owner: str
    size: RateLimitItem


@dataclass
class Counted:
    """The buckets of one request, and how they stand once it was counted."""

    buckets: tuple[Bucket, ...]
    remaining: tuple[RemainingLimit, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        """The fields of draft-ietf-httpapi-ratelimit-headers-10: each limit, and what is left of it."""
        policies = [f'"{each.policy}";q={each.size.amount};w={each.size.get_expiry()}' for each in self.buckets]
        left = [f'"{each.policy}";r={each.remaining};t={each.reset_seconds}' for each in self.remaining]
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}


@dataclass(frozen=True)
class RateLimitHeaders:
    """Puts what is left on every answer to a request that was counted, whatever the answer is."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_with_limits(message: Message) -> None:
            counted: Counted | None = scope.get(SCOPE_KEY)
            if counted is not None and message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(counted.headers)
            await send(message)

        await self.app(scope, receive, send_with_limits if scope["type"] == "http" else send)


def client_address(request: Request) -> str:
    """Whom limits by address hold for: an IPv4 address, or the /64 of an IPv6 one.

    From the connection alone, or what the server took for it from a proxy that it trusts. What is no address
    (a proxy may write ``unknown``) is one and the same client.
    """
    return network_of(request.client.host if request.client else "")


def slowapi_counter(limiter: Limiter, amounts: Amounts) -> tuple[tuple[str, ...], Counter]:
    """The policies of a request, and what counts it in the buckets that it brings along, in this order."""

    def count(request: Request) -> None:
        """When it gets here, slowapi's decorators have counted the request."""

    # slowapi keeps limits by the name of a function.
    count.__name__ = f"count_{'_'.join(amounts)}"
    counter: Counter = count
    for policy, amount in amounts.items():
        counter = limiter.shared_limit(amount, scope=policy, key_func=_owner_in(policy))(counter)
    return tuple(amounts), counter


def _owner_in(policy: str) -> Callable[[Request], str]:
    def owner_of(request: Request) -> str:
        counted: Counted = request.scope[SCOPE_KEY]
        return next(bucket.owner for bucket in counted.buckets if bucket.policy == policy)

    # slowapi asks for it with each request; made anew it takes as long as all the counting.
    owner_of.__dict__["__signature__"] = inspect.signature(owner_of)
    return owner_of


def image_bucket(policy: str, owner: str, per_minute: int) -> Bucket:
    """A bucket whose owner's name begins with its size: slowapi asks for the size with nothing but that name."""
    return Bucket(policy, f"{per_minute} {owner}", RateLimitItemPerMinute(per_minute))


def amount_of(key: str) -> str:
    """The size that an image bucket's key begins with; slowapi looks for the parameter by its name."""
    return f"{key.partition(' ')[0]}/minute"


def owner_of_caller(request: Request, caller: Principal | None) -> str:
    """The tenant, or where there is none the address."""
    return owner_of_address(request) if caller is None else f"tenant:{caller.tenant_guid}"


def owner_of_address(request: Request) -> str:
    """The address, whatever credential comes from there."""
    return f"address:{client_address(request)}"


def digest(name: str) -> str:
    """A name of a length that is known, for one that may be of any."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
