"""Where limits are counted: in Redis for all processes, or in this process without Redis and while it is away."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import ConfigurationError, StorageError
from pydantic import SecretStr

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.web.rate_limits.memory_storage import AsyncProcessStorage

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Question = Callable[[MovingWindowRateLimiter], Coroutine[Any, Any, Answer]]
"""What to count or look up: any number of commands."""

REDIS_SECONDS = 0.2
"""How long Redis may take for a question, the connection included."""
WAITS = 10
"""In so many parts the time is waited for."""
RETRY_SECONDS = 1.0
QUESTIONS_AT_ONCE = 16
"""How many connections are opened: a burst of requests must not spend its time on opening one for each."""
KEY_PREFIX = "pixyproxy"
FAILURES = (StorageError, OSError)
PROBE = RateLimitItemPerSecond(1)


class Counters:
    """Moving windows of ``limits.aio``.

    After the first failure of Redis everything is counted in this process, until ``probe_forever`` finds Redis
    back: no request waits for a server that is known to be away. Logs and errors never contain any part of the URL,
    which has the password.
    """

    def __init__(self, redis_url: SecretStr | None) -> None:
        """Raise ``ConfigurationException`` if the URL is invalid. Connections are opened when they are needed."""
        self._local = MovingWindowRateLimiter(AsyncProcessStorage())
        self._pool: ConnectionPool | None = None
        self._shared: MovingWindowRateLimiter | None = None
        if redis_url is not None:
            self._pool, storage = _open_redis(redis_url)
            self._shared = MovingWindowRateLimiter(storage)
        self._available = True
        self._slots = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    @property
    def held(self) -> Literal["shared", "local"] | None:
        """``shared`` if Redis counts, ``local`` while it is away, None if there is no Redis."""
        if self._shared is None:
            return None
        return "shared" if self._available else "local"

    async def ask(self, question: Question[Answer]) -> Answer:
        """Return the answer of Redis, or of this process if Redis is away or takes too long."""
        if self._shared is not None and self._available:
            try:
                return await _answer_in_time(self._ask_redis(question, self._shared))
            except FAILURES as error:
                self._lose(error)
        return await question(self._local)

    async def probe(self) -> None:
        """Ask Redis, and log if it is lost or back. By a hit, since a full Redis still answers a PING."""
        if self._shared is None:
            return
        try:
            await _answer_in_time(self._shared.hit(PROBE, "probe"))
        except FAILURES as error:
            self._lose(error)
        else:
            if not self._available:
                self._available = True
                logger.info("Redis is back: limits hold for all processes")

    async def probe_forever(self) -> None:
        """Ask once a second for a Redis that is away, until cancelled."""
        while self._shared is not None:
            await asyncio.sleep(RETRY_SECONDS)
            if not self._available:
                await self.probe()

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._pool is not None:
            await self._pool.aclose()

    async def _ask_redis(self, question: Question[Answer], redis: MovingWindowRateLimiter) -> Answer:
        async with self._slots:
            return await question(redis)

    def _lose(self, error: Exception) -> None:
        if self._available:
            self._available = False
            logger.warning(
                "Redis is lost (%s): limits hold in this process alone", type(error.__cause__ or error).__name__
            )


def _open_redis(url: SecretStr) -> "tuple[ConnectionPool, RedisStorage]":
    # Only a server with Redis loads its client, which takes 60 ms and 6 MB.
    from redis.asyncio import ConnectionPool  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.maint_notifications import MaintNotificationsConfig  # noqa: PLC0415

    try:
        pool = ConnectionPool.from_url(
            url.get_secret_value(),
            # A hit that is sent again counts twice.
            retry=Retry(NoBackoff(), 0),
            # Opening a connection takes one question, not four.
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        storage = RedisStorage(
            f"async+{url.get_secret_value()}",
            implementation="redispy",
            key_prefix=KEY_PREFIX,
            wrap_exceptions=True,
            connection_pool=pool,  # type: ignore[arg-type]  # limits passes it on to redis-py
        )
    except (ValueError, TypeError, ConfigurationError):
        message = "PIXYPROXY_REDIS_URL cannot be read. It looks like redis://user:password@host:6379/0."
        # The message of the error has parts of the URL.
        raise ConfigurationException(message) from None
    return pool, storage


async def _answer_in_time(question: Coroutine[Any, Any, Answer]) -> Answer:
    """Return the answer. Raise ``TimeoutError`` if it takes longer than ``REDIS_SECONDS``.

    Time in which the event loop stood still does not count, since the answer may have arrived unread: a wait that ends
    late counts like one that ends in time. A busy process must not take Redis for lost, and count for itself.
    """
    answer = asyncio.create_task(question)
    try:
        for _ in range(WAITS):
            await asyncio.wait({answer}, timeout=REDIS_SECONDS / WAITS)
            if answer.done():
                return answer.result()
        raise TimeoutError
    finally:
        answer.cancel()
