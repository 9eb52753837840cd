"""Password hashing: argon2id in dedicated threads, with limited concurrency, fair between tenants and addresses."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from passlib.context import CryptContext
from pydantic import SecretStr

from pixyproxy.core.fair_slots import FairSlots, Requester
from pixyproxy.data.threads import run_in_thread

Result = TypeVar("Result")
MOST_THREADS = 64
"""An upper bound; threads are created only as slots are used."""


def _context() -> CryptContext:
    """Return the second recommendation of RFC 9106 §4, with one lane: 64 MiB, three passes, about 0.1 s of one core."""
    return CryptContext(
        schemes=["argon2"],
        argon2__type="ID",
        argon2__memory_cost=64 * 1024,
        argon2__time_cost=3,
        argon2__parallelism=1,
    )


@dataclass
class PasswordHasher:
    """Hashes and verifies passwords; each operation occupies one slot."""

    slots: FairSlots
    context: CryptContext = field(default_factory=_context)
    threads: Executor = field(default_factory=partial(ThreadPoolExecutor, MOST_THREADS, "passwords"))
    _has_dummy: bool = False

    async def hash(self, password: SecretStr, *, requester: Requester) -> SecretStr:
        """Return the hash to store for a password. Raises ``ServerBusyException``."""
        async with self.slots.hold(requester):
            return SecretStr(await self._in_thread(self.context.hash, password.get_secret_value()))

    async def verify(self, password: SecretStr, known: SecretStr | None, *, requester: Requester) -> bool:
        """Return whether the password matches the hash; None takes as long and never matches.

        ``requester`` names an address, and the tenant of a known user. A known user takes a turn of the address and
        one of the tenant, and the first of them verifies, so that a correct password overtakes a queue of made-up
        names. A wrong password is rejected after the turn of the address, which always computes a hash, so that the
        time does not reveal which users exist. Raises ``ServerBusyException`` if too many others wait.
        """
        verifier: Requester | None = None

        async def check(asking: Requester) -> bool:
            nonlocal verifier
            async with self.slots.hold(asking):
                if verifier is None:
                    verifier = asking
                    return await self._in_thread(self._check, password, known)
                return asking is by_address and await self._in_thread(self._check, password, None)

        by_address = requester._replace(tenant=None)
        of_address = asyncio.ensure_future(check(by_address))
        of_tenant = of_address if requester.tenant is None else asyncio.ensure_future(check(requester))
        both = asyncio.gather(of_address, of_tenant, return_exceptions=True)
        try:
            await asyncio.wait({of_address, of_tenant}, return_when=asyncio.FIRST_COMPLETED)
            is_right = of_tenant.done() and of_tenant.exception() is None and of_tenant.result()
            return is_right or await of_address or (verifier is requester and await of_tenant)
        finally:
            both.cancel()

    def close(self) -> None:
        """Shut down the threads without waiting."""
        self.threads.shutdown(wait=False)

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await run_in_thread(function, *arguments, executor=self.threads)

    def _check(self, password: SecretStr, known: SecretStr | None) -> bool:
        if not self._has_dummy:
            # passlib computes the dummy hash at first use, which takes as long as a check: do it for known users too.
            self.context.dummy_verify()
            self._has_dummy = True
        if known is None:
            self.context.dummy_verify()
            return False
        is_right: bool = self.context.verify(password.get_secret_value(), known.get_secret_value())
        return is_right
