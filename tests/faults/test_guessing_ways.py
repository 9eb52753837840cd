"""Every way to present a credential counts against guessing, and so does every spelling of a name."""

import asyncio
import base64
import itertools
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import httpx2
import pytest
from starlette.requests import Request

from pixyproxy.core.exceptions import CredentialInvalidException, TooManyFailuresException
from pixyproxy.core.models.principal import Scope
from pixyproxy.web.auth.guard import FAILURE_SECONDS, guarded
from pixyproxy.web.rate_limits.limits import create_rate_limits
from tests.support.api_keys import DIGITS, forged_key, key_id_of
from tests.support.identity import (
    PASSWORD,
    bearer,
    client_form,
    get_tokens,
    make_key,
    make_user,
    sign_in,
)
from tests.support.problems import assert_problem
from tests.support.server import RunningServer, TenantClient, make_settings, serving

# Few enough that a slow machine also sends them all within the minute for which failures count.
ADDRESS_LIMIT = 50
NAME_LIMIT = 5
PASSWORD_COST = 10
CLIENTS = 8
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Guess:
    """A request with a wrong credential, and the status that rejects it."""

    path: str = "/me"
    headers: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] | None = None
    status: int = 401


def wrong_key() -> str:
    """Return a well-formed key that was never issued."""
    letters = "".join(secrets.choice(DIGITS) for _ in range(12 + 43))
    return forged_key(key_id=letters[:12], secret=letters[12:])


def as_somebody_else(number: int) -> dict[str, str]:
    """Return headers that name another address each time, in every form that proxies use."""
    address = f"203.0.{number // 250}.{number % 250}"
    names = ("X-Forwarded-For", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "True-Client-IP")
    return {**dict.fromkeys(names, address), "Forwarded": f"for={address}"}


def as_bearer(number: int) -> Guess:
    return Guess(headers={"Authorization": f"Bearer {wrong_key()}", **as_somebody_else(number)})


def as_key_header(number: int) -> Guess:
    return Guess(headers={"X-API-Key": wrong_key(), **as_somebody_else(number)})


def as_token(number: int) -> Guess:
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').decode()
    token = f"{header}.{secrets.token_urlsafe(80)}."
    return Guess(headers={"Authorization": f"Bearer {token}", **as_somebody_else(number)})


def as_public_reader(number: int) -> Guess:
    return Guess(path="/image", headers={"Authorization": f"bearer {wrong_key()}", **as_somebody_else(number)})


def as_client(number: int) -> Guess:
    key = wrong_key()
    basic = base64.b64encode(f"{key_id_of(key)}:{key}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", **as_somebody_else(number)}
    return Guess(path="/auth/token", headers=headers, form={"grant_type": "client_credentials"})


def as_asking(number: int) -> Guess:
    key = wrong_key()
    form = {"token": "any", "client_id": key_id_of(key), "client_secret": key}
    return Guess(path="/auth/introspect", headers=as_somebody_else(number), form=form)


def as_refreshing(number: int) -> Guess:
    form = {"grant_type": "refresh_token", "refresh_token": f"pxr_{secrets.token_hex(24)}x"}
    return Guess(path="/auth/token", status=400, headers=as_somebody_else(number), form=form)


WAYS: list[Callable[[int], Guess]] = [
    as_bearer,
    as_key_header,
    as_token,
    as_public_reader,
    as_client,
    as_asking,
    as_refreshing,
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """Yield a server that clients reach directly."""
    with serving(make_settings(tmp_path, failures_per_address=ADDRESS_LIMIT)) as server:
        yield server


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[RunningServer, TenantClient]]:
    """Yield a server that trusts a reverse proxy (the test itself), and a tenant whose key has every scope."""
    settings = make_settings(
        tmp_path,
        failures_per_address=ADDRESS_LIMIT,
        failures_per_name=NAME_LIMIT,
        trusted_proxies=("127.0.0.1",),
    )
    with serving(settings) as server:
        server.hash_cheaply()
        tenant = server.new_tenant("acme", scopes=frozenset(Scope))
        with tenant.http:
            yield server, tenant


def test_all_ways_to_present_a_credential_count_together(server: RunningServer) -> None:
    ways = itertools.cycle(WAYS)
    began = time.monotonic()
    statuses = flood(server.url, (next(ways)(number) for number in range(4 * ADDRESS_LIMIT)))
    assert statuses.keys() == {400, 401, 429}
    assert ADDRESS_LIMIT <= statuses[400] + statuses[401] <= most_failures(began)


@pytest.mark.parametrize("way", WAYS)
def test_an_address_over_the_limit_is_rejected_in_every_way(way: Callable[[int], Guess], server: RunningServer) -> None:
    flood(server.url, (as_bearer(number) for number in range(ADDRESS_LIMIT)))
    guess = way(7)
    method = "GET" if guess.form is None else "POST"
    with server.client() as client:
        refused = client.request(method, guess.path, headers=guess.headers, data=guess.form)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert client.get("/image").status_code == 200
    # A client with another address is not affected.
    with httpx2.Client(transport=httpx2.HTTPTransport(local_address="127.0.0.2")) as stranger:
        began = time.monotonic()
        answer = stranger.request(method, f"{server.url}{guess.path}", headers=guess.headers, data=guess.form)
        assert answer.status_code == guess.status
        # Every rejection takes at least this long, so its time does not reveal the result of the lookup.
        assert time.monotonic() - began >= FAILURE_SECONDS


