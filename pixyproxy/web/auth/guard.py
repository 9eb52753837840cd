"""The guard against guessing: failures are counted before anything is looked up, and all take the same time."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from pydantic import SecretStr
from starlette.requests import Request

from pixyproxy.core.exceptions import (
    CredentialInvalidException,
    OAuthClientException,
    OAuthGrantException,
    OAuthScopeException,
    ServerBusyException,
    SignInUnrecordedException,
)
from pixyproxy.web.rate_limits.addresses import client_address
from pixyproxy.web.rate_limits.limits import RateLimits

FAILURE_SECONDS = 0.02
"""How long a failure takes at least, so that a look-up that found a row is not told from one that found none."""
PASSWORD_COST = 10
"""Passwords can be guessed and keys cannot, so a wrong password counts as much as so many wrong keys."""
TURN_SECONDS = 10
"""How long a password waits for others of the same user to be checked, or a key for others of its address."""
COUNTED_OF_PASSWORDS = (
    CredentialInvalidException,
    OAuthGrantException,
    OAuthScopeException,
    ServerBusyException,
    SignInUnrecordedException,
)
"""All that a check of a password costs, or tells: a scope is only looked at when the password was right."""

_turns: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], asyncio.Lock] = WeakValueDictionary()


@asynccontextmanager
async def guarded(request: Request, limits: RateLimits, name: str | None) -> AsyncIterator[None]:
    """Let a key or token be checked within.

    Raises ``TooManyFailuresException`` for a wrong one where too many of this address or of ``name`` were wrong
    already. A right one always passes: key ids are no secret, an address may be that of a whole office, and nobody
    may lock another's key out. 256 random bits are not guessed meanwhile. What comes from an address that was wrong
    too often is checked one at a time, so that a flood of made-up keys holds no more than one connection to the
    database.
    """
    address = client_address(request)
    began = time.monotonic()
    try:
        async with contextlib.AsyncExitStack() as held:
            if await limits.is_used_up(address):
                await held.enter_async_context(_turn(f"address:{address}"))
            yield
    except (CredentialInvalidException, OAuthClientException, OAuthGrantException):
        await limits.refuse_guessing(address, name)
        await limits.note_failure(address, name)
        await asyncio.sleep(max(0.0, began + FAILURE_SECONDS - time.monotonic()))
        raise


@asynccontextmanager
async def guarded_password(request: Request, limits: RateLimits, username: str) -> AsyncIterator[None]:
    """Let a password be checked within, unless too many of this address or user were wrong already.

    Raises ``TooManyFailuresException`` instead: a password can be guessed, so a right one has to wait as well.
    """
    # Counted apart from keys: who sends made-up keys must not keep the people of the same office from signing in.
    address, name = f"passwords of {client_address(request)}", user_name(username)
    try:
        # What is still being checked is not counted yet, so a password may not be tried many times at once.
        async with _turn(name):
            await limits.refuse_guessing(address, name)
            yield
    except COUNTED_OF_PASSWORDS:
        await limits.note_failure(address, name, cost=PASSWORD_COST)
        raise


@asynccontextmanager
async def _turn(name: str) -> AsyncIterator[None]:
    """One at a time of a name or address in this process. Raises ``ServerBusyException`` where it takes too long."""
    turn = _turns.setdefault((asyncio.get_running_loop(), name), asyncio.Lock())
    try:
        async with asyncio.timeout(TURN_SECONDS):
            await turn.acquire()
    except TimeoutError as error:
        raise ServerBusyException from error
    try:
        yield
    finally:
        turn.release()


def key_name(credential: SecretStr) -> str | None:
    """The bucket of an API key: its key id, which is no secret. A token has none."""
    prefix, _, rest = credential.get_secret_value().partition("_")
    key_id = rest.partition("_")[0]
    return client_name(key_id) if prefix == "pxy" else None


def client_name(key_id: str) -> str:
    """The bucket of an API key that is presented as an OAuth client."""
    return f"key:{key_id[:64]}"


def user_name(username: str) -> str:
    """The bucket of a user."""
    return f"user:{username.lower()[:128]}"
