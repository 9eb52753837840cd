"""The ``pixyproxy`` command."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from pixyproxy.core import clock
from pixyproxy.core.exceptions import PixyProxyException
from pixyproxy.core.logs import configure_logging
from pixyproxy.core.models.tenant import ApiKeyGuid, Scope, Visibility
from pixyproxy.core.settings import Settings
from pixyproxy.service.composition import Services, migrate_database, open_services

Result = TypeVar("Result")
UNWRAPPED = 1000
"""Columns of a table that goes to a file or a pipe: enough that no line is broken."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TenantName = Annotated[str, typer.Option("--tenant", help="Name or GUID of the tenant.")]

app = typer.Typer(no_args_is_help=True, help="PixyProxy: pictures from prompts, paid for once and kept for good.")
tenant_app = typer.Typer(no_args_is_help=True, help="Tenants of this server.")
key_app = typer.Typer(no_args_is_help=True, help="API keys of a tenant.")
app.add_typer(tenant_app, name="tenant")
app.add_typer(key_app, name="key")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that serve.")] = 1,
) -> None:
    """Serve HTTP until stopped."""
    from pixyproxy.web.server import serve_http  # noqa: PLC0415  (FastAPI takes 0.3 s to load; other commands go without)

    settings = load_settings()
    # Now, once for all workers, and with a sentence where it cannot be done; a worker could only log a traceback.
    _or_exit(lambda: asyncio.run(migrate_database(settings)))
    _or_exit(lambda: serve_http(settings, host=host, port=port, workers=workers))


@app.command()
def migrate(
    *, sql: Annotated[str | None, typer.Option(help="Print the whole schema for `mysql` or `sqlite` instead.")] = None
) -> None:
    """Bring the database schema up to date."""
    if sql is not None:
        from pixyproxy.data.migrations import render_schema  # noqa: PLC0415  (only for this)

        if sql not in {"mysql", "sqlite"}:
            _fail("--sql takes `mysql` or `sqlite`.")
        typer.echo(render_schema(sql), nl=False)
        return

    settings = load_settings()
    _or_exit(lambda: asyncio.run(migrate_database(settings)))
    typer.echo("The database schema is up to date.")


@app.command()
def bootstrap(*, as_json: AsJson = False) -> None:
    """Create the first tenant and an administrator's API key, unless there is one; the key is shown only now."""
    tenant, issued = _with_services(lambda services: services.tenants.bootstrap())
    secret = issued.api_key.get_secret_value() if issued else None
    if as_json:
        _print_json({"tenant": tenant.guid, "api_key": secret})
    elif secret is None:
        typer.echo("There is an administrator's key already. `pixyproxy key create` makes more, `key list` shows them.")
    else:
        typer.echo(
            f"Tenant:  {tenant.name} ({tenant.guid})\nAPI key: {secret}\nKeep the key now: it is not shown again."
        )


