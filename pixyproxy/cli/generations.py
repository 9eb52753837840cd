"""``pixyproxy generation``: outcomes that nobody knows, and what operators found out about them."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pixyproxy.cli.console import AsJson, fail, operator, show, with_services
from pixyproxy.core.models.generation import GenerationStatus, Resolution

if TYPE_CHECKING:
    from pixyproxy.service.composition import Services

COLUMNS = ("guid", "tenant", "status", "model", "upstream", "subject", "reserved_usd", "created_at")

generation_app = typer.Typer(no_args_is_help=True, help="Generations whose outcome nobody knows.")


@generation_app.command("list")
def list_generations(
    *,
    status: Annotated[GenerationStatus, typer.Option(help="Only in this status.")] = GenerationStatus.UNKNOWN,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at the most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest generations of all tenants that have to be resolved."""
    found = with_services(lambda services: services.operations.list_generations(status, limit=limit))
    show(found, COLUMNS, as_json=as_json)


@generation_app.command("resolve")
def resolve_generations(
    guid: Annotated[
        str | None, typer.Argument(help="One generation; without it, --upstream or --since says which.")
    ] = None,
    *,
    bought: Annotated[
        bool,
        typer.Option(
            "--bought/--not-bought",
            help="Whether the upstream charged for them. If not, their reservations and Idempotency-Keys are freed.",
        ),
    ],
    upstream: Annotated[str | None, typer.Option(help="All that this upstream was asked for.")] = None,
    since: Annotated[datetime | None, typer.Option(help="All that were ordered at this time (UTC) or later.")] = None,
) -> None:
    """Say what became of generations whose outcome is unknown. What was kept of their answers is removed."""
    many = upstream is not None or since is not None
    if many == (guid is not None):
        fail("Name either one generation, or the upstream or the time of many with --upstream and --since.")

    async def resolve(services: "Services") -> int:
        resolution, actor = Resolution(bought=bought), operator()
        if guid is not None:
            await services.operations.resolve_generation(guid, resolution, actor=actor)
            return 1
        moment = None if since is None else since.replace(tzinfo=UTC)
        return await services.operations.resolve_generations(resolution, upstream=upstream, since=moment, actor=actor)

    count = with_services(resolve)
    typer.echo(f"Resolved {count} generation{'' if count == 1 else 's'} as {'bought' if bought else 'not bought'}.")
