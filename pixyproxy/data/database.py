"""Access to the database: a bounded pool, and transactions that run in worker threads.

Two rules hold everywhere. A unit of work is short and waits only for the database, so a connection is never held across
a call to an upstream. And a transaction that has started always finishes: a client that disconnects cancels the wait
for the result, not the transaction.
"""

import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, WouldBlock
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    DatabaseBusyException,
    DatabaseException,
    DatabaseUnavailableException,
    PixyProxyException,
    SearchTimeoutException,
)
from pixyproxy.core.fair_slots import FairSlots, Requester
from pixyproxy.data.engine import is_deadlock, is_disconnect, is_lock_conflict, is_statement_timeout
from pixyproxy.data.repositories.api_keys import ApiKeys
from pixyproxy.data.repositories.audit_log import AuditLog
from pixyproxy.data.repositories.budgets import Budgets
from pixyproxy.data.repositories.generations import Generations
from pixyproxy.data.repositories.images import Images
from pixyproxy.data.repositories.processes import Processes
from pixyproxy.data.repositories.queue import Queue
from pixyproxy.data.repositories.refresh_tokens import RefreshTokens
from pixyproxy.data.repositories.revoked_tokens import RevokedTokens
from pixyproxy.data.repositories.signing_keys import SigningKeys
from pixyproxy.data.repositories.tenants import Tenants
from pixyproxy.data.repositories.upstreams import Upstreams
from pixyproxy.data.repositories.users import Users
from pixyproxy.data.repositories.webhook_deliveries import WebhookDeliveries
from pixyproxy.data.repositories.webhooks import Webhooks
from pixyproxy.data.threads import run_in_thread

Result = TypeVar("Result")
MOST_THREADS = 110
"""The largest configurable pool plus the searches; only as many threads are created as transactions run at once."""
DEADLOCK_ATTEMPTS = 3
"""The most attempts of a transaction that lost a deadlock. It was rolled back, so a retry is safe."""


@dataclass(frozen=True)
class Repositories:
    """All repositories, bound to one connection and its transaction."""

    connection: Connection

    @cached_property
    def images(self) -> Images:
        """The ``images`` repository."""
        return Images(self.connection)

    @cached_property
    def generations(self) -> Generations:
        """The ``generations`` repository."""
        return Generations(self.connection)

    @cached_property
    def queue(self) -> Queue:
        """The repository of waiting orders."""
        return Queue(self.connection)

    @cached_property
    def upstreams(self) -> Upstreams:
        """The repository of the upstreams' state and the tenants' turns."""
        return Upstreams(self.connection)

    @cached_property
    def budgets(self) -> Budgets:
        """The ``budgets`` repository."""
        return Budgets(self.connection)

    @cached_property
    def tenants(self) -> Tenants:
        """The ``tenants`` repository."""
        return Tenants(self.connection)

    @cached_property
    def api_keys(self) -> ApiKeys:
        """The ``api_keys`` repository."""
        return ApiKeys(self.connection)

    @cached_property
    def users(self) -> Users:
        """The ``users`` repository."""
        return Users(self.connection)

    @cached_property
    def refresh_tokens(self) -> RefreshTokens:
        """The ``refresh_tokens`` repository."""
        return RefreshTokens(self.connection)

    @cached_property
    def revoked_tokens(self) -> RevokedTokens:
        """The ``revoked_tokens`` repository."""
        return RevokedTokens(self.connection)

    @cached_property
    def signing_keys(self) -> SigningKeys:
        """The repository of signing keys and the verifier of the secret that encrypts them."""
        return SigningKeys(self.connection)

    @cached_property
    def webhooks(self) -> Webhooks:
        """The ``webhooks`` repository."""
        return Webhooks(self.connection)

    @cached_property
    def webhook_deliveries(self) -> WebhookDeliveries:
        """The ``webhook_deliveries`` repository."""
        return WebhookDeliveries(self.connection)

    @cached_property
    def processes(self) -> Processes:
        """The ``processes`` repository."""
        return Processes(self.connection)

    @cached_property
    def audit_log(self) -> AuditLog:
        """The ``audit_log`` repository."""
        return AuditLog(self.connection)


UnitOfWork = Callable[[Repositories], Result]


@dataclass(frozen=True)
class Searches:
    """Separate resources for searches: connections that abort slow statements, and as many slots."""

    engine: Engine
    slots: FairSlots


