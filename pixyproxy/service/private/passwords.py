"""Passwords: argon2id, in threads of its own and a few at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from passlib.context import CryptContext
from pydantic import SecretStr

from pixyproxy.core.exceptions import ServerBusyException

Result = TypeVar("Result")
WAIT_SECONDS = 10
ABSENT_HASH = SecretStr(
    "$argon2id$v=19$m=65536,t=3,p=1$AoDw3ru3NiZkLOXc+///Pw$7gP41xqYImJDF9lPZx2EYZH68y6Vqc6KYeGzVMF0msU"
)
"""Of a password that nobody knows: compared with when a user is unknown, so that the answer takes as long."""


def _context() -> CryptContext:
    """RFC 9106 §4's second choice, with one lane: 64 MiB, three passes, about 0.1 s of one core."""
    return CryptContext(
        schemes=["argon2"],
        argon2__type="ID",
        argon2__memory_cost=64 * 1024,
        argon2__time_cost=3,
        argon2__parallelism=1,
    )


@dataclass(frozen=True)
class PasswordHasher:
    """Hashes and verifies; ``places`` bounds how many at once, and so the memory, for which others wait so long."""

    places: anyio.Semaphore
    context: CryptContext = field(default_factory=_context)
    wait_seconds: float = WAIT_SECONDS
    threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(math.inf))

    async def hash(self, password: SecretStr) -> SecretStr:
        """The hash to keep of a password. Raises ``ServerBusyException``."""
        return SecretStr(await self._run(self.context.hash, password.get_secret_value()))

    async def verify(self, password: SecretStr, known: SecretStr | None) -> bool:
        """Whether it is the password of this hash; None takes as long and is never right.

        Raises ``ServerBusyException`` where too many others wait.
        """
        expected = (known or ABSENT_HASH).get_secret_value()
        is_right: bool = await self._run(self.context.verify, password.get_secret_value(), expected)
        return is_right and known is not None

    async def _run(self, function: Callable[..., Result], *arguments: str) -> Result:
        try:
            with anyio.fail_after(self.wait_seconds):
                await self.places.acquire()
        except TimeoutError as error:
            raise ServerBusyException from error
        try:
            return await to_thread.run_sync(function, *arguments, limiter=self.threads)
        finally:
            self.places.release()
