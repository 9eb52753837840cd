"""Passwords: argon2id with limited, fair concurrency, and equal work for known and unknown users."""

import asyncio
import threading
from collections.abc import Awaitable
from dataclasses import dataclass, field

import pytest
from passlib.context import CryptContext
from pydantic import SecretStr

from pixyproxy.core.exceptions import ServerBusyException
from pixyproxy.core.fair_slots import FairSlots, Requester
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.service.private.identity.passwords import PasswordHasher
from tests.service.private.identities import CHEAP, PASSWORD
from tests.support.passwords import FakeContext

pytestmark = pytest.mark.anyio
PLACES = 2
WRONG = SecretStr("another password")
ADDRESS = "192.0.2.1"
KNOWN, UNKNOWN = Requester(TenantId(1), ADDRESS), Requester(None, ADDRESS)
COST = ["", "argon2id", "v=19", "m=65536,t=3,p=1"]


def _hasher(context: CryptContext = CHEAP, *, places: int = PLACES, wait_seconds: float = 20) -> PasswordHasher:
    return PasswordHasher(FairSlots(places, wait_seconds=wait_seconds), context=context)


@dataclass
class _PairingContext(CryptContext):
    """Hashes in pairs: neither finishes before the other has started, so that the maximum runs at once."""

    pair: threading.Barrier = field(default_factory=lambda: threading.Barrier(PLACES, timeout=20))
    lock: threading.Lock = field(default_factory=threading.Lock)
    running: int = 0
    most: int = 0

    def hash(self, secret: str, **_: object) -> str:  # type: ignore[override]  # the library's takes more arguments
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.pair.wait()
        with self.lock:
            self.running -= 1
        return f"hash of {len(secret)}"


async def _settled(*waiting: Awaitable[object]) -> list[asyncio.Future[object]]:
    """Start these as tasks, and return when each has gone as far as it can."""
    tasks: list[asyncio.Future[object]] = [asyncio.ensure_future(each) for each in waiting]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


def _cost(hashed: SecretStr) -> list[str]:
    """Return variant, version and parameters of a hash, which determine the cost of a comparison."""
    return hashed.get_secret_value().split("$")[:4]


async def test_password_matches_only_its_own_hash() -> None:
    hasher = _hasher()
    hashed = await hasher.hash(PASSWORD, requester=KNOWN)
    assert await hasher.verify(PASSWORD, hashed, requester=KNOWN)
    assert not await hasher.verify(SecretStr(PASSWORD.get_secret_value() + " "), hashed, requester=KNOWN)
    assert not await hasher.verify(PASSWORD, await hasher.hash(WRONG, requester=KNOWN), requester=KNOWN)


@pytest.mark.parametrize("password", ["", "pass\0word", "pass\0", "🦊" * 256, "é", "e\u0301"])
async def test_every_character_counts(password: str) -> None:
    hasher = _hasher()
    hashed = await hasher.hash(SecretStr(password), requester=KNOWN)
    assert await hasher.verify(SecretStr(password), hashed, requester=KNOWN)
    for other in (password + "x", password + "\0", "x" + password):
        assert not await hasher.verify(SecretStr(other), hashed, requester=KNOWN)


async def test_hashes_of_one_password_differ_and_do_not_contain_it() -> None:
    hasher = _hasher()
    first, second = [await hasher.hash(PASSWORD, requester=KNOWN) for _ in range(2)]
    assert first.get_secret_value() != second.get_secret_value()
    assert PASSWORD.get_secret_value() not in first.get_secret_value()


async def test_hash_uses_the_parameters_of_rfc_9106() -> None:
    assert _cost(await PasswordHasher(FairSlots(1, wait_seconds=20)).hash(PASSWORD, requester=KNOWN)) == COST


async def test_unknown_user_costs_as_much_as_a_known_user() -> None:
    known, unknown = FakeContext(), FakeContext()
    known.gate.set()
    unknown.gate.set()
    for hasher, stored, requester in (
        (_hasher(known), SecretStr("other"), KNOWN),
        (_hasher(unknown), None, UNKNOWN),
    ):
        for _ in range(2):
            assert not await hasher.verify(PASSWORD, stored, requester=requester)
    # The very first check also computes the dummy hash.
    verified = f"verify {PASSWORD.get_secret_value()}"
    assert (known.done, unknown.done) == (["dummy", verified, verified], ["dummy", "dummy", "dummy"])


