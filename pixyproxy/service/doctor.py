"""Diagnostics: check each part of an installation and say how to fix what fails."""

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
from pixyproxy.service.composition import migrate_database, open_pool, retained_answers
from pixyproxy.service.private.billing.prices import load_prices
from pixyproxy.service.private.identity.installation_secret import installation_secret
from pixyproxy.service.private.identity.oauth.signing_keys import open_key_ring
from pixyproxy.service.processes import list_serving

ANSWER_SECONDS = 10.0
SAMPLE = 200
"""Number of images whose files are checked."""
MOST_NAMED = 20
ADVICE = {
    UpstreamUnreachableException: "The upstream cannot be reached. Check the host and port of its base URL.",
    UpstreamCredentialException: "The upstream rejected its API key. Check the key.",
    UpstreamAddressException: "The upstream has no list of models. Check the path of its base URL; it is usually /v1.",
}
"""Messages that replace those of a generation's error, since nothing was ordered here."""


class Finding(BaseModel):
    """The result of one check."""

    subject: str
    ok: bool
    message: str


async def examine(
    *, limits: Callable[[Settings], Awaitable[str]], answer_seconds: float = ANSWER_SECONDS
) -> list[Finding]:
    """Check the settings and everything that a server needs; a failed check does not stop the others.

    ``limits`` checks the request counters; ``answer_seconds`` limits how long an upstream may take to list its models.
    """
    try:
        settings = Settings.from_environment()
    except (ValidationError, SettingsError) as error:
        return [Finding(subject="settings", ok=False, message="; ".join(problems_of_settings(error)))]
    keep_files_private()
    return [
        Finding(subject="settings", ok=True, message="all are valid"),
        await _examined("data folder", lambda: _use_data_folder(settings)),
        await _examined("database", lambda: _use_database(settings)),
        await _examined("picture store", lambda: _use_store(settings)),
        await _examined("pictures", lambda: _look_for_pictures(settings)),
        await _examined("limits", lambda: limits(settings)),
        await _examined("processes", lambda: _look_for_processes(settings)),
        _examine_retained_answers(settings),
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
    except Exception as error:  # noqa: BLE001  (an unexpected failure of one check must not hide the others)
        return Finding(subject=subject, ok=False, message=f"unexpected error: {type(error).__name__}")


async def _use_data_folder(settings: Settings) -> str:
    """Write to the data folder, and reserve space for the largest upload in the spool."""
    load_or_create_secret(settings.data_dir, "secret_key")
    _require_private(settings.data_dir)
    spool = Spool(settings.data_dir / "spool")
    try:
        _reserve(await spool.open(), settings.max_upload_bytes)
    finally:
        await spool.close()
    return f"{settings.data_dir.resolve()} is writable and has room for uploads"


def _reserve(folder: SpoolFolder, byte_size: int) -> None:
    try:
        with folder.open_temporary() as file:
            os.posix_fallocate(file.fileno(), 0, byte_size)
    except OSError as error:
        problem = f"No room for an upload of {byte_size:,} bytes (PIXYPROXY_MAX_UPLOAD_BYTES): {error.strerror}."
        raise ImageStorageException(problem) from error


async def _use_database(settings: Settings) -> str:
    await migrate_database(settings)
    file = settings.embedded_database
    if file is not None and is_open_to_others(file.parent):
        _require_private(file)
    return "connected, and its schema is up to date"


async def _use_store(settings: Settings) -> str:
    await LocalStore(settings.images, room_bytes=settings.max_picture_bytes).check()
    _require_private(settings.images)
    return f"{settings.images.resolve()} is writable"


async def _look_for_pictures(settings: Settings) -> str:
    """Check the files of a sample of images. Raises ``PictureMissingException`` if one is missing."""
    store = LocalStore(settings.images, room_bytes=0)
    try:
        database = await open_database(settings)
    except (PixyProxyException, OSError):
        return "not checked: the database is not available"
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
            f"{len(missing)} of {len(images)} have no file in {settings.images.resolve()}, for example {missing[0]}. "
            "Restore the folder from a backup, or set PIXYPROXY_IMAGES to the right folder."
        )
        raise PictureMissingException(problem)
    return f"all {len(images)} sampled images have their files"


async def _look_for_processes(settings: Settings) -> str:
    """List the serving processes. Raises ``ConfigurationException`` if several count requests without Redis."""
    try:
        database = await open_database(settings)
    except (PixyProxyException, OSError):
        return "not checked: the database is not available"
    try:
        serving = await list_serving(database)
    finally:
        await database.close()
    apart = [process for process in serving if not process.redis]
    if apart and len(serving) > 1:
        problem = (
            f"{len(serving)} processes serve requests, {len(apart)} of them without Redis ({_named(apart)}): each of "
            "these counts requests on its own. Set PIXYPROXY_REDIS_URL for all of them."
        )
        raise ConfigurationException(problem)
    return f"serving now: {_named(serving)}" if serving else "none is serving now"


def _named(processes: list[Process]) -> str:
    more = f" and {len(processes) - MOST_NAMED} more" if len(processes) > MOST_NAMED else ""
    return ", ".join(map(str, processes[:MOST_NAMED])) + more


def _require_private(path: Path) -> None:
    """Raise ``ConfigurationException`` if other users of this machine can read a file or folder."""
    if is_open_to_others(path):
        problem = f"Other users of this machine can read {path.resolve()}. Run `chmod -R o= {path.resolve()}`."
        raise ConfigurationException(problem)


def _examine_retained_answers(settings: Settings) -> Finding:
    """Report paid answers that wait for an operator's decision."""
    answers = retained_answers(settings)
    kept = answers.list_all()
    if not kept:
        return Finding(subject="retained answers", ok=True, message="none")
    named = ", ".join(f"{each.guid} ({each.byte_size} bytes)" for each in kept[:MOST_NAMED])
    more = f" and {len(kept) - MOST_NAMED} more" if len(kept) > MOST_NAMED else ""
    message = (
        f"{len(kept)} paid for without a picture that can be stored: {named}{more}. Inspect them in "
        f"{answers.folder.resolve()}, then record with `pixyproxy generation resolve` whether they were bought."
    )
    return Finding(subject="retained answers", ok=False, message=message)


async def _use_signing_keys(settings: Settings) -> str:
    try:
        database = await open_database(settings)
    except (PixyProxyException, OSError):
        return "not checked: the database is not available"
    try:
        secret = await run_in_thread(installation_secret, settings)
        ring = await open_key_ring(settings, database, secret)
    finally:
        await database.close()
    key = ring.signing_key(clock.now())
    return f"tokens are signed with key {key.kid}"


async def _use_prices(settings: Settings) -> str:
    load_prices(settings.prices)
    return "built-in" if settings.prices is None else f"{settings.prices}, and the built-in ones"


async def _examine_upstreams(settings: Settings, seconds: float) -> list[Finding]:
    """Return a finding for each upstream; all are checked concurrently."""
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
    """Check that the only upstream of these settings lists its models, which costs nothing."""

    async def use_upstream() -> str:
        pool = open_pool(settings)
        try:
            async with asyncio.timeout(seconds):
                return f"available, lists {len(await pool.list_models())} models"
        except TimeoutError as error:
            problem = f"The upstream did not list its models within {seconds:g} s."
            raise UpstreamTimeoutException(problem) from error
        except ImageGenerationException as error:
            raise type(error)(ADVICE.get(type(error), error.message)) from error
        finally:
            await pool.close()

    found = await _examined(subject, use_upstream)
    return found.model_copy(update={"message": f"{about}: {found.message}"})