def test_invented_keys_do_not_lock_out_clients_of_the_same_address(server: RunningServer) -> None:
    server.hash_cheaply()
    with server.new_tenant("acme", scopes=frozenset(Scope)).http as owner:
        account, key = make_user(owner), make_key(owner, Scope.IMAGE_READ)
        refresh = sign_in(owner, account)["refresh_token"]
    flood(server.url, (as_bearer(number) for number in range(ADDRESS_LIMIT + 1)))
    with server.client(key["api_key"]) as client:
        assert client.get("/me").status_code == 200
        token = get_tokens(client, client_form(key))["access_token"]
        assert client.get("/me", headers=bearer(token)).status_code == 200
    with server.client() as client:
        assert_problem(client.get("/me", headers=bearer(wrong_key())), 429, "too_many_failures")
        assert get_tokens(client, {"grant_type": "refresh_token", "refresh_token": refresh})
        # Passwords are counted separately.
        assert sign_in(client, account)


@pytest.mark.anyio
async def test_credentials_of_an_address_over_the_limit_are_checked_one_at_a_time(tmp_path: Path) -> None:
    limits = create_rate_limits(make_settings(tmp_path, failures_per_address=1))
    request = Request({"type": "http", "client": ("192.0.2.1", 1), "headers": []})
    at_once = most = 0

    async def guess() -> None:
        nonlocal at_once, most
        async with guarded(request, limits, None):
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1
            raise CredentialInvalidException

    with pytest.raises(CredentialInvalidException):
        await guess()
    answers = await asyncio.gather(*(guess() for _ in range(10)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {TooManyFailuresException}
    assert most == 1


def test_behind_a_proxy_addresses_written_by_the_client_are_ignored(
    proxied: tuple[RunningServer, TenantClient],
) -> None:
    server, _ = proxied
    began = time.monotonic()
    forged = (
        Guess(headers={"X-API-Key": wrong_key(), "X-Forwarded-For": f"203.0.113.{number % 250}, 192.0.2.7"})
        for number in range(2 * ADDRESS_LIMIT)
    )
    statuses = flood(server.url, forged)
    assert ADDRESS_LIMIT <= statuses[401] <= most_failures(began)
    with server.client(wrong_key()) as client:
        assert_problem(client.get("/me", headers={"X-Forwarded-For": "192.0.2.7"}), 429, "too_many_failures")
        assert_problem(client.get("/me", headers={"X-Forwarded-For": "192.0.2.8"}), 401, "credential_invalid")


def test_guessing_one_users_password_from_many_addresses_is_limited(
    proxied: tuple[RunningServer, TenantClient],
) -> None:
    server, tenant = proxied
    ann, bob = make_user(tenant.http), make_user(tenant.http)
    spellings = itertools.cycle((ann.username, ann.username.upper(), ann.username.title()))
    with server.client() as client:

        def try_password(number: int, username: str, password: str) -> httpx2.Response:
            form = {"grant_type": "password", "username": username, "password": password}
            return client.post("/auth/token", data=form, headers=through_proxy(number))

        statuses = [try_password(n, next(spellings), f"{PASSWORD}{n}").status_code for n in range(NAME_LIMIT + 10)]
        assert statuses == [400] * NAME_LIMIT + [429] * 10
        refused = try_password(100, ann.username, PASSWORD)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert try_password(101, bob.username, PASSWORD).status_code == 200


def test_concurrent_passwords_of_one_user_are_limited_like_sequential_ones(
    proxied: tuple[RunningServer, TenantClient],
) -> None:
    server, tenant = proxied
    form = make_user(tenant.http).password_form
    guesses = (
        Guess("/auth/token", through_proxy(number), form | {"password": f"guess {number}"})
        for number in range(NAME_LIMIT + 20)
    )
    statuses = flood(server.url, guesses, clients=NAME_LIMIT + 20)
    assert statuses == {400: NAME_LIMIT, 429: 20}


def test_a_wrong_password_counts_as_much_as_many_wrong_keys(
    proxied: tuple[RunningServer, TenantClient],
) -> None:
    server, _ = proxied
    statuses = []
    with server.client() as client:
        for number in range(ADDRESS_LIMIT // PASSWORD_COST + 5):
            form = {"grant_type": "password", "username": f"user{number}", "password": PASSWORD}
            statuses.append(client.post("/auth/token", data=form, headers=through_proxy(1)).status_code)
    assert statuses == [400] * (ADDRESS_LIMIT // PASSWORD_COST) + [429] * 5


def through_proxy(number: int) -> dict[str, str]:
    """Return the headers that a proxy sends for a client with its own address."""
    return {"X-Forwarded-For": f"198.51.100.{number}"}


def flood(url: str, guesses: Iterator[Guess], *, clients: int = CLIENTS) -> Counter[int]:
    """Count the statuses of guesses that several concurrent clients share."""
    lock = threading.Lock()

    def send_some(_: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        connection = HTTPConnection(str(urlsplit(url).hostname), urlsplit(url).port, timeout=60)
        while True:
            with lock:
                guess = next(guesses, None)
            if guess is None:
                connection.close()
                return statuses
            statuses[_send(connection, guess)] += 1

    with ThreadPoolExecutor(clients) as threads:
        return sum(threads.map(send_some, range(clients)), Counter[int]())


def most_failures(began: float) -> int:
    """Return the most failures allowed since then: the limit per minute plus those in progress when it was reached."""
    return (ADDRESS_LIMIT + CLIENTS) * (1 + int((time.monotonic() - began) / 60))


def _send(connection: HTTPConnection, guess: Guess) -> int:
    body = None if guess.form is None else urlencode(guess.form)
    headers = guess.headers if body is None else {**guess.headers, "Content-Type": FORM}
    connection.request("GET" if body is None else "POST", guess.path, body=body, headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status
