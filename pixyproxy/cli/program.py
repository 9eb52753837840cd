"""The commands that run the server, and ``generate``, which is a client of it."""

import asyncio
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from pixyproxy.cli.console import AsJson, fail, load_settings, operator, or_exit, print_json, with_services
from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.settings import Settings

app = typer.Typer(no_args_is_help=True, help="PixyProxy: pictures from prompts, paid for once and kept for good.")


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
    """PixyProxy: pictures from prompts, paid for once and kept for good."""


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that serve.")] = 1,
    *,
    execute: Annotated[bool, typer.Option(help="Execute generations, too; else `pixyproxy worker` has to.")] = True,
) -> None:
    """Serve HTTP until stopped."""
    from pixyproxy.service.composition import verify_installation  # noqa: PLC0415  (0.25 s that `generate` goes without)
    from pixyproxy.web.server.uvicorn_server import serve_http  # noqa: PLC0415  (FastAPI takes 0.3 s to load; other commands go without)

    settings = load_settings()
    # Now, once for all workers, and with a sentence where it cannot be done; a worker could only log a traceback.
    or_exit(lambda: asyncio.run(verify_installation(settings)))
    or_exit(lambda: serve_http(settings, host=host, port=port, workers=workers, executes=execute))


@app.command()
def worker() -> None:
    """Execute generations until stopped, without serving HTTP."""
    from pixyproxy.cli.worker import execute_generations  # noqa: PLC0415  (0.25 s that `generate` goes without)

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
            fail("--sql takes `mysql` or `sqlite`.")
        typer.echo(render_schema(sql), nl=False)
        return

    from pixyproxy.service.composition import migrate_database  # noqa: PLC0415  (as above)

    settings = load_settings()
    or_exit(lambda: asyncio.run(migrate_database(settings)))
    typer.echo("The database schema is up to date.")


@app.command()
def bootstrap(*, as_json: AsJson = False) -> None:
    """Create the first tenant and an administrator's API key, unless there is one; the key is shown only now."""
    tenant, issued = with_services(lambda services: services.tenants.bootstrap(actor=operator()))
    secret = issued.api_key.get_secret_value() if issued else None
    if as_json:
        print_json({"tenant": tenant.guid, "api_key": secret})
    elif secret is None:
        typer.echo("There is an administrator's key already. Is it lost? `pixyproxy key list`, then `key rotate GUID`.")
    else:
        typer.echo(
            f"Tenant:  {tenant.name} ({tenant.guid})\nAPI key: {secret}\nKeep the key now: it is not shown again."
        )


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
        fail(str(error))
    if as_json:
        print_json(image)
    else:
        typer.echo(image["content_url"])
        if output is not None:
            typer.echo(f"Written to {output} ({image['byte_size']:,} bytes).")


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Check settings, database, store and upstream, and say what to mend."""
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
    """Ask Redis, which the limits of the web layer alone know. Raises ``ConfigurationException`` if it is away."""
    from pixyproxy.web.rate_limits.counters import Counters  # noqa: PLC0415  (the client of Redis, only for this)

    if settings.redis_url is None:
        return "no PIXYPROXY_REDIS_URL is set: each process counts for itself"
    counters = Counters(settings.redis_url)
    try:
        await counters.probe()
        if counters.held != "shared":
            problem = (
                "Redis does not answer. Does it run, and are host, port and password in PIXYPROXY_REDIS_URL right?"
            )
            raise ConfigurationException(problem)
    finally:
        await counters.close()
    return "Redis answers and holds them for all processes"
