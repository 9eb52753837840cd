"""Commands that run the server, and ``generate``, a client of it."""

import asyncio
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from pixyproxy.cli.console import AsJson, fail, load_settings, operator, or_exit, print_json, with_services
from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.settings import Settings

app = typer.Typer(no_args_is_help=True, help="PixyProxy: pictures from prompts, paid for once, stored permanently.")


def _show_version(wanted: bool) -> None:  # noqa: FBT001  (typer passes the option by position)
    if wanted:
        typer.echo(version("pixyproxy"))
        raise typer.Exit


@app.callback()
def main(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """PixyProxy: pictures from prompts, paid for once, stored permanently."""


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Number of server processes.")] = 1,
    *,
    execute: Annotated[bool, typer.Option(help="Execute generations too; otherwise run `pixyproxy worker`.")] = True,
) -> None:
    """Serve HTTP until stopped."""
    from pixyproxy.service.composition import verify_installation  # noqa: PLC0415  (0.25 s; `generate` does not need it)
    from pixyproxy.web.server.uvicorn_server import serve_http  # noqa: PLC0415  (FastAPI takes 0.3 s to load; other commands do not need it)

    settings = load_settings()
    # Verify once for all workers and report a problem in one sentence; a worker could only log a traceback.
    or_exit(lambda: asyncio.run(verify_installation(settings)))
    or_exit(lambda: serve_http(settings, host=host, port=port, workers=workers, executes=execute))


@app.command()
def worker() -> None:
    """Execute generations until stopped, without serving HTTP."""
    from pixyproxy.cli.worker import execute_generations  # noqa: PLC0415  (0.25 s; `generate` does not need it)

    settings = load_settings()
    or_exit(lambda: asyncio.run(execute_generations(settings)))


@app.command()
def migrate(
    *, sql: Annotated[str | None, typer.Option(help="Print the whole schema for `mysql` or `sqlite` instead.")] = None
) -> None:
    """Bring the database schema up to date."""
    if sql is not None:
        from pixyproxy.data.migrations import render_schema  # noqa: PLC0415  (only for this)

        if sql not in {"mysql", "sqlite"}:
            fail("Invalid value for --sql. Use `mysql` or `sqlite`.")
        typer.echo(render_schema(sql), nl=False)
        return

    from pixyproxy.service.composition import migrate_database  # noqa: PLC0415  (as above)

    settings = load_settings()
    or_exit(lambda: asyncio.run(migrate_database(settings)))
    typer.echo("The database schema is up to date.")


@app.command()
def bootstrap(*, as_json: AsJson = False) -> None:
    """Create the first tenant and an administrator's API key if there is none; the key is shown only once."""
    tenant, issued = with_services(lambda services: services.tenants.bootstrap(actor=operator()))
    secret = issued.api_key.get_secret_value() if issued else None
    if as_json:
        print_json({"tenant": tenant.guid, "api_key": secret})
    elif secret is None:
        typer.echo(
            "An administrator's key already exists. If it is lost, run `pixyproxy key list`, then "
            "`pixyproxy key rotate GUID`."
        )
    else:
        typer.echo(
            f"Tenant:  {tenant.name} ({tenant.guid})\nAPI key: {secret}\nStore the key now: it is not shown again."
        )


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="Description of the picture.")],
    *,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write the picture to.")] = None,
    url: Annotated[str, typer.Option(envvar="PIXYPROXY_URL", help="URL of the server.")] = "http://127.0.0.1:8000",
    api_key: Annotated[str, typer.Option(envvar="PIXYPROXY_API_KEY", help="API key with scope image:generate.")],
    model: Annotated[str | None, typer.Option(help="Model of the upstream.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT or auto.")] = None,
    quality: Annotated[str | None, typer.Option(help="Quality, as the upstream names it.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Key of an interrupted command, to repeat it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Generate a picture through a running server and print its URL."""
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
        fail(str(error))
    if as_json:
        print_json(image)
    else:
        typer.echo(image["content_url"])
        if output is not None:
            typer.echo(f"Written to {output} ({image['byte_size']:,} bytes).")


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Check settings, database, store and upstreams, and say how to fix problems."""
    from pixyproxy.service.doctor import examine  # noqa: PLC0415  (only for this)

    findings = asyncio.run(examine(limits=_examine_limits))
    if as_json:
        print_json([finding.model_dump() for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject}: {finding.message}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


async def _examine_limits(settings: Settings) -> str:
    """Check the connection to Redis, which holds the limits. Raises ``ConfigurationException`` if it fails."""
    from pixyproxy.web.rate_limits.counters import Counters  # noqa: PLC0415  (the client of Redis, only for this)

    if settings.redis_url is None:
        return "PIXYPROXY_REDIS_URL is not set: each process counts requests on its own"
    counters = Counters(settings.redis_url)
    try:
        await counters.probe()
        if counters.held != "shared":
            problem = "Cannot connect to Redis. Check that it runs, and host, port and password in PIXYPROXY_REDIS_URL."
            raise ConfigurationException(problem)
    finally:
        await counters.close()
    return "shared by all processes in Redis"
