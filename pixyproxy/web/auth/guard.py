"""Protection against guessed credentials: failures are counted before any lookup, and take equal time."""

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
"""Minimum duration of a failure, so that timing does not reveal whether a lookup found a row."""
PASSWORD_COST = 10
"""Failures that one wrong password counts as: passwords can be guessed, keys cannot."""
TURN_SECONDS = 10
"""How long to wait for other checks of the same user's password, or of keys from the same address."""
COUNTED_OF_PASSWORDS = (
    CredentialInvalidException,
    OAuthGrantException,
    OAuthScopeException,
    ServerBusyException,
    SignInUnrecordedException,
)
"""Outcomes of a password check that cost work or reveal something: scopes are checked after the password."""

_turns: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], asyncio.Lock] = WeakValueDictionary()


@asynccontextmanager
async def guarded(request: Request, limits: RateLimits, name: str | None) -> AsyncIterator[None]:
    """Guard the check of a key or token.

    Raise ``TooManyFailuresException`` if it is wrong and the address or ``name`` has no failures left. A correct
    credential always passes: key ids are public and a whole office may share an address, so otherwise anyone could lock
    out another's key. 256 random bits cannot be guessed. Checks from an address without failures left run one
    at a time, so that a flood of invented keys holds at most one database connection.
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
    """Guard the check of a password.

    Raise ``TooManyFailuresException`` if the address or user has no failures left. This applies to correct passwords
    too, because passwords can be guessed.
    """
    # Counted apart from keys: invented keys must not block sign-ins from the same office.
    address, name = f"passwords of {client_address(request)}", user_name(username)
    try:
        # Checks in progress are not counted yet, so the same user's passwords are checked one at a time.
        async with _turn(name):
            await limits.refuse_guessing(address, name)
            yield
    except COUNTED_OF_PASSWORDS:
        await limits.note_failure(address, name, cost=PASSWORD_COST)
        raise


@asynccontextmanager
async def _turn(name: str) -> AsyncIterator[None]:
    """Allow one check at a time per name or address in this process. Raise ``ServerBusyException`` after a timeout."""
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
    """Return the bucket name of an API key, from its public key id; None for a token."""
    prefix, _, rest = credential.get_secret_value().partition("_")
    key_id = rest.partition("_")[0]
    return client_name(key_id) if prefix == "pxy" else None


def client_name(key_id: str) -> str:
    """Return the bucket name of an API key that is used as an OAuth client."""
    return f"key:{key_id[:64]}"


def user_name(username: str) -> str:
    """Return the bucket name of a user."""
    return f"user:{username.lower()[:128]}"
