"""Redis dies, freezes and comes back under load: no request fails, and limits hold in each process.

``tests/web/rate_limits/test_counters.py`` has every fault of Redis in one process.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from tests.support.process import ServerProcess, new_api_key, running_server, wait_until
from tests.support.redis import PASSWORD, RedisServer
from tests.support.scale import scaled
from tests.support.server import make_settings

ANSWER_SECONDS = 30
"""A read that takes longer hangs, in any state of Redis."""
ABSENT_IMAGE = "/image/00000000-0000-4000-8000-000000000000"
# Few enough that all finish within the minute for which they count, on a slow machine too.
CHANGES = 20
SIGN_INS = 10


@dataclass(frozen=True)
class Stage:
    """Two server processes that count in one Redis."""

    redis: RedisServer
    one: ServerProcess
    two: ServerProcess
    api_key: str


@pytest.fixture
def stage(tmp_path: Path, redis: RedisServer) -> Iterator[Stage]:
    """Yield the running stage."""
    settings = make_settings(
        tmp_path,
        # The load is heavy for an embedded database, which is not under test.
        database_wait_seconds=30,
        changes_per_minute=CHANGES,
        reads_per_second=1_000_000,
        sign_ins_per_minute=SIGN_INS,
        redis_url=SecretStr(redis.url),
    )
    api_key = new_api_key(settings)
    with running_server(settings, tmp_path) as one, running_server(settings, tmp_path) as two:
        yield Stage(redis, one, two, api_key)


@dataclass(frozen=True)
class Readers:
    """Threads that read without a pause until they are stopped, and the responses they got."""

    stop: threading.Event
    seen: Counter[int]

    def read(self, server: ServerProcess, api_key: str) -> None:
        """Read repeatedly; a response that does not arrive in time ends the test."""
        with server.client(api_key, timeout=ANSWER_SECONDS) as client:
            while not self.stop.is_set():
                self.seen[client.get("/image").status_code] += 1


def limits_of(server: ServerProcess) -> object:
    """Return which counters hold the limits, from ``/readyz``."""
    with server.client() as client:
        return client.get("/readyz").raise_for_status().json()["limits"]


def count_of(status: int, server: ServerProcess, api_key: str | None, path: str, attempts: int) -> int:
    """Count the attempts with this status; the others must be limited."""
    with server.client(api_key) as client, ThreadPoolExecutor(4) as pool:

        def ask(_: int) -> int:
            if path == ABSENT_IMAGE:
                return client.delete(path).status_code
            return client.post(path, data={"grant_type": "x"}).status_code

        answers = Counter(pool.map(ask, range(attempts)))
    assert set(answers) <= {status, httpx2.codes.TOO_MANY_REQUESTS}
    return answers[status]


@pytest.mark.parametrize("fault", scaled(["frozen"], ["killed", "frozen"]))
def test_redis_goes_away_under_load(fault: str, stage: Stage) -> None:
    assert count_of(404, stage.one, stage.api_key, ABSENT_IMAGE, 5) == 5
    assert [limits_of(server) for server in (stage.one, stage.two)] == ["shared", "shared"]
    readers = Readers(threading.Event(), Counter())
    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(readers.read, server, stage.api_key) for server in (stage.one, stage.two) * 2]
        try:
            wait_until(lambda: readers.seen.total() > 100, what="the load")
            (stage.redis.kill if fault == "killed" else stage.redis.freeze)()
            wait_until(lambda: {limits_of(stage.one), limits_of(stage.two)} == {"local"}, what="the loss")
            for server in (stage.one, stage.two):
                assert count_of(404, server, stage.api_key, ABSENT_IMAGE, CHANGES + 20) == CHANGES
                assert count_of(400, server, None, "/auth/token", SIGN_INS + 20) == SIGN_INS
            (stage.redis.start if fault == "killed" else stage.redis.thaw)()
            wait_until(lambda: {limits_of(stage.one), limits_of(stage.two)} == {"shared"}, what="the recovery")
            before = readers.seen.total()
            wait_until(lambda: readers.seen.total() > before + 100, what="the load")
        finally:
            readers.stop.set()
        for future in reading:
            future.result()
    assert set(readers.seen) == {200}
    for server in (stage.one, stage.two):
        log = server.log.read_text()
        assert log.count("Redis is unavailable") == log.count("Redis is available again") == 1
        assert "Traceback" not in log
        assert PASSWORD not in log
        assert "sesame" not in log
    # From here on both count in Redis again: a killed Redis starts empty, a frozen one continues.
    made = [count_of(404, server, stage.api_key, ABSENT_IMAGE, CHANGES) for server in (stage.one, stage.two)]
    assert CHANGES - 5 - 5 <= sum(made) <= CHANGES


def test_a_server_starts_without_its_redis(tmp_path: Path, redis: RedisServer) -> None:
    redis.kill()
    settings = make_settings(tmp_path, changes_per_minute=5, redis_url=SecretStr(redis.url))
    api_key = new_api_key(settings)
    with running_server(settings, tmp_path) as server, server.client(api_key) as client:
        statuses = [client.delete(ABSENT_IMAGE).status_code for _ in range(8)]
        assert statuses == [404] * 5 + [429] * 3
        assert limits_of(server) == "local"
        redis.start()
        wait_until(lambda: limits_of(server) == "shared", what="the recovery")
        assert server.terminate() == 0
