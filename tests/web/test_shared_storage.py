"""Where limits are counted: exact in this process and in Redis, and never an error when Redis goes away."""

import logging
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.web.process_storage import ProcessStorage
from pixyproxy.web.shared_storage import SharedStorage
from tests.support.process import wait_until
from tests.support.redis import PASSWORD, RedisServer

LOGGER = "pixyproxy.web.shared_storage"


@pytest.fixture
def shared(redis: RedisServer) -> Iterator[SharedStorage]:
    """A storage on a Redis of its own."""
    storage = SharedStorage(redis_url=SecretStr(redis.url))
    yield storage
    storage.close()


def hits(storage: ProcessStorage | SharedStorage, key: str, limit: int, *, attempts: int = 100) -> int:
    """How many of the attempts there is room for in a minute."""
    return sum(storage.acquire_entry(key, limit, 60) for _ in range(attempts))


def test_a_window_takes_as_many_as_it_has_room_for() -> None:
    storage = ProcessStorage()
    assert hits(storage, "a", 60) == 60
    assert hits(storage, "b", 1) == 1
    assert storage.get_moving_window("a", 60, 60)[1] == 60


def test_a_cost_is_taken_whole_or_not_at_all() -> None:
    storage = ProcessStorage()
    assert storage.acquire_entry("a", 15, 60, amount=10)
    assert not storage.acquire_entry("a", 15, 60, amount=10)
    assert storage.get_moving_window("a", 15, 60)[1] == 10
    assert not storage.acquire_entry("b", 15, 60, amount=16)


def test_what_has_left_the_window_makes_room() -> None:
    storage = ProcessStorage()
    assert storage.acquire_entry("a", 1, 1)
    oldest, count = storage.get_moving_window("a", 1, 1)
    assert (count, storage.acquire_entry("a", 1, 1)) == (1, False)
    time.sleep(max(0.0, oldest + 1.01 - time.time()))
    assert storage.get_moving_window("a", 1, 1)[1] == 0
    assert storage.acquire_entry("a", 1, 1)


def test_buckets_that_nobody_asks_for_are_forgotten() -> None:
    storage = ProcessStorage()
    for number in range(2_000):
        storage.acquire_entry(str(number), 5, 1)
    assert len(storage) > 0
    time.sleep(1.1)
    for _ in range(1_001):
        storage.acquire_entry("busy", 5_000, 60)
    assert len(storage) == 1


def test_threads_share_a_bucket_exactly() -> None:
    storage = ProcessStorage()
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: hits(storage, "a", 500), range(8))) == 500


def test_a_bucket_can_be_emptied(shared: SharedStorage) -> None:
    for storage in (ProcessStorage(), shared):
        assert hits(storage, "a", 3) == 3
        assert hits(storage, "b", 3) == 3
        storage.clear("a")
        assert (hits(storage, "a", 3), hits(storage, "b", 3)) == (3, 0)
        storage.reset()
        assert hits(storage, "b", 3) == 3


def test_fixed_windows_are_counted_too(shared: SharedStorage) -> None:
    for storage in (ProcessStorage(), shared):
        assert [storage.incr("a", 60) for _ in range(3)] == [1, 2, 3]
        assert storage.get("a") == 3
        assert 0 < storage.get_expiry("a") - time.time() <= 61
        assert storage.check()


def test_two_storages_share_a_bucket_in_redis(shared: SharedStorage, redis: RedisServer) -> None:
    other = SharedStorage(redis_url=SecretStr(redis.url))
    taken = [random.choice((shared, other)).acquire_entry("a", 60, 60) for _ in range(100)]
    assert taken == [True] * 60 + [False] * 40
    assert other.get_moving_window("a", 60, 60)[1] == shared.get_moving_window("a", 60, 60)[1] == 60
    other.close()


def test_a_key_in_redis_goes_by_itself(shared: SharedStorage, redis: RedisServer) -> None:
    assert shared.acquire_entry("a", 60, 60)
    with redis.client() as client:
        keys = client.keys("*")
        assert isinstance(keys, list)
        assert [1 <= int(str(client.ttl(key))) <= 60 for key in keys] == [True]


@pytest.mark.parametrize("fault", ["killed", "frozen", "full"])
def test_limits_hold_here_while_redis_is_away(
    fault: str, shared: SharedStorage, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert hits(shared, "a", 60) == 60
    assert shared.available
    begin, end = {
        "killed": (redis.kill, redis.start),
        "frozen": (redis.freeze, redis.thaw),
        "full": (lambda: fill(redis, 1), lambda: fill(redis, 0)),
    }[fault]
    begin()
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: hits(shared, "b", 60), range(8))) == 60
    assert not shared.available
    assert shared.get_moving_window("b", 60, 60)[1] == 60
    end()
    wait_until(lambda: shared.available, what="Redis being back")
    assert hits(shared, "c", 60) == 60
    records = [(each.levelname, each.message) for each in caplog.records if each.name == LOGGER]
    assert [level for level, _ in records] == ["WARNING", "INFO"]
    assert "lost" in records[0][1]
    assert PASSWORD not in caplog.text
    assert "sesame" not in caplog.text


def fill(redis: RedisServer, maximum: int) -> None:
    """Let Redis refuse to write, in so many bytes; 0 takes it back."""
    with redis.client() as client:
        client.config_set("maxmemory", maximum)


def test_a_wrong_password_is_as_good_as_no_redis(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    storage = SharedStorage(redis_url=SecretStr(redis.url.replace("sesame", "mustard")))
    assert hits(storage, "a", 60) == 60
    assert not storage.available
    storage.close()
    assert "mustard" not in caplog.text


def test_a_redis_that_was_never_there_stops_nothing(redis: RedisServer) -> None:
    redis.kill()
    storage = SharedStorage(redis_url=SecretStr(redis.url))
    assert hits(storage, "a", 60) == 60
    assert not storage.available
    redis.start()
    wait_until(lambda: storage.available, what="Redis being there")
    storage.close()


@pytest.mark.parametrize(
    "url", ["redis://:pa/ss@host:6379", "redis://host:port", "redis://[secret", "rediss://h:99999999"]
)
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationException, match="PIXYPROXY_REDIS_URL") as caught:
        SharedStorage(redis_url=SecretStr(url))
    assert url.removeprefix("redis://") not in str(caught.value)
    assert caught.value.__suppress_context__
