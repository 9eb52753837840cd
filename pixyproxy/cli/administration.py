"""``pixyproxy tenant``, ``token``, ``keys`` and ``audit``: administration of the whole server."""

import asyncio
import os
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr

from pixyproxy.cli.console import AsJson, fail, load_settings, operator, or_exit, print_json, show, with_services
from pixyproxy.core import clock
from pixyproxy.core.models.audit import AuditAction, AuditFilter
from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.tenant import NewTenant, TenantChange, Visibility
from pixyproxy.core.models.token import TokenOrder
from pixyproxy.core.settings import FORMER_SECRET_VARIABLE

if TYPE_CHECKING:
    from pixyproxy.service.composition import Services
    from pixyproxy.service.private.audit import AuditVerdict

TENANT_COLUMNS = (
    "guid",
    "name",
    "status",
    "default_visibility",
    "images_per_minute",
    "monthly_budget_usd",
    "allowed_models",
    "created_at",
)
ENTRY_COLUMNS = ("sequence", "at", "action", "actor_type", "actor", "target", "address", "details")

tenant_app = typer.Typer(no_args_is_help=True, help="Tenants of this server.")
token_app = typer.Typer(no_args_is_help=True, help="Access tokens.")
signing_key_app = typer.Typer(no_args_is_help=True, help="The keys that sign access tokens.")
audit_app = typer.Typer(no_args_is_help=True, help="The audit log.")

NameOrGuid = Annotated[str, typer.Argument(help="Name or GUID of the tenant.")]
VisibilityOption = Annotated[Visibility | None, typer.Option(help="Visibility of pictures that set none.")]
ImagesPerMinuteOption = Annotated[int | None, typer.Option(help="Maximum number of pictures in a minute.")]
BudgetOption = Annotated[float | None, typer.Option(help="Budget for a month, in US dollars.")]
ModelsOption = Annotated[list[str] | None, typer.Option("--model", help="An allowed model; repeat for more.")]


class Limit(StrEnum):
    """A limit of a tenant that can be removed."""

    IMAGES_PER_MINUTE = "images_per_minute"
    MONTHLY_BUDGET_USD = "monthly_budget_usd"
    ALLOWED_MODELS = "allowed_models"


class Status(StrEnum):
    """A status that an operator may set."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


@tenant_app.command("create")
def create_tenant(
    name: Annotated[str, typer.Argument(help="A unique name.")],
    *,
    visibility: VisibilityOption = None,
    images_per_minute: ImagesPerMinuteOption = None,
    monthly_budget_usd: BudgetOption = None,
    model: ModelsOption = None,
    as_json: AsJson = False,
) -> None:
    """Create a tenant."""
    settings = _tenant_settings(visibility, images_per_minute, monthly_budget_usd, model)

    async def create(services: "Services") -> Any:  # noqa: ANN401  (shown like any model)
        order = NewTenant.model_validate({"name": name} | settings)
        return await services.tenants.create_tenant(order, actor=operator())

    show([with_services(create)], TENANT_COLUMNS, as_json=as_json, one=True)


@tenant_app.command("list")
def list_tenants(*, as_json: AsJson = False) -> None:
    """List the tenants, oldest first."""
    show(with_services(lambda services: services.tenants.list_tenants()), TENANT_COLUMNS, as_json=as_json)


@tenant_app.command("update")
def update_tenant(
    tenant: NameOrGuid,
    *,
    name: Annotated[str | None, typer.Option(help="A unique name.")] = None,
    status: Annotated[Status | None, typer.Option(help="A suspended tenant can do nothing.")] = None,
    visibility: VisibilityOption = None,
    images_per_minute: ImagesPerMinuteOption = None,
    monthly_budget_usd: BudgetOption = None,
    model: ModelsOption = None,
    unset: Annotated[list[Limit] | None, typer.Option(help="A limit to remove; repeat for more.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change the given settings of a tenant."""
    values = {"name": name, "status": status}
    changes: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    changes |= _tenant_settings(visibility, images_per_minute, monthly_budget_usd, model)
    changes |= dict.fromkeys(limit.value for limit in unset or ())

    async def change(services: "Services") -> Any:  # noqa: ANN401  (shown like any model)
        order = TenantChange.model_validate(changes)
        return await services.tenants.change_tenant(tenant, order, actor=operator())

    show([with_services(change)], TENANT_COLUMNS, as_json=as_json, one=True)