@tenant_app.command("create")
def create_tenant(
    name: Annotated[str, typer.Argument(help="A name that no other tenant has.")],
    *,
    visibility: Annotated[Visibility | None, typer.Option(help="Of pictures that do not say theirs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a tenant."""
    name = name.strip()
    if not 1 <= len(name) <= 255:  # noqa: PLR2004  (the column's width)
        _fail("A tenant's name has 1 to 255 characters.")
    tenant = _with_services(lambda services: services.tenants.create_tenant(name, default_visibility=visibility))
    _show([tenant], ("guid", "name", "default_visibility"), as_json=as_json, one=True)


@tenant_app.command("list")
def list_tenants(*, as_json: AsJson = False) -> None:
    """List the tenants, oldest first."""
    tenants = _with_services(lambda services: services.tenants.list_tenants())
    _show(tenants, ("guid", "name", "default_visibility", "created_at"), as_json=as_json)


@key_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    *,
    tenant: TenantName = "default",
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do; repeat for more.")] = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=3650, help="Its lifetime.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key; it is shown only now. Without --scope it may read, make and manage images."""
    scopes = frozenset(scope or (Scope.IMAGE_READ, Scope.IMAGE_GENERATE, Scope.IMAGE_MANAGE))
    expires_at: datetime | None = None if expires_in_days is None else clock.now() + timedelta(days=expires_in_days)

    async def issue(services: Services) -> dict[str, Any]:
        owner = await services.tenants.require_tenant(tenant)
        issued = await services.api_keys.issue_key(owner, name=name[:255], scopes=scopes, expires_at=expires_at)
        return issued.detail.model_dump(mode="json") | {"api_key": issued.api_key.get_secret_value()}

    key = _with_services(issue)
    if as_json:
        _print_json(key)
    else:
        typer.echo(f"GUID:    {key['guid']}\nAPI key: {key['api_key']}\nKeep the key now: it is not shown again.")


@key_app.command("list")
def list_keys(*, tenant: TenantName = "default", as_json: AsJson = False) -> None:
    """List a tenant's API keys, oldest first."""

    async def find(services: Services) -> list[Any]:
        owner = await services.tenants.require_tenant(tenant)
        return await services.api_keys.list_keys(tenant_id=owner.id)

    _show(_with_services(find), ("guid", "key_id", "name", "created_at", "expires_at", "revoked_at"), as_json=as_json)


@key_app.command("revoke")
def revoke_key(
    guid: Annotated[str, typer.Argument(help="The key's GUID, as `key list` shows it.")],
    *,
    tenant: TenantName = "default",
) -> None:
    """Make an API key worthless, at once and for good."""

    async def revoke(services: Services) -> None:
        owner = await services.tenants.require_tenant(tenant)
        await services.api_keys.revoke_key(ApiKeyGuid(guid.lower()), tenant_id=owner.id)

    _with_services(revoke)
    typer.echo("The key is revoked.")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    *,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write the picture to.")] = None,
    url: Annotated[str, typer.Option(envvar="PIXYPROXY_URL", help="The server.")] = "http://127.0.0.1:8000",
    api_key: Annotated[str, typer.Option(envvar="PIXYPROXY_API_KEY", help="A key with image:generate.")],
    model: Annotated[str | None, typer.Option(help="The upstream's model.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT or auto.")] = None,
    quality: Annotated[str | None, typer.Option(help="The upstream's quality.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Of a command that broke off, to repeat it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a picture through a running server and print its URL."""
    from pixyproxy.client import ClientError, generate_picture  # noqa: PLC0415  (an HTTP client, only for this)

    order = {"prompt": prompt, "model": model, "size": size, "quality": quality}
    try:
        image = generate_picture(
            url,
            api_key,
            {name: value for name, value in order.items() if value},
            idempotency_key=idempotency_key,
            output=output,
        )
    except ClientError as error:
        _fail(str(error))
    if as_json:
        _print_json(image)
    else:
        typer.echo(image["content_url"])
        if output is not None:
            typer.echo(f"Written to {output} ({image['byte_size']:,} bytes).")


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Check settings, database, store and upstream, and say what to mend."""
    from pixyproxy.service.doctor import examine  # noqa: PLC0415  (only for this)

    findings = asyncio.run(examine())
    if as_json:
        _print_json([finding.model_dump() for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject}: {finding.message}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def load_settings() -> Settings:
    """The settings, with logging set up for them; a wrong one ends the command with a sentence about it."""
    try:
        settings = Settings()
    except ValidationError as error:
        problems = "\n".join(f"  {'.'.join(map(str, item['loc'])).upper()}: {item['msg']}" for item in error.errors())
        _fail(f"These settings are wrong (PIXYPROXY_ + name, see .env.example):\n{problems}")
    configure_logging(log_format=settings.log_format, level=settings.log_level)
    return settings


def _with_services(work: Callable[[Services], Coroutine[Any, Any, Result]]) -> Result:
    """The result of ``work`` on open services, whose log lines only matter when something is wrong."""
    settings = load_settings()
    configure_logging(log_format=settings.log_format, level="WARNING")

    async def run() -> Result:
        async with open_services(settings) as services:
            return await work(services)

    return _or_exit(lambda: asyncio.run(run()))


def _or_exit(work: Callable[[], Result]) -> Result:
    """The result of ``work``; an error of ours ends the command with its message instead of a traceback."""
    try:
        return work()
    except PixyProxyException as error:
        _fail(error.message)
    except OSError as error:
        _fail(f"{error.strerror}: {error.filename}" if error.filename else str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


def _show(models: list[Any], columns: tuple[str, ...], *, as_json: bool, one: bool = False) -> None:
    """Print models as JSON without internal ids, or as a table."""
    rows = [_without_ids(model) for model in models]
    if as_json:
        _print_json(rows[0] if one else rows)
        return
    from rich.console import Console  # noqa: PLC0415  (rich takes 0.1 s, only for tables)
    from rich.table import Table  # noqa: PLC0415  (likewise)
    from rich.text import Text  # noqa: PLC0415  (likewise)

    table = Table(*columns, box=None)
    for row in rows:
        # Text takes no markup, which a name might hold.
        table.add_row(*(Text("" if row[column] is None else str(row[column])) for column in columns))
    width = None if sys.stdout.isatty() else UNWRAPPED
    Console(width=width).print(table)


def _without_ids(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude={"id", "tenant_id"})


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
