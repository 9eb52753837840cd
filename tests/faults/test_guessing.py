"""Thousands of wrong keys from one address, each with another forged address, are limited."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from tests.support.api_keys import forged_key, key_id_of
from tests.support.problems import assert_problem
from tests.support.process import new_api_key, running_server
from tests.support.redis import RedisServer
from tests.support.scale import scaled
from tests.support.server import make_settings

GUESSES = scaled(1_000, 10_000)
PER_ADDRESS = scaled(50, 200)
PER_NAME = 5
AT_ONCE = 8


def guesses_of(url: str, numbers: range) -> Counter[tuple[int, str, bool]]:
    """Count the responses to one wrong key per number, by status, code, and whether Retry-After is within a minute.

    Every key and every forged address is different.
    """
    answers: Counter[tuple[int, str, bool]] = Counter()
    with httpx2.Client(base_url=url, timeout=30) as client:
        for number in numbers:
            key = forged_key(key_id=f"{number:012d}", secret=f"{number:043d}")
            forged = f"203.0.{number // 256}.{number % 256}"
            headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": forged, "Forwarded": f"for={forged}"}
            answer = client.get("/image", headers=headers)
            says_when = 1 <= int(answer.headers.get("retry-after", 0)) <= 60
            answers[answer.status_code, answer.json()["code"], says_when] += 1
    return answers


def test_thousands_of_wrong_keys_are_limited(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, failures_per_address=PER_ADDRESS)
    api_key = new_api_key(settings)
    with running_server(settings, tmp_path) as server:
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            each = GUESSES // AT_ONCE
            parts = [range(number * each, (number + 1) * each) for number in range(AT_ONCE)]
            answers = sum(pool.map(lambda part: guesses_of(server.url, part), parts), Counter[tuple[int, str, bool]]())
        windows = 1 + int((time.monotonic() - began) // 60)
        assert answers.keys() == {(401, "credential_invalid", False), (429, "too_many_failures", True)}
        assert answers.total() == GUESSES
        # Checks in progress when the last failure is counted still complete.
        looked_at = answers[401, "credential_invalid", False]
        assert PER_ADDRESS <= looked_at <= (PER_ADDRESS + AT_ONCE) * windows
        # Keys cannot be guessed, so a correct one is accepted even from this address.
        with server.client(api_key) as client, server.client() as anonymous:
            assert client.get("/me").status_code == 200
            assert anonymous.get("/image").status_code == 200
        log = server.log.read_text()
    assert "pxy_" not in log
    assert "203.0." not in log


@pytest.mark.parametrize("spread", [False, True], ids=["one process", "two processes"])
def test_guessing_one_keys_secret_from_many_addresses_is_limited(
    spread: bool,  # noqa: FBT001  (pytest's way)
    redis: RedisServer,
    tmp_path: Path,
) -> None:
    settings = make_settings(tmp_path, failures_per_name=PER_NAME, redis_url=SecretStr(redis.url) if spread else None)
    key_id = key_id_of(new_api_key(settings))
    environment = {"PIXYPROXY_TRUSTED_PROXIES": "127.0.0.1"}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(running_server(settings, tmp_path, environment=environment))
            for _ in range(2 if spread else 1)
        ]
        clients = [stack.enter_context(server.client()) for server in servers]
        answers = []
        for number in range(4 * PER_NAME):
            key = forged_key(key_id=key_id, secret=f"{number:043d}")
            headers = {"X-API-Key": key, "X-Forwarded-For": f"203.0.113.{number}"}
            answers.append(clients[number % len(clients)].get("/image", headers=headers).status_code)
    assert answers == [401] * PER_NAME + [429] * 3 * PER_NAME


def test_wrong_secrets_for_a_key_do_not_lock_out_its_owner(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, failures_per_name=PER_NAME)
    api_key = new_api_key(settings)
    wrong = [forged_key(key_id=key_id_of(api_key), secret=f"{number:043d}") for number in range(2 * PER_NAME)]
    with running_server(settings, tmp_path) as server:
        for number, guess in enumerate(wrong):
            with server.client(guess) as client:
                status, code = (401, "credential_invalid") if number < PER_NAME else (429, "too_many_failures")
                assert_problem(client.get("/me"), status, code)
        with server.client(api_key) as client:
            assert client.get("/me").status_code == 200