async def test_no_password_matches_an_unknown_user() -> None:
    assert not await _hasher().verify(PASSWORD, None, requester=UNKNOWN)


async def test_concurrent_hashes_are_limited_to_the_slots() -> None:
    context = _PairingContext()
    hasher = _hasher(context)
    hashed = await asyncio.gather(*(hasher.hash(PASSWORD, requester=KNOWN) for _ in range(4 * PLACES)))
    assert len(hashed) == 4 * PLACES
    assert (context.most, context.running) == (PLACES, 0)


async def test_waiting_too_long_for_a_slot_raises_server_busy() -> None:
    context = FakeContext()
    hasher = _hasher(context, places=1, wait_seconds=0.01)
    (first,) = await _settled(hasher.hash(PASSWORD, requester=KNOWN))
    try:
        for waiting in (
            hasher.hash(PASSWORD, requester=KNOWN),
            hasher.verify(PASSWORD, PASSWORD, requester=KNOWN),
            hasher.verify(PASSWORD, None, requester=UNKNOWN),
        ):
            with pytest.raises(ServerBusyException) as caught:
                await waiting
            assert caught.value.retry_after_seconds
    finally:
        context.gate.set()
    assert await first
    assert await hasher.verify(PASSWORD, PASSWORD, requester=KNOWN)


@pytest.mark.parametrize("crowd", [UNKNOWN, Requester(TenantId(2), ADDRESS)], ids=["made-up names", "one tenant"])
async def test_correct_password_overtakes_a_crowd_from_the_same_address(crowd: Requester) -> None:
    context = FakeContext()
    hasher = _hasher(context, places=1)
    stored = None if crowd is UNKNOWN else SecretStr("other")
    tasks = await _settled(*(hasher.verify(SecretStr(str(n)), stored, requester=crowd) for n in range(20)))
    (victim,) = await _settled(hasher.verify(PASSWORD, PASSWORD, requester=KNOWN))
    context.gate.set()
    assert await victim
    # One of them was running, and at most one more had a turn.
    assert len([task for task in tasks if task.done()]) <= 2
    assert await asyncio.gather(*tasks) == [False] * 20


async def test_wrong_password_is_rejected_no_sooner_than_an_unknown_name() -> None:
    context = FakeContext()
    hasher = _hasher(context, places=1)
    crowd = await _settled(*(hasher.verify(PASSWORD, None, requester=UNKNOWN) for _ in range(5)))
    wrong, made_up = await _settled(
        hasher.verify(WRONG, PASSWORD, requester=KNOWN), hasher.verify(WRONG, None, requester=UNKNOWN)
    )
    context.gate.set()
    assert not await wrong
    assert [each.done() for each in crowd] == [True] * 5
    assert not await made_up
    # It was checked early, and its turn cost one more hash.
    assert context.done[:3] == ["dummy", "dummy", f"verify {WRONG.get_secret_value()}"]
    assert context.done[3:] == ["dummy"] * 6


async def test_cancelled_check_releases_its_slot(caplog: pytest.LogCaptureFixture) -> None:
    context = FakeContext()
    hasher = _hasher(context, places=1)
    (first,) = await _settled(hasher.hash(PASSWORD, requester=KNOWN))
    (given_up,) = await _settled(hasher.verify(PASSWORD, PASSWORD, requester=KNOWN))
    given_up.cancel()
    context.gate.set()
    assert await first
    assert await hasher.verify(PASSWORD, PASSWORD, requester=KNOWN)
    assert context.done == ["hash " + PASSWORD.get_secret_value(), "dummy", "verify " + PASSWORD.get_secret_value()]
    assert caplog.records == []


async def test_damaged_hash_releases_its_slot() -> None:
    hasher = _hasher(places=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="hash"):
            await hasher.verify(PASSWORD, SecretStr("no hash"), requester=KNOWN)
    assert await hasher.hash(PASSWORD, requester=KNOWN)


async def test_repr_hides_password_and_hash() -> None:
    hasher = _hasher()
    hashed = await hasher.hash(PASSWORD, requester=KNOWN)
    assert "argon2" not in repr(hashed)
    assert PASSWORD.get_secret_value() not in repr(hasher) + repr(hashed)
