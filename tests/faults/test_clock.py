"""The machine's clock is set while a server runs: expired credentials stay expired, and everything else continues."""

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
    """Yield a server under this clock, and an API key of it."""
    settings = make_settings(folder, access_token_seconds=token_seconds)
    api_key = new_api_key(settings, scopes=frozenset(Scope))
    with running_server(settings, folder, environment=clock.environment) as server:
        yield server, api_key


def new_token(server: ServerProcess, api_key: str) -> str:
    """Return an access token for the key."""
    form = {"grant_type": "client_credentials", "client_id": key_id_of(api_key), "client_secret": api_key}
    with server.client() as client:
        token: str = get_tokens(client, form)["access_token"]
    return token


def hours_ahead(client: httpx2.Client) -> int:
    """Return the offset of the server's clock from the true time in hours, as its HTTP library reads it."""
    shown = parsedate_to_datetime(client.get("/healthz").headers["date"])
    return round((shown - datetime.now(UTC)).total_seconds() / HOUR)


def assert_works(server: ServerProcess, api_key: str) -> None:
    """Assert that keys are valid, and pictures are made and served."""
    with server.client(api_key) as client:
        made = client.post("/image", json={"prompt": "a fox", "size": "64x64"})
        assert made.status_code == 201
        assert client.get(f"/image/{made.json()['guid']}/content").status_code == 200
        assert client.get("/readyz").status_code == 200


def assert_gives_good_tokens(server: ServerProcess, api_key: str) -> None:
    """Assert that a token is valid as soon as it is issued."""
    with server.client(new_token(server, api_key)) as client:
        assert client.get("/me").status_code == 200


def test_an_hour_forward_ends_a_token_and_an_hour_back_does_not_revive_it(tmp_path: Path) -> None:
    clock = true_wall_clock(tmp_path)
    with served_under(clock, tmp_path) as (server, api_key), server.client(new_token(server, api_key)) as client:
        assert hours_ahead(client) == 0
        # It was valid a moment ago, and the server has it cached.
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


def test_setting_the_clock_back_does_not_extend_a_token(tmp_path: Path) -> None:
    clock = true_wall_clock(tmp_path)
    with (
        served_under(clock, tmp_path, token_seconds=3) as (server, api_key),
        server.client(new_token(server, api_key)) as client,
    ):
        clock.set(-HOUR)
        wait_until(lambda: hours_ahead(client) == -1, what="the jump back")
        wait_until(lambda: client.get("/me").status_code == httpx2.codes.UNAUTHORIZED, what="the end of the token")
        assert_works(server, api_key)


def test_a_recently_valid_key_expires_as_well(tmp_path: Path) -> None:
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


def test_an_exhausted_limit_ends_in_time_although_the_clock_was_set_back(tmp_path: Path) -> None:
    clock = true_wall_clock(tmp_path)
    settings = make_settings(tmp_path, reads_per_second=1)
    with running_server(settings, tmp_path, environment=clock.environment) as server, server.client() as client:

        def status() -> int:
            return client.get("/image").status_code

        # Without a pause, because two of them have to be read within a second.
        assert any(status() == httpx2.codes.TOO_MANY_REQUESTS for _ in range(1000))
        clock.set(-HOUR)
        wait_until(lambda: status() == httpx2.codes.OK, what="the end of the limit's second")
