"""The time of a rejection reveals nothing of existing keys and users: Welch's t over the times of two kinds."""

import math
import random
import secrets
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from pixyproxy.core.models.principal import Scope
from tests.support.api_keys import DIGITS, forged_key, key_id_of
from tests.support.identity import PASSWORD, Account, make_user
from tests.support.process import ServerProcess, new_api_key, running_server
from tests.support.scale import scaled
from tests.support.server import UNLIMITED, make_settings

KEYS = scaled(300, 5_000)
"""Responses of each kind. A difference that shows only in more of them is useless over a network."""
PASSWORDS = scaled(15, 100)
MOST = 4.5
"""The threshold above which chance is excluded: 1 in 100,000 (as in TVLA and dudect)."""

Request = tuple[str, str, str | None, dict[str, str]]
"""Method, path, body, headers."""
Kind = Callable[[], Request]


def random_text(length: int) -> str:
    """Return this many letters and digits."""
    return "".join(secrets.choice(DIGITS) for _ in range(length))


def key_request(key_id: str) -> Request:
    """Return a request with a well-formed wrong secret for this key id."""
    return "GET", "/me", None, {"Authorization": f"Bearer {forged_key(key_id=key_id, secret=random_text(43))}"}


def password_request(username: str) -> Request:
    """Return a sign-in with a wrong password."""
    form = urlencode({"grant_type": "password", "username": username, "password": random_text(len(PASSWORD))})
    return "POST", "/auth/token", form, {"Content-Type": "application/x-www-form-urlencoded"}


@contextmanager
def unlimited_server(folder: Path) -> Iterator[tuple[ServerProcess, str, Account]]:
    """Yield a server without limits on guessing, with a key and a user."""
    settings = make_settings(folder, log_level="WARNING", **UNLIMITED)
    api_key = new_api_key(settings, scopes=frozenset(Scope))
    with running_server(settings, folder) as server, server.client(api_key) as owner:
        yield server, api_key, make_user(owner)


def measure(
    url: str, kinds: tuple[Kind, Kind], *, each: int, status: int, clients: int
) -> tuple[list[float], list[float]]:
    """Return the response times in seconds of each kind, requested in random order by a few concurrent clients."""
    order = [0, 1] * each
    random.shuffle(order)
    left = deque(order)
    times: tuple[list[float], list[float]] = ([], [])
    started = threading.Barrier(clients)

    def ask_on(_: int) -> None:
        connection = HTTPConnection(str(urlsplit(url).hostname), urlsplit(url).port, timeout=60)
        for kind in kinds:
            _timed(connection, kind(), status)
        started.wait(60)
        while left:
            try:
                number = left.popleft()
            except IndexError:  # another thread took the last one
                break
            times[number].append(_timed(connection, kinds[number](), status))
        connection.close()

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(ask_on, range(clients)))
    return times


def welch(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Welch's t: the difference of the means in units of its standard error."""
    error = math.sqrt(statistics.variance(one) / len(one) + statistics.variance(other) / len(other))
    return (statistics.fmean(one) - statistics.fmean(other)) / error


def test_the_measure_detects_a_real_difference() -> None:
    chance = random.Random(7)
    one, other = ([chance.gauss(20 + more, 1) for _ in range(600)] for more in (0, 0.3))
    assert abs(welch(one, other)) > MOST
    assert abs(welch(one, [chance.gauss(20, 1) for _ in range(600)])) < MOST


def test_an_unknown_key_id_takes_as_long_as_a_wrong_secret(tmp_path: Path) -> None:
    with unlimited_server(tmp_path) as (server, api_key, _):
        known, unknown = measure(
            server.url,
            (lambda: key_request(key_id_of(api_key)), lambda: key_request(random_text(12))),
            each=KEYS,
            status=401,
            clients=4,
        )
    assert abs(welch(known, unknown)) < MOST


def test_an_unknown_user_takes_as_long_as_a_wrong_password(tmp_path: Path) -> None:
    stranger = f"{random_text(36)}@example.org"
    with unlimited_server(tmp_path) as (server, _, account):
        known, unknown = measure(
            server.url,
            (lambda: password_request(account.username), lambda: password_request(stranger)),
            each=PASSWORDS,
            status=400,
            # Passwords of one user are checked in sequence, and would wait for each other.
            clients=1,
        )
    assert abs(welch(known, unknown)) < MOST


def _timed(connection: HTTPConnection, request: Request, status: int) -> float:
    method, path, body, headers = request
    began = time.perf_counter()
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    answer.read()
    took = time.perf_counter() - began
    assert answer.status == status
    return took