@tenant_app.command("delete")
def delete_tenant(
    tenant: NameOrGuid,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a tenant permanently, with all its pictures, keys and users."""
    if not yes:
        typer.confirm(f"Delete {tenant} with all its pictures?", abort=True)
    with_services(lambda services: services.tenants.delete_tenant(tenant, actor=operator()))
    typer.echo("Tenant deleted.")


@token_app.command("issue")
def issue_token(
    *,
    tenant: Annotated[str, typer.Option(help="Name or GUID of the tenant.")] = "default",
    scope: Annotated[list[Scope] | None, typer.Option(help="A scope of the token; repeat for more.")] = None,
    expires_in: Annotated[int, typer.Option(min=1, help="Lifetime in seconds.")] = 3600,
    as_json: AsJson = False,
) -> None:
    """Issue an access token for a tenant. Without --scope, it may read, generate and manage images."""

    async def issue(services: "Services") -> dict[str, Any]:
        from pixyproxy.service.private.identity.tenants import command_grantor  # noqa: PLC0415  (the database)

        order = TokenOrder(tenant=tenant, scope=" ".join(scope) if scope else None, expires_in=expires_in)
        grantor = command_grantor(await services.tenants.require_tenant(tenant), operator())
        issued = await services.tokens.issue_for_tenant(order, grantor=grantor)
        return issued.as_response().model_dump(exclude_none=True)

    token = with_services(issue)
    if as_json:
        print_json(token)
    else:
        typer.echo(token["access_token"])
        server = load_settings().base_url or "this installation (PIXYPROXY_PUBLIC_URL is not set)"
        typer.echo(f"Valid for {server}.", err=True)


@signing_key_app.command("rotate")
def rotate_signing_keys(
    *,
    now: Annotated[
        bool, typer.Option("--now", help="For a leaked key: use the new key now and invalidate every issued token.")
    ] = False,
) -> None:
    """Create a signing key: published now, used in ten minutes. The former key stays valid for its tokens."""

    async def rotate(services: "Services") -> Any:  # noqa: ANN401  (the displayed part of the signing key)
        return await services.tokens.rotate_signing_keys(actor=operator(), at_once=now)

    key = with_services(rotate)
    typer.echo(f"Key {key.kid} signs from {key.signs_from:%Y-%m-%d %H:%M:%S} UTC.")


@signing_key_app.command("reseal")
def reseal_signing_keys(
    *,
    former_file: Annotated[
        Path | None, typer.Option(help=f"File with the former secret, instead of {FORMER_SECRET_VARIABLE}.")
    ] = None,
    lost: Annotated[
        bool, typer.Option("--lost", help="The former secret is lost: replace all keys. Every access token ends.")
    ] = False,
) -> None:
    """Change the secret: re-encrypt the keys with PIXYPROXY_SECRET_KEY (or the data folder's secret).

    Restart every process with the new secret afterwards. The signing secrets of webhooks change too.
    """
    former = None if lost else _former_secret(former_file)
    settings = load_settings()
    from pixyproxy.service.composition import reseal_installation  # noqa: PLC0415  (the database, only for this)

    or_exit(lambda: asyncio.run(reseal_installation(settings, former=former, actor=operator())))
    typer.echo("Secret changed. Restart every process with the new one.")


@signing_key_app.command("list")
def list_signing_keys(*, as_json: AsJson = False) -> None:
    """List the public keys that are currently published."""

    async def find(services: "Services") -> list[dict[str, str]]:
        return services.key_ring.jwks(clock.now())["keys"]

    keys = with_services(find)
    if as_json:
        print_json(keys)
    else:
        typer.echo("\n".join(key["kid"] for key in keys))


@audit_app.command("list")
def list_audit_entries(
    *,
    action: Annotated[AuditAction | None, typer.Option(help="Only this action.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only actions of this user, key or token.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of entries.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest entries of the audit log."""

    async def find(services: "Services") -> list[Any]:
        page = await services.audit.list_entries(AuditFilter(action=action, actor=actor), limit=limit, cursor=None)
        return page.entries

    show(with_services(find), ENTRY_COLUMNS, as_json=as_json)


@audit_app.command("verify")
def verify_audit_log(*, as_json: AsJson = False) -> None:
    """Verify that no entry of the audit log was changed or removed; exit code 1 otherwise."""

    async def verify(services: "Services") -> "AuditVerdict":
        return await services.audit.verify()

    verdict = with_services(verify)
    if as_json:
        print_json({"entries": verdict.entries, "head_sha256": verdict.head_sha256, "problem": verdict.problem})
    elif verdict.problem is None:
        typer.echo(f"All {verdict.entries} entries are unaltered. Head: {verdict.head_sha256}")
    if verdict.problem is not None:
        fail(f"The audit log was altered: {verdict.problem}.")


def _former_secret(file: Path | None) -> SecretStr:
    """Return the secret from a file or the environment: command-line arguments are visible to other users."""
    former = (
        os.environ.get(FORMER_SECRET_VARIABLE) if file is None else or_exit(lambda: file.read_text("utf-8").strip())
    )
    if not former:
        fail(f"Set {FORMER_SECRET_VARIABLE}, or pass --former-file. If the former secret is lost, pass --lost.")
    return SecretStr(former)


def _tenant_settings(
    visibility: Visibility | None, images_per_minute: int | None, budget: float | None, models: list[str] | None
) -> dict[str, Any]:
    """Return the given settings as fields of the tenant models."""
    values = {
        "default_visibility": visibility,
        "images_per_minute": images_per_minute,
        "monthly_budget_usd": None if budget is None else Decimal(str(budget)),
        "allowed_models": models or None,
    }
    return {name: value for name, value in values.items() if value is not None}
