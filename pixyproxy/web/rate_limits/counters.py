"""Counters of the limits: in Redis for all processes, or in this process without Redis or while it is unavailable."""

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
"""Commands that count or read, on the given limiter."""

REDIS_SECONDS = 0.2
"""Timeout of all commands of a question, including the connection."""
WAITS = 10
"""Number of parts that the timeout is divided into."""
RETRY_SECONDS = 1.0
QUESTIONS_AT_ONCE = 16
"""Maximum number of connections: a burst of requests must not open one for each."""
KEY_PREFIX = "pixyproxy"
FAILURES = (StorageError, OSError)
PROBE = RateLimitItemPerSecond(1)


class Counters:
    """Moving windows of ``limits.aio``.

    After the first Redis failure this process counts by itself until ``probe_forever`` succeeds, so that no request
    waits for an unavailable server. Logs and errors never contain any part of the URL, because it has the password.
    """

    def __init__(self, redis_url: SecretStr | None) -> None:
        """Raise ``ConfigurationException`` if the URL is invalid. Connections are opened on demand."""
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
        """``shared`` if Redis counts, ``local`` while it is unavailable, None without Redis."""
        if self._shared is None:
            return None
        return "shared" if self._available else "local"

    async def ask(self, question: Question[Answer]) -> Answer:
        """Return the result from Redis, or from this process if Redis is unavailable or too slow."""
        if self._shared is not None and self._available:
            try:
                return await _answer_in_time(self._ask_redis(question, self._shared))
            except FAILURES as error:
                self._lose(error)
        return await question(self._local)

    async def probe(self) -> None:
        """Check Redis and log changes of its state. A hit is used because a full Redis still answers PING."""
        if self._shared is None:
            return
        try:
            await _answer_in_time(self._shared.hit(PROBE, "probe"))
        except FAILURES as error:
            self._lose(error)
        else:
            if not self._available:
                self._available = True
                logger.info("Redis is available again: limits are shared by all processes")

    async def probe_forever(self) -> None:
        """Check an unavailable Redis once a second, until cancelled."""
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
                "Redis is unavailable (%s): limits hold for this process only", type(error.__cause__ or error).__name__
            )


def _open_redis(url: SecretStr) -> "tuple[ConnectionPool, RedisStorage]":
    # Imported only if Redis is configured: its client takes 60 ms and 6 MB to load.
    from redis.asyncio import ConnectionPool  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.maint_notifications import MaintNotificationsConfig  # noqa: PLC0415

    try:
        pool = ConnectionPool.from_url(
            url.get_secret_value(),
            # A hit that is retried would count twice.
            retry=Retry(NoBackoff(), 0),
            # Opening a connection takes one round trip instead of four.
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
        message = "PIXYPROXY_REDIS_URL is invalid. Use the form redis://user:password@host:6379/0."
        # No cause: the error's message contains parts of the URL.
        raise ConfigurationException(message) from None
    return pool, storage


async def _answer_in_time(question: Coroutine[Any, Any, Answer]) -> Answer:
    """Return the result. Raise ``TimeoutError`` if it takes longer than ``REDIS_SECONDS``.

    Time in which the event loop was blocked does not count, because the result may have arrived unread: a wait that
    ends late counts like one that ends on time. A busy process must not treat Redis as unavailable and count by itself.
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
