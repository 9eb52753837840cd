"""Self-examination: what works, and what to mend where something does not."""

import os
from collections.abc import Awaitable, Callable

from dotenv import dotenv_values
from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from pixyproxy.core import clock
from pixyproxy.core.exceptions import PixyProxyException
from pixyproxy.core.settings import Settings, problems_of
from pixyproxy.data.secrets import load_or_create_secret
from pixyproxy.data.store.local import LocalStore
from pixyproxy.service.composition import migrate_database, open_pool
from pixyproxy.service.private.prices import load_prices
from pixyproxy.service.private.signing_keys import open_key_ring


class Finding(BaseModel):
    """One thing that was looked at."""

    subject: str
    ok: bool
    message: str


async def examine() -> list[Finding]:
    """Look at settings and at all that a server needs; each look is taken whatever the others say."""
    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(problems_of(error, upper=True))
        return [Finding(subject="settings", ok=False, message=f"{problems}. Compare them with .env.example.")]
    except SettingsError as error:
        message = f"one is not the JSON that it has to be ({error}). See .env.example and docs/identity.md."
        return [Finding(subject="settings", ok=False, message=message)]
    return [
        _examine_names(),
        await _examined("data folder", lambda: _use_data_folder(settings)),
        await _examined("database", lambda: _use_database(settings)),
        await _examined("picture store", lambda: _use_store(settings)),
        await _examined("signing keys", lambda: _use_signing_keys(settings)),
        await _examined("prices", lambda: _use_prices(settings)),
        await _examined("upstream", lambda: _use_upstream(settings)),
    ]


def _examine_names() -> Finding:
    """A mistyped variable is ignored by everything else, so it is told here."""
    fields = Settings.model_fields.items()
    known = {f"PIXYPROXY_{name}".upper() for name, field in fields if field.validation_alias is None}
    client = {"PIXYPROXY_URL", "PIXYPROXY_API_KEY", "PIXYPROXY_TEST_MYSQL_URL"}
    given = {name.upper() for name in (*os.environ, *dotenv_values(".env"))}
    unknown = sorted(name for name in given - known - client if name.startswith("PIXYPROXY_"))
    if unknown:
        return Finding(subject="settings", ok=False, message=f"no setting is called {', '.join(unknown)}")
    return Finding(subject="settings", ok=True, message="every one is valid")


async def _examined(subject: str, use: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(subject=subject, ok=True, message=await use())
    except PixyProxyException as error:
        return Finding(subject=subject, ok=False, message=error.message)
    except OSError as error:
        return Finding(subject=subject, ok=False, message=f"{error.strerror}: {error.filename}")
    except Exception as error:  # noqa: BLE001  (one part's unforeseen failure must not hide the others)
        return Finding(subject=subject, ok=False, message=f"failed in an unforeseen way: {type(error).__name__}")


async def _use_data_folder(settings: Settings) -> str:
    load_or_create_secret(settings.data_dir, "secret_key")
    return f"{settings.data_dir.resolve()} can be written"


async def _use_database(settings: Settings) -> str:
    await migrate_database(settings)
    return "answers, and its schema is up to date"


async def _use_store(settings: Settings) -> str:
    await LocalStore(settings.images, room_bytes=settings.max_picture_bytes).check()
    return f"{settings.images.resolve()} can be written"


async def _use_signing_keys(settings: Settings) -> str:
    key = open_key_ring(settings).signing_key(clock.now())
    return f"tokens of {settings.issuer} are signed with {key.kid}"


async def _use_prices(settings: Settings) -> str:
    load_prices(settings.prices)
    return "ours" if settings.prices is None else f"{settings.prices}, and ours"


async def _use_upstream(settings: Settings) -> str:
    pool = open_pool(settings)
    try:
        await pool.check()
    finally:
        await pool.close()
    return pool.name
