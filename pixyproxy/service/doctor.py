"""Self-examination: what works, and what to mend where something does not."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import BaseModel, HttpUrl, ValidationError
from pydantic_settings import SettingsError

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    ConfigurationException,
    ImageGenerationException,
    ImageStorageException,
    PictureMissingException,
    PixyProxyException,
    UpstreamAddressException,
    UpstreamCredentialException,
    UpstreamTimeoutException,
    UpstreamUnreachableException,
)
from pixyproxy.core.models.process import Process
from pixyproxy.core.models.upstream import UpstreamSettings
from pixyproxy.core.settings import Settings, problems_of_settings
from pixyproxy.data.files.durable import is_open_to_others, keep_files_private
from pixyproxy.data.files.secrets import load_or_create_secret
from pixyproxy.data.files.spool import Spool, SpoolFolder
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.data.init import open_database
from pixyproxy.data.threads import run_in_thread
from pixyproxy.service.composition import kept_answers, migrate_database, open_pool
from pixyproxy.service.private.billing.prices import load_prices
from pixyproxy.service.private.identity.installation_secret import installation_secret
from pixyproxy.service.private.identity.oauth.signing_keys import open_key_ring
from pixyproxy.service.processes import list_serving

ANSWER_SECONDS = 10.0
SAMPLE = 200
"""Pictures whose files are looked for."""
MOST_NAMED = 20
ADVICE = {
    UpstreamUnreachableException: "It cannot be reached: are the host and the port of its base URL right?",
    UpstreamCredentialException: "It refuses its key.",
    UpstreamAddressException: "It has no list of models: is the path of its base URL right, mostly /v1?",
}
"""What an error of an order means where nothing was ordered."""


class Finding(BaseModel):
    """One thing that was looked at."""

    subject: str
    ok: bool
    message: str


async def examine(
    *, limits: Callable[[Settings], Awaitable[str]], answer_seconds: float = ANSWER_SECONDS
) -> list[Finding]:
    """Look at settings and at all that a server needs; each look is taken whatever the others say.

    ``limits`` examines who counts requests; ``answer_seconds`` is how long an upstream may take to list its models.
    """
    try:
        settings = Settings.from_environment()
    except (ValidationError, SettingsError) as error:
        return [Finding(subject="settings", ok=False, message="; ".join(problems_of_settings(error)))]
    keep_files_private()
    return [
        Finding(subject="settings", ok=True, message="every one is valid"),
        await _examined("data folder", lambda: _use_data_folder(settings)),
        await _examined("database", lambda: _use_database(settings)),
        await _examined("picture store", lambda: _use_store(settings)),
        await _examined("pictures", lambda: _look_for_pictures(settings)),
        await _examined("limits", lambda: limits(settings)),
        await _examined("processes", lambda: _look_for_processes(settings)),
        _examine_kept_answers(settings),
        await _examined("signing keys", lambda: _use_signing_keys(settings)),
        await _examined("prices", lambda: _use_prices(settings)),
        *await _examine_upstreams(settings, answer_seconds),
    ]


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
    """Write to it, and keep the largest request with pictures where a server does while it comes in."""
    load_or_create_secret(settings.data_dir, "secret_key")
    _require_private(settings.data_dir)
    spool = Spool(settings.data_dir / "spool")
    try:
        _reserve(await spool.open(), settings.max_upload_bytes)
    finally:
        await spool.close()
    return f"{settings.data_dir.resolve()} can be written, and has room for uploads"


def _reserve(folder: SpoolFolder, byte_size: int) -> None:
    try:
        with folder.open_temporary() as file:
            os.posix_fallocate(file.fileno(), 0, byte_size)
    except OSError as error:
        problem = f"Uploads of {byte_size:,} bytes (PIXYPROXY_MAX_UPLOAD_BYTES) cannot be kept in it: {error.strerror}."
        raise ImageStorageException(problem) from error


async def _use_database(settings: Settings) -> str:
    await migrate_database(settings)
    file = settings.embedded_database
    if file is not None and is_open_to_others(file.parent):
        _require_private(file)
    return "answers, and its schema is up to date"


async def _use_store(settings: Settings) -> str:
    await LocalStore(settings.images, room_bytes=settings.max_picture_bytes).check()
    _require_private(settings.images)
    return f"{settings.images.resolve()} can be written"


async def _look_for_pictures(settings: Settings) -> str:
    """Look for the files of a sample of images. Raises ``PictureMissingException`` if one is missing."""
    store = LocalStore(settings.images, room_bytes=0)
    try:
        database = await open_database(settings)
    except (PixyProxyException, OSError):
        return "cannot be looked for without the database"
    try:
        images = await database.read(lambda data: data.images.sample(limit=SAMPLE))
    finally:
        await database.close()
    missing = []
    for image in images:
        try:
            await store.locate(image.guid, image.media_type)
        except PictureMissingException:
            missing.append(image.guid)
    if missing:
        problem = (
            f"{len(missing)} of {len(images)} have no file in {settings.images.resolve()}, {missing[0]} among them. "
            "Restore the folder from a backup, or set PIXYPROXY_IMAGES to where it is."
        )
        raise PictureMissingException(problem)
    return f"all {len(images)} of a sample have their files"


async def _look_for_processes(settings: Settings) -> str:
    """Look who serves. Raise ``ConfigurationException`` if several count request limits apart from each other."""
    try:
        database = await open_database(settings)
    except (PixyProxyException, OSError):
        return "cannot be looked for without the database"
    try:
        serving = await list_serving(database)
    finally:
        await database.close()
    apart = [process for process in serving if not process.redis]
    if apart and len(serving) > 1:
        problem = (
            f"{len(serving)} processes serve, and {len(apart)} of them without Redis ({_named(apart)}): each of these "
            "counts requests for itself. Set PIXYPROXY_REDIS_URL for all of them."
        )
        raise ConfigurationException(problem)
    return f"serving now: {_named(serving)}" if serving else "none serves now"


def _named(processes: list[Process]) -> str:
    more = f" and {len(processes) - MOST_NAMED} more" if len(processes) > MOST_NAMED else ""
    return ", ".join(map(str, processes[:MOST_NAMED])) + more


def _require_private(path: Path) -> None:
    """Raise ``ConfigurationException`` if other users of this machine may read a file or folder."""
    if is_open_to_others(path):
        problem = f"Other users of this machine can read {path.resolve()}. Run `chmod -R o= {path.resolve()}`."
        raise ConfigurationException(problem)


def _examine_kept_answers(settings: Settings) -> Finding:
    """Answers that were paid for and wait for an operator's decision."""
    answers = kept_answers(settings)
    kept = answers.list_all()
    if not kept:
        return Finding(subject="kept answers", ok=True, message="none")
    named = ", ".join(f"{each.guid} ({each.byte_size} bytes)" for each in kept[:MOST_NAMED])
    more = f" and {len(kept) - MOST_NAMED} more" if len(kept) > MOST_NAMED else ""
    message = (
        f"{len(kept)} were paid for and hold no picture that can be stored: {named}{more}. Look at them in "
        f"{answers.folder.resolve()}, then say with `pixyproxy generation resolve` whether they were bought."
    )
    return Finding(subject="kept answers", ok=False, message=message)


