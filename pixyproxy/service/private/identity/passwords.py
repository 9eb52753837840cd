"""Passwords: argon2id, in threads of its own and a few at a time, fair between tenants and addresses."""

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
"""As many are made as there are slots."""


def _context() -> CryptContext:
    """RFC 9106 §4's second choice, with one lane: 64 MiB, three passes, about 0.1 s of one core."""
    return CryptContext(
        schemes=["argon2"],
        argon2__type="ID",
        argon2__memory_cost=64 * 1024,
        argon2__time_cost=3,
        argon2__parallelism=1,
    )


@dataclass
class PasswordHasher:
    """Hashes and verifies, one slot each."""

    slots: FairSlots
    context: CryptContext = field(default_factory=_context)
    threads: Executor = field(default_factory=partial(ThreadPoolExecutor, MOST_THREADS, "passwords"))
    _has_dummy: bool = False

    async def hash(self, password: SecretStr, *, requester: Requester) -> SecretStr:
        """Return the hash to keep of a password. Raises ``ServerBusyException``."""
        async with self.slots.hold(requester):
            return SecretStr(await self._in_thread(self.context.hash, password.get_secret_value()))

    async def verify(self, password: SecretStr, known: SecretStr | None, *, requester: Requester) -> bool:
        """Return whether it is the password of this hash; None takes as long and is never right.

        ``requester`` names an address, and the user's tenant where the user is known. A known user waits for the turn
        of the address and of the tenant, and the first of them verifies: a right password passes a queue of made-up
        names. A wrong one is answered after the turn of the address, which spends a hash in any case, so that the
        time tells nothing of who is known. Raises ``ServerBusyException`` where too many others wait.
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
        """Let the threads end."""
        self.threads.shutdown(wait=False)

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await run_in_thread(function, *arguments, executor=self.threads)

    def _check(self, password: SecretStr, known: SecretStr | None) -> bool:
        if not self._has_dummy:
            # passlib makes the dummy's hash at its first use, which takes as long as a check: known users pay too.
            self.context.dummy_verify()
            self._has_dummy = True
        if known is None:
            self.context.dummy_verify()
            return False
        is_right: bool = self.context.verify(password.get_secret_value(), known.get_secret_value())
        return is_right
