"""Opening what PixyProxy keeps: connect to the database, migrate it under a lock, verify its schema version."""

import math

from anyio import CapacityLimiter
from sqlalchemy import Engine

from pixyproxy.core.exceptions import ConfigurationException, PixyProxyException
from pixyproxy.core.settings import Settings
from pixyproxy.data.database import Database, as_database_exception
from pixyproxy.data.engine import is_refusal, open_engine
from pixyproxy.data.migrations import migrate, verify_schema
from pixyproxy.data.threads import run_in_thread

REFUSED = "The database refuses the user, the password or the database name in PIXYPROXY_DATABASE_URL."


async def open_database(settings: Settings) -> Database:
    """The database, ready for this version of PixyProxy.

    Raises ``ConfigurationException`` when its URL or what is in it is wrong, ``DatabaseUnavailableException``
    when it cannot be reached, and ``SchemaException`` when its schema is newer than this code or half-applied.
    """
    engine = open_engine(
        settings.effective_database_url,
        pool_size=settings.database_pool_size,
        wait_seconds=settings.database_wait_seconds,
        timeout_seconds=settings.database_timeout_seconds,
    )
    await run_in_thread(_initialize, engine)
    return Database(
        engine=engine,
        slots=CapacityLimiter(settings.database_pool_size),
        writers=CapacityLimiter(1 if engine.dialect.name == "sqlite" else math.inf),
        wait_seconds=settings.database_wait_seconds,
    )


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
            raise ConfigurationException(REFUSED) from error
        raise as_database_exception(error) from error
