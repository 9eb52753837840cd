"""Limits counted in Redis for all processes, and in this one while Redis is away.

A storage of ``limits``, registered by its scheme as it documents, so that slowapi takes it by URI. Only a server with
PIXYPROXY_REDIS_URL loads this module: the client of Redis takes 60 ms and 6 MB.
"""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from limits.storage import MovingWindowSupport, RedisStorage, Storage
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.web.process_storage import ProcessStorage

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

REDIS_SECONDS = 0.2
"""How long Redis may take, for a connection and for an answer: it is near, or of no use for limits."""
RETRY_SECONDS = 1.0
KEY_PREFIX = "pixyproxy"
PROBE_KEY = "probe"


class SharedStorage(Storage, MovingWindowSupport):
    """Counts in Redis; while it is away, in this process, so that nothing fails and limits still hold here.

    The first error moves the count over at once, and from then on a thread of its own asks for Redis once a
    second: no request waits for a server that is known to be away. Nothing of the URL, which holds the
    password, gets into a log line or an error.
    """

    STORAGE_SCHEME = ["shared"]  # noqa: RUF012  (the base class declares it as an attribute of instances)

    def __init__(self, uri: str | None = None, *, redis_url: SecretStr, **_: object) -> None:
        super().__init__(uri)
        try:
            self._redis = RedisStorage(
                redis_url.get_secret_value(),
                key_prefix=KEY_PREFIX,
                socket_timeout=REDIS_SECONDS,
                socket_connect_timeout=REDIS_SECONDS,
                retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]  # limits passes any option on to redis-py
            )
        except (ValueError, TypeError):
            message = "PIXYPROXY_REDIS_URL cannot be read. It looks like redis://user:password@host:6379/0."
            # The error's own words hold parts of the URL.
            raise ConfigurationException(message) from None
        self._here = ProcessStorage()
        self._lost = threading.Event()
        self._closed = threading.Event()
        self._change = threading.Lock()
        self._search: threading.Thread | None = None

    @property
    def available(self) -> bool:
        """Whether Redis counts, as far as is known."""
        return not self._lost.is_set()

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """What Redis raises, none of which gets out of here."""
        return RedisError

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count ``amount`` if there is room for all of it."""
        return self._ask(lambda storage: storage.acquire_entry(key, limit, expiry, amount))

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The time of the oldest entry that still counts, now without one, and how many do."""
        return self._ask(lambda storage: storage.get_moving_window(key, limit, expiry))

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count in a fixed window, and return the count."""
        return self._ask(lambda storage: storage.incr(key, expiry, amount))

    def get(self, key: str) -> int:
        """The count of a fixed window."""
        return self._ask(lambda storage: storage.get(key))

    def get_expiry(self, key: str) -> float:
        """When a fixed window ends."""
        return self._ask(lambda storage: storage.get_expiry(key))

    def clear(self, key: str) -> None:
        """Forget one bucket, here and in Redis."""
        self._here.clear(key)
        self._ask(lambda storage: storage.clear(key))

    def reset(self) -> int | None:
        """Forget all buckets, here and in Redis."""
        self._here.reset()
        return self._ask(lambda storage: storage.reset())

    def check(self) -> bool:
        """Limits can be counted, with Redis or without."""
        return True

    def close(self) -> None:
        """Let go of Redis."""
        with self._change:
            self._closed.set()
            search = self._search
        if search is not None:
            search.join()
        self._redis.storage.close()

    def _ask(self, question: Callable[[RedisStorage | ProcessStorage], Answer]) -> Answer:
        if not self._lost.is_set():
            try:
                return question(self._redis)
            except (RedisError, OSError) as error:
                self._give_up(error)
        return question(self._here)

    def _give_up(self, error: Exception) -> None:
        with self._change:
            if self._lost.is_set() or self._closed.is_set():
                return
            self._lost.set()
            self._search = threading.Thread(target=self._search_redis, name="redis-search", daemon=True)
            self._search.start()
        logger.warning("Redis is lost (%s): limits hold in this process alone", type(error).__name__)

    def _search_redis(self) -> None:
        """Ask once a second for what limits need of Redis: a server may take connections and refuse to write."""
        while not self._closed.wait(RETRY_SECONDS):
            try:
                self._redis.acquire_entry(PROBE_KEY, 1, 1)
            except (RedisError, OSError):
                continue
            self._lost.clear()
            logger.info("Redis is back: limits hold for all processes")
            return
