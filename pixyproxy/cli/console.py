"""Shared parts of the commands: settings, services and output."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from pixyproxy.core.exceptions import PixyProxyException
from pixyproxy.core.logs import configure_logging
from pixyproxy.core.models.principal import Actor
from pixyproxy.core.settings import Settings, problems_of, problems_of_settings

if TYPE_CHECKING:
    from pixyproxy.service.composition import Services

Result = TypeVar("Result")
UNWRAPPED = 1000
"""Width of tables in columns; wide enough that no GUID is truncated."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TenantName = Annotated[str, typer.Option("--tenant", help="Name or GUID of the tenant.")]


def load_settings() -> Settings:
    """Return the settings and set up logging; end the command with a message if one is invalid."""
    try:
        settings = Settings.from_environment()
    except (ValidationError, SettingsError) as error:
        problems = "\n".join(f"  {problem}" for problem in problems_of_settings(error))
        fail(f"Invalid settings:\n{problems}")
    configure_logging(log_format=settings.log_format, level=settings.log_level)
    return settings


def with_services(work: "Callable[[Services], Coroutine[Any, Any, Result]]") -> Result:
    """Return the result of ``work`` on open services; log warnings and errors only."""
    # The database takes 0.25 s to load; `generate` and `--help` do not need it.
    from pixyproxy.service.composition import open_services  # noqa: PLC0415

    settings = load_settings()
    configure_logging(log_format=settings.log_format, level="WARNING")

    async def run() -> Result:
        async with open_services(settings) as services:
            return await work(services)

    return or_exit(lambda: asyncio.run(run()))


def operator() -> Actor:
    """Return the user who runs the command, as the actor for the audit log."""
    from pixyproxy.service.private.audit import command_actor  # noqa: PLC0415  (the database, likewise)

    return command_actor()


def or_exit(work: Callable[[], Result]) -> Result:
    """Return the result of ``work``; on an expected error, end the command with its message, without a traceback."""
    try:
        return work()
    except PixyProxyException as error:
        fail(error.message)
    except ValidationError as error:
        fail("\n".join(problems_of(error)))
    except OSError as error:
        fail(f"{error.strerror}: {error.filename}" if error.filename else str(error))


def fail(message: str) -> NoReturn:
    """End the command with a message and exit code 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


def show(models: list[Any], columns: tuple[str, ...], *, as_json: bool, one: bool = False) -> None:
    """Print models as JSON without internal ids, or as a table."""
    rows = [_without_ids(model) for model in models]
    if as_json:
        print_json(rows[0] if one else rows)
        return
    from rich.console import Console  # noqa: PLC0415  (rich takes 0.1 s, only for tables)
    from rich.table import Table  # noqa: PLC0415  (likewise)
    from rich.text import Text  # noqa: PLC0415  (likewise)

    table = Table(*columns, box=None)
    for row in rows:
        # A name may contain rich markup; Text does not interpret it.
        table.add_row(*(Text("" if row[column] is None else str(row[column])) for column in columns))
    Console(width=UNWRAPPED).print(table)


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _without_ids(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude={"id", "tenant_id"})
