"""Rate limits: slowapi's decorators, keyed by tenant.

The decorators go on inside the router factories, since a limiter that several applications share counts
twice (slowapi 0.1.10), and a limit is of one application's settings.
"""

import math
import time

from slowapi import Limiter
from starlette.requests import Request


def create_limiter() -> Limiter:
    """A limiter of its own for one application. ``endpoint`` makes one bucket a route, not one a URL."""
    return Limiter(key_func=tenant_key, key_style="endpoint")


def tenant_key(request: Request) -> str:
    """The tenant of the request's principal. Never empty: slowapi skips the limit for an empty key."""
    guid: str = request.state.principal.tenant_guid
    return guid


def seconds_until_reset(request: Request) -> int:
    """How long until the limit that a request ran into has room again, at least 1."""
    limit, arguments = request.state.view_rate_limit
    limiter: Limiter = request.app.state.limiter
    reset_at, _ = limiter.limiter.get_window_stats(limit, *arguments)
    return max(1, math.ceil(reset_at - time.time()))
