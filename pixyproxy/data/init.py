"""Opening the database: connect, migrate under a lock, verify the schema version."""

import math
from functools import partial

from anyio import CapacityLimiter
from sqlalchemy import Engine

from pixyproxy.core.exceptions import ConfigurationException, DatabaseUnavailableException, PixyProxyException
from pixyproxy.core.fair_slots import FairSlots
from pixyproxy.core.settings import Settings
from pixyproxy.data.database import Database, Searches, as_database_exception
from pixyproxy.data.engine import is_refusal, open_engine
from pixyproxy.data.migrations import migrate, verify_schema
from pixyproxy.data.threads import run_in_thread

SEARCHES_AT_ONCE = 2
"""On two cores more concurrent searches only slow down each other and everything else."""
SEARCHES_OF_REQUESTER = 8
"""The most searches of one requester that may wait or run at once."""
REFUSED = "The database at {host}:{port} rejects the user, password or database name in PIXYPROXY_DATABASE_URL."
AWAY = "The database at {host}:{port} cannot be reached. Check that it runs and PIXYPROXY_DATABASE_URL is correct."
MYSQL_PORT = 3306


async def open_database(settings: Settings) -> Database:
    """Open the database and bring it to this version's schema.

    Raise ``ConfigurationException`` if its URL or credentials are wrong, ``DatabaseUnavailableException`` if it cannot
    be reached, and ``SchemaException`` if its schema is newer than this code or half-applied.
    """
    engine, search_engine = await run_in_thread(_open_engines, settings)
    search_slots = FairSlots(
        SEARCHES_AT_ONCE, wait_seconds=settings.database_wait_seconds, most_of_requester=SEARCHES_OF_REQUESTER
    )
    database = Database(
        engine=engine,
        slots=CapacityLimiter(settings.database_pool_size),
        writers=CapacityLimiter(1 if engine.dialect.name == "sqlite" else math.inf),
        wait_seconds=settings.database_wait_seconds,
        searches=Searches(search_engine, search_slots),
    )
    await database.follow_clock()
    return database


def _open_engines(settings: Settings) -> tuple[Engine, Engine]:
    """Return the engine of an initialized database and the engine for searches."""
    connect = partial(
        open_engine,
        settings.effective_database_url,
        wait_seconds=settings.database_wait_seconds,
        timeout_seconds=settings.database_timeout_seconds,
    )
    engine = connect(pool_size=settings.database_pool_size)
    _initialize(engine)
    return engine, connect(pool_size=SEARCHES_AT_ONCE, statement_seconds=settings.search_seconds)


def _initialize(engine: Engine) -> None:
    try:
        migrate(engine)
        verify_schema(engine)
    except PixyProxyException:
        engine.dispose()
        raise
    except Exception as error:
        engine.dispose()
        if is_refusal(error):
            raise ConfigurationException(_about(REFUSED, engine)) from error
        raised = as_database_exception(error)
        if isinstance(raised, DatabaseUnavailableException) and engine.url.host:
            raise DatabaseUnavailableException(_about(AWAY, engine)) from error
        raise raised from error


def _about(message: str, engine: Engine) -> str:
    """Add the server's address to a message for operators; clients never get it, because it only occurs at startup."""
    return message.format(host=engine.url.host, port=engine.url.port or MYSQL_PORT)
