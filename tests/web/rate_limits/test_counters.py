"""Counters: exact in this process and in Redis, and no errors while Redis is unavailable."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator

import pytest
from limits import RateLimitItemPerMinute
from limits.aio.strategies import MovingWindowRateLimiter
from pydantic import SecretStr

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.web.rate_limits.counters import REDIS_SECONDS, Counters
from pixyproxy.web.rate_limits.memory_storage import ProcessStorage
from tests.support.process import wait_until
from tests.support.redis import PASSWORD, RedisServer

LOGGER = "pixyproxy.web.rate_limits.counters"


@pytest.fixture
async def shared(redis: RedisServer) -> AsyncIterator[Counters]:
    """Yield counters in their own Redis."""
    counters = Counters(SecretStr(redis.url))
    yield counters
    await counters.close()


async def hits(counters: Counters, key: str, limit: int, *, attempts: int = 100) -> int:
    """Return how many of the concurrent attempts fit in a minute."""

    async def hit(limiter: MovingWindowRateLimiter) -> bool:
        return await limiter.hit(RateLimitItemPerMinute(limit), key)

    return sum(await asyncio.gather(*(counters.ask(hit) for _ in range(attempts))))


async def until_held(counters: Counters, held: str) -> None:
    """Wait until limits are held there, while Redis is probed as in a server."""
    probing = asyncio.create_task(counters.probe_forever())
    await asyncio.to_thread(wait_until, lambda: counters.held == held, what=held)
    probing.cancel()


def test_window_accepts_up_to_its_limit() -> None:
    storage = ProcessStorage()
    assert sum(storage.acquire_entry("a", 60, 60) for _ in range(100)) == 60
    assert sum(storage.acquire_entry("b", 1, 60) for _ in range(100)) == 1
    assert storage.get_moving_window("a", 60, 60)[1] == 60


def test_cost_is_counted_whole_or_not_at_all() -> None:
    storage = ProcessStorage()
    assert storage.acquire_entry("a", 15, 60, amount=10)
    assert not storage.acquire_entry("a", 15, 60, amount=10)
    assert storage.get_moving_window("a", 15, 60)[1] == 10
    assert not storage.acquire_entry("b", 15, 60, amount=16)


def test_expired_entries_make_room() -> None:
    storage = ProcessStorage()
    assert storage.acquire_entry("a", 1, 1)
    oldest, count = storage.get_moving_window("a", 1, 1)
    assert (count, storage.acquire_entry("a", 1, 1)) == (1, False)
    time.sleep(max(0.0, oldest + 1.01 - time.time()))
    assert storage.get_moving_window("a", 1, 1)[1] == 0
    assert storage.acquire_entry("a", 1, 1)


def test_idle_keys_are_removed() -> None:
    storage = ProcessStorage()
    for number in range(2_000):
        storage.acquire_entry(str(number), 5, 1)
    assert len(storage) > 0
    time.sleep(1.1)
    for _ in range(1_001):
        storage.acquire_entry("busy", 5_000, 60)
    assert len(storage) == 1


@pytest.mark.anyio
async def test_process_counts_without_redis() -> None:
    counters = Counters(None)
    assert await hits(counters, "a", 60) == 60
    assert counters.held is None
    await counters.probe()
    await counters.probe_forever()
    await counters.close()


@pytest.mark.anyio
async def test_processes_share_bucket_in_redis(shared: Counters, redis: RedisServer) -> None:
    other = Counters(SecretStr(redis.url))
    taken = [await hits(random.choice((shared, other)), "a", 60, attempts=10) for _ in range(10)]
    assert sum(taken) == 60
    assert (shared.held, other.held) == ("shared", "shared")
    await other.close()


@pytest.mark.anyio
async def test_redis_key_expires(shared: Counters, redis: RedisServer) -> None:
    assert await hits(shared, "a", 60, attempts=1) == 1
    with redis.client() as client:
        keys = client.keys("*")
        assert isinstance(keys, list)
        assert [1 <= int(str(client.ttl(key))) <= 60 for key in keys] == [True]


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["killed", "frozen", "full"])
async def test_limits_hold_locally_while_redis_is_unavailable(
    fault: str, shared: Counters, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert await hits(shared, "a", 60) == 60
    begin, end = {
        "killed": (redis.kill, redis.start),
        "frozen": (redis.freeze, redis.thaw),
        "full": (lambda: fill(redis, 1), lambda: fill(redis, 0)),
    }[fault]
    begin()
    assert await hits(shared, "b", 60) == 60
    assert shared.held == "local"
    # No request waits for an unavailable server; otherwise a hundred hits would take a hundred times as long.
    began = time.monotonic()
    assert [await hits(shared, "b", 60, attempts=1) for _ in range(100)] == [0] * 100
    assert time.monotonic() - began < 100 * REDIS_SECONDS / 4
    end()
    await until_held(shared, "shared")
    assert await hits(shared, "c", 60) == 60
    records = [(each.levelname, each.message) for each in caplog.records if each.name == LOGGER]
    assert [level for level, _ in records] == ["WARNING", "INFO"]
    assert "unavailable" in records[0][1]
    assert PASSWORD not in caplog.text
    assert "sesame" not in caplog.text


def fill(redis: RedisServer, maximum: int) -> None:
    """Make Redis refuse writes above so many bytes; 0 removes the limit."""
    with redis.client() as client:
        client.config_set("maxmemory", maximum)


@pytest.mark.anyio
async def test_busy_process_keeps_using_redis(shared: Counters) -> None:
    async def stand_still() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            time.sleep(2 * REDIS_SECONDS)  # noqa: ASYNC251  (blocks the event loop like a busy process)

    assert await hits(shared, "a", 60, attempts=1) == 1
    counted, _ = await asyncio.gather(hits(shared, "a", 60), stand_still())
    assert counted == 59
    assert shared.held == "shared"


@pytest.mark.anyio
async def test_wrong_redis_password_counts_as_unavailable(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    counters = Counters(SecretStr(redis.url.replace("sesame", "mustard")))
    assert await hits(counters, "a", 60) == 60
    assert counters.held == "local"
    await counters.close()
    assert "mustard" not in caplog.text


@pytest.mark.anyio
async def test_unreachable_redis_does_not_stop_requests(redis: RedisServer) -> None:
    redis.kill()
    counters = Counters(SecretStr(redis.url))
    await counters.probe()
    assert counters.held == "local"
    assert await hits(counters, "a", 60) == 60
    redis.start()
    await until_held(counters, "shared")
    await counters.close()


@pytest.mark.parametrize(
    "url", ["redis://:pa/ss@host:6379", "redis://host:port", "redis://[secret", "rediss://h:99999999"]
)
def test_invalid_redis_url_is_not_repeated_in_error(url: str) -> None:
    with pytest.raises(ConfigurationException, match="PIXYPROXY_REDIS_URL") as caught:
        Counters(SecretStr(url))
    assert url.removeprefix("redis://") not in str(caught.value)
    assert caught.value.__suppress_context__