async def _use_signing_keys(settings: Settings) -> str:
    try:
        database = await open_database(settings)
    except (PixyProxyException, OSError):
        return "cannot be read without the database"
    try:
        secret = await run_in_thread(installation_secret, settings)
        ring = await open_key_ring(settings, database, secret)
    finally:
        await database.close()
    key = ring.signing_key(clock.now())
    return f"tokens are signed with {key.kid}"


async def _use_prices(settings: Settings) -> str:
    load_prices(settings.prices)
    return "ours" if settings.prices is None else f"{settings.prices}, and ours"


async def _examine_upstreams(settings: Settings, seconds: float) -> list[Finding]:
    """A finding for each upstream; all are asked at the same time."""
    if not settings.upstreams:
        offline = settings.openai_api_key is None
        about = "offline sketches (no OPENAI_API_KEY is set)" if offline else _about(settings.openai_base_url, None)
        return [await _examine_upstream("upstream", about, settings, seconds)]

    async def examine_one(upstream: UpstreamSettings) -> Finding:
        alone = settings.model_copy(update={"upstreams": (upstream,)})
        about = _about(upstream.base_url, upstream.models)
        return await _examine_upstream(f"upstream {upstream.name}", about, alone, seconds)

    return await asyncio.gather(*map(examine_one, settings.upstreams))


def _about(base_url: HttpUrl, models: tuple[str, ...] | None) -> str:
    return f"{base_url.host}, {'any model' if models is None else ', '.join(models)}"


async def _examine_upstream(subject: str, about: str, settings: Settings, seconds: float) -> Finding:
    """Whether the only upstream of these settings lists its models, which costs nothing."""

    async def use_upstream() -> str:
        pool = open_pool(settings)
        try:
            async with asyncio.timeout(seconds):
                return f"answers, and lists {len(await pool.list_models())} of them"
        except TimeoutError as error:
            problem = f"It has not listed its models within {seconds:g} s."
            raise UpstreamTimeoutException(problem) from error
        except ImageGenerationException as error:
            raise type(error)(ADVICE.get(type(error), error.message)) from error
        finally:
            await pool.close()

    found = await _examined(subject, use_upstream)
    return found.model_copy(update={"message": f"{about}: {found.message}"})
