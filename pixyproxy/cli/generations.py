"""``pixyproxy generation``: list and resolve generations with an unknown outcome."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pixyproxy.cli.console import AsJson, fail, operator, show, with_services
from pixyproxy.core.models.generation import GenerationStatus, Resolution

if TYPE_CHECKING:
    from pixyproxy.service.composition import Services

COLUMNS = ("guid", "tenant", "status", "model", "upstream", "subject", "reserved_usd", "created_at")

generation_app = typer.Typer(no_args_is_help=True, help="Generations with an unknown outcome.")


@generation_app.command("list")
def list_generations(
    *,
    status: Annotated[GenerationStatus, typer.Option(help="Only this status.")] = GenerationStatus.UNKNOWN,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of generations.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest generations of all tenants; by default those with an unknown outcome."""
    found = with_services(lambda services: services.operations.list_generations(status, limit=limit))
    show(found, COLUMNS, as_json=as_json)


@generation_app.command("resolve")
def resolve_generations(
    guid: Annotated[
        str | None, typer.Argument(help="One generation; omit it to select several with --upstream or --since.")
    ] = None,
    *,
    bought: Annotated[
        bool,
        typer.Option(
            "--bought/--not-bought",
            help="Whether the upstream charged for them. If not, reservations and Idempotency-Keys are released.",
        ),
    ],
    upstream: Annotated[str | None, typer.Option(help="All generations of this upstream.")] = None,
    since: Annotated[datetime | None, typer.Option(help="All generations ordered at this time (UTC) or later.")] = None,
) -> None:
    """Resolve generations with an unknown outcome, and remove their retained answers."""
    many = upstream is not None or since is not None
    if many == (guid is not None):
        fail("Pass either the GUID of one generation, or --upstream or --since to select several.")

    async def resolve(services: "Services") -> int:
        resolution, actor = Resolution(bought=bought), operator()
        if guid is not None:
            await services.operations.resolve_generation(guid, resolution, actor=actor)
            return 1
        moment = None if since is None else since.replace(tzinfo=UTC)
        return await services.operations.resolve_generations(resolution, upstream=upstream, since=moment, actor=actor)

    count = with_services(resolve)
    typer.echo(f"Resolved {count} generation{'' if count == 1 else 's'} as {'bought' if bought else 'not bought'}.")
