"""The machine's clock is set while a server runs: what expired stays expired, and all else goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx2

from pixyproxy.core.models.principal import Scope
from tests.support.api_keys import key_id_of
from tests.support.faketime import WallClock, true_wall_clock
from tests.support.identity import get_tokens, make_key
from tests.support.problems import assert_problem
from tests.support.process import ServerProcess, new_api_key, running_server, wait_until
from tests.support.server import make_settings

HOUR = 3600
QUARTER = 900


@contextmanager
def served_under(
    clock: WallClock, folder: Path, *, token_seconds: int = QUARTER
) -> Iterator[tuple[ServerProcess, str]]:
    """A server under this clock, and an API key there."""
    settings = make_settings(folder, access_token_seconds=token_seconds)
    api_key = new_api_key(settings, scopes=frozenset(Scope))
    with running_server(settings, folder, environment=clock.environment) as server:
        yield server, api_key


def new_token(server: ServerProcess, api_key: str) -> str:
    """An access token for the key."""
    form = {"grant_type": "client_credentials", "client_id": key_id_of(api_key), "client_secret": api_key}
    with server.client() as client:
        token: str = get_tokens(client, form)["access_token"]
    return token


def hours_ahead(client: httpx2.Client) -> int:
    """What the server's own clock says, which its HTTP library reads, beside the true time."""
    shown = parsedate_to_datetime(client.get("/healthz").headers["date"])
    return round((shown - datetime.now(UTC)).total_seconds() / HOUR)


def assert_works(server: ServerProcess, api_key: str) -> None:
    """Keys are good, and pictures are made and served."""
    with server.client(api_key) as client:
        made = client.post("/image", json={"prompt": "a fox", "size": "64x64"})
        assert made.status_code == 201
        assert client.get(f"/image/{made.json()['guid']}/content").status_code == 200
        assert client.get("/readyz").status_code == 200


def assert_gives_good_tokens(server: ServerProcess, api_key: str) -> None:
    """A token is good from the moment on that it is issued."""
    with server.client(new_token(server, api_key)) as client:
        assert client.get("/me").status_code == 200


def test_an_hour_forward_ends_a_token_and_an_hour_back_does_not_revive_it(tmp_path: Path) -> None:
    clock = true_wall_clock(tmp_path)
    with served_under(clock, tmp_path) as (server, api_key), server.client(new_token(server, api_key)) as client:
        assert hours_ahead(client) == 0
        # A moment ago it was good, which the server remembers.
        for _ in range(3):
            assert client.get("/me").status_code == 200
        clock.set(HOUR)
        assert_problem(client.get("/me"), 401, "credential_invalid")
        assert_gives_good_tokens(server, api_key)
        for hours in (0, -1):
            clock.set(hours * HOUR)
            wait_until(lambda hours=hours: hours_ahead(client) == hours, what="the jump back")  # type: ignore[misc]
            assert_problem(client.get("/me"), 401, "credential_invalid")
            assert_gives_good_tokens(server, api_key)
            assert_works(server, api_key)


def test_a_clock_that_was_set_back_does_not_lengthen_the_life_of_a_token(tmp_path: Path) -> None:
    clock = true_wall_clock(tmp_path)
    with (
        served_under(clock, tmp_path, token_seconds=3) as (server, api_key),
        server.client(new_token(server, api_key)) as client,
    ):
        clock.set(-HOUR)
        wait_until(lambda: hours_ahead(client) == -1, what="the jump back")
        wait_until(lambda: client.get("/me").status_code == httpx2.codes.UNAUTHORIZED, what="the end of the token")
        assert_works(server, api_key)


def test_a_key_that_was_good_a_moment_ago_expires_as_well(tmp_path: Path) -> None:
    clock = true_wall_clock(tmp_path)
    with served_under(clock, tmp_path) as (server, api_key), server.client(api_key) as owner:
        expires_at = datetime.now(UTC) + timedelta(seconds=HOUR)
        key = make_key(owner, Scope.IMAGE_READ, expires_at=expires_at.isoformat())
        with server.client(key["api_key"]) as client:
            assert client.get("/me").status_code == 200
            clock.set(HOUR + 1)
            assert_problem(client.get("/me"), 401, "credential_invalid")
            clock.set(0)
            wait_until(lambda: hours_ahead(client) == 0, what="the jump back")
            assert_problem(client.get("/me"), 401, "credential_invalid")


def test_a_limit_that_was_reached_is_over_in_time_though_the_clock_was_set_back(tmp_path: Path) -> None:
    clock = true_wall_clock(tmp_path)
    settings = make_settings(tmp_path, reads_per_second=1)
    with running_server(settings, tmp_path, environment=clock.environment) as server, server.client() as client:

        def status() -> int:
            return client.get("/image").status_code

        # Without a pause, for two of them have to be read within a second.
        assert any(status() == httpx2.codes.TOO_MANY_REQUESTS for _ in range(1000))
        clock.set(-HOUR)
        wait_until(lambda: status() == httpx2.codes.OK, what="the end of the limit's second")