@dataclass(frozen=True)
class Database:
    """Runs units of work.

    ``slots`` has one slot per pool connection and so limits the threads. ``writers`` has one for SQLite, whose writers
    would otherwise sleep and retry, out of turn, until some time out. Searches have their own slots, connections and
    time limit, so that nothing else waits for them.
    """

    engine: Engine
    slots: CapacityLimiter
    writers: CapacityLimiter
    wait_seconds: float
    searches: Searches | None = None
    """None: searches are ordinary reads."""
    threads: Executor = field(default_factory=partial(ThreadPoolExecutor, MOST_THREADS, "database"))

    async def read(self, work: UnitOfWork[Result]) -> Result:
        """Run ``work`` in a read transaction and return its result.

        Each statement sees what was committed before it; on SQLite all see one snapshot. Raise
        ``DatabaseBusyException`` if no slot becomes free within ``wait_seconds``, and ``DatabaseUnavailableException``
        if the database cannot be reached.
        """
        return await self._run(work, writes=False)

    async def write(self, work: UnitOfWork[Result]) -> Result:
        """Run ``work`` and commit; roll back if it raises.

        Raise the same exceptions as ``read``. ``work`` may run again after a lost deadlock, so it must not do anything
        that the rollback does not undo.
        """
        return await self._run(work, writes=True)

    async def search(self, work: UnitOfWork[Result], *, requester: Requester) -> Result:
        """Run ``work``, which may scan every row, and return its result.

        Raise the same exceptions as ``read``, ``SearchTimeoutException`` if it takes too long, ``ServerBusyException``
        if no slot becomes free, and ``TooManyAtOnceException`` if the requester has too many searches running.
        """
        if self.searches is None:
            return await self.read(work)
        async with self.searches.slots.hold(requester):
            return await run_in_thread(_search, self.searches.engine, work, executor=self.threads)

    async def ping(self) -> None:
        """Check that the database responds. Raise ``DatabaseException`` if it does not."""
        await self.read(lambda repositories: repositories.connection.execute(text("SELECT 1")).scalar_one())

    async def follow_clock(self) -> None:
        """Take the time of day from a database server; do nothing on SQLite. Raise ``DatabaseException``."""
        if self.engine.dialect.name != "sqlite":
            await self.read(_follow_clock)

    async def close(self) -> None:
        """Close all connections."""
        await run_in_thread(self.engine.dispose)
        if self.searches is not None:
            await run_in_thread(self.searches.engine.dispose)
        self.threads.shutdown()

    async def _run(self, work: UnitOfWork[Result], *, writes: bool) -> Result:
        limiters = (self.writers, self.slots) if writes else (self.slots,)
        async with AsyncExitStack() as held:
            for limiter in limiters:
                await self._take_place(limiter, held)
            return await run_in_thread(self._transact, work, writes, executor=self.threads)

    async def _take_place(self, limiter: CapacityLimiter, held: AsyncExitStack) -> None:
        """Hold a slot of the limiter; callers wait in turn, at most ``wait_seconds``."""
        borrower = object()
        try:
            limiter.acquire_on_behalf_of_nowait(borrower)
        except WouldBlock:
            try:
                with anyio.fail_after(self.wait_seconds):
                    await limiter.acquire_on_behalf_of(borrower)
            except TimeoutError as error:
                raise DatabaseBusyException from error
        held.callback(limiter.release_on_behalf_of, borrower)

    def _transact(self, work: UnitOfWork[Result], writes: bool) -> Result:  # noqa: FBT001  (called by position in a thread)
        for attempt in range(1, DEADLOCK_ATTEMPTS + 1):
            committing = False
            try:
                with self.engine.connect().execution_options(pixyproxy_writes=writes) as connection, connection.begin():
                    result = work(Repositories(connection))
                    committing = writes
            except PixyProxyException:
                raise
            except Exception as error:
                if not (is_deadlock(error) and attempt < DEADLOCK_ATTEMPTS):
                    raised = as_database_exception(error)
                    if isinstance(raised, DatabaseException):
                        raised.in_doubt = committing
                    raise raised from error
            else:
                return result
        raise DatabaseBusyException


def _follow_clock(data: Repositories) -> None:
    asked_at = time.monotonic()
    read = float(data.connection.execute(text("SELECT UNIX_TIMESTAMP(NOW(6))")).scalar_one())
    clock.follow(read, read_at=(asked_at + time.monotonic()) / 2)


def _search(engine: Engine, work: UnitOfWork[Result]) -> Result:
    try:
        with engine.connect().execution_options(pixyproxy_writes=False) as connection, connection.begin():
            return work(Repositories(connection))
    except PixyProxyException:
        raise
    except Exception as error:
        if is_statement_timeout(error):
            raise SearchTimeoutException from error
        raise as_database_exception(error) from error


def as_database_exception(error: Exception) -> Exception:
    """Return the core exception for an error of SQLAlchemy or a driver, and any other error unchanged."""
    if isinstance(error, PoolTimeoutError) or is_lock_conflict(error):
        return DatabaseBusyException()
    if is_disconnect(error):
        return DatabaseUnavailableException()
    if isinstance(error, DBAPIError | SQLAlchemyError):
        return DatabaseException()
    return error
