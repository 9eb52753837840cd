"""Passwords: argon2id, a few at a time, and the same work whether a user is known or not."""

import asyncio
import threading
from dataclasses import dataclass, field

import anyio
import pytest
from passlib.context import CryptContext
from pydantic import SecretStr

from pixyproxy.core.exceptions import ServerBusyException
from pixyproxy.service.private.passwords import ABSENT_HASH, PasswordHasher
from tests.service.private.identity import CHEAP, PASSWORD

pytestmark = pytest.mark.anyio
PLACES = 2


@dataclass
class _PairingContext(CryptContext):
    """Hashes in pairs: none ends before another has begun, so that as many run at once as are let."""

    pair: threading.Barrier = field(default_factory=lambda: threading.Barrier(PLACES, timeout=20))
    lock: threading.Lock = field(default_factory=threading.Lock)
    running: int = 0
    most: int = 0

    def hash(self, secret: str, **_: object) -> str:  # type: ignore[override]  # the library's takes what it ignores
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.pair.wait()
        with self.lock:
            self.running -= 1
        return f"hash of {len(secret)}"


@dataclass
class _GatedContext(CryptContext):
    """Hashes once its gate is open."""

    gate: threading.Event = field(default_factory=threading.Event)

    def hash(self, secret: str, **_: object) -> str:  # type: ignore[override]  # as above
        assert self.gate.wait(20)
        return f"hash of {len(secret)}"


def _cost(hashed: SecretStr) -> list[str]:
    """Variant, version and parameters of a hash: what it costs to compare with."""
    return hashed.get_secret_value().split("$")[:4]


async def test_a_password_is_right_for_its_own_hash_alone() -> None:
    hasher = PasswordHasher(anyio.Semaphore(PLACES), context=CHEAP)
    hashed = await hasher.hash(PASSWORD)
    assert await hasher.verify(PASSWORD, hashed)
    assert not await hasher.verify(SecretStr(PASSWORD.get_secret_value() + " "), hashed)
    assert not await hasher.verify(PASSWORD, await hasher.hash(SecretStr("another password")))


@pytest.mark.parametrize("password", ["", "pass\0word", "pass\0", "🦊" * 256, "é", "e\u0301"])
async def test_every_character_counts(password: str) -> None:
    hasher = PasswordHasher(anyio.Semaphore(PLACES), context=CHEAP)
    hashed = await hasher.hash(SecretStr(password))
    assert await hasher.verify(SecretStr(password), hashed)
    for other in (password + "x", password + "\0", "x" + password):
        assert not await hasher.verify(SecretStr(other), hashed)


async def test_the_same_password_has_another_hash_each_time_and_stands_in_none() -> None:
    hasher = PasswordHasher(anyio.Semaphore(PLACES), context=CHEAP)
    first, second = await hasher.hash(PASSWORD), await hasher.hash(PASSWORD)
    assert first.get_secret_value() != second.get_secret_value()
    assert PASSWORD.get_secret_value() not in first.get_secret_value()


async def test_who_is_unknown_costs_as_much_as_who_is_known() -> None:
    hasher = PasswordHasher(anyio.Semaphore(PLACES))
    assert _cost(await hasher.hash(PASSWORD)) == _cost(ABSENT_HASH) == ["", "argon2id", "v=19", "m=65536,t=3,p=1"]


async def test_no_password_is_right_for_nobody() -> None:
    hasher = PasswordHasher(anyio.Semaphore(PLACES))
    assert not await hasher.verify(PASSWORD, None)


async def test_no_more_are_hashed_at_once_than_there_are_places() -> None:
    context = _PairingContext()
    hasher = PasswordHasher(anyio.Semaphore(PLACES), context=context)
    hashed = await asyncio.gather(*(hasher.hash(PASSWORD) for _ in range(4 * PLACES)))
    assert len(hashed) == 4 * PLACES
    assert (context.most, context.running) == (PLACES, 0)


async def test_who_waits_too_long_for_a_place_is_told_that_the_server_is_busy() -> None:
    context = _GatedContext()
    places = anyio.Semaphore(1)
    patient = PasswordHasher(places, context=context)
    first = asyncio.create_task(patient.hash(PASSWORD))
    try:
        while places.value:  # noqa: ASYNC110  (a semaphore has no event to wait for)
            await asyncio.sleep(0)
        with pytest.raises(ServerBusyException) as caught:
            await PasswordHasher(places, context=context, wait_seconds=0.01).hash(PASSWORD)
    finally:
        context.gate.set()
    assert caught.value.retry_after_seconds
    assert await first
    assert await patient.hash(PASSWORD)


async def test_a_hash_that_is_damaged_gives_its_place_back() -> None:
    hasher = PasswordHasher(anyio.Semaphore(1), context=CHEAP, wait_seconds=5)
    for _ in range(3):
        with pytest.raises(ValueError, match="hash"):
            await hasher.verify(PASSWORD, SecretStr("no hash"))
    assert await hasher.hash(PASSWORD)


async def test_neither_password_nor_hash_is_shown() -> None:
    hasher = PasswordHasher(anyio.Semaphore(1), context=CHEAP)
    hashed = await hasher.hash(PASSWORD)
    assert "argon2" not in repr(hashed)
    assert PASSWORD.get_secret_value() not in repr(hasher) + repr(hashed)
