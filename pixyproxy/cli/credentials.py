"""``pixyproxy key`` and ``pixyproxy user``: who may act for a tenant."""

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import SecretStr

from pixyproxy.cli.console import AsJson, TenantName, operator, print_json, show, with_services
from pixyproxy.core import clock
from pixyproxy.core.models.api_key import DEFAULT_SCOPES, GRACE_SECONDS, IssuedApiKey, NewApiKey, Rotation
from pixyproxy.core.models.principal import Role, Scope
from pixyproxy.core.models.user import NewUser, UserChange, UserStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pixyproxy.service.composition import Services
    from pixyproxy.service.cursors import Page
    from pixyproxy.service.private.identity.grants import Grantor

Result = TypeVar("Result")
KEY_COLUMNS = ("guid", "key_id", "name", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
USER_COLUMNS = ("guid", "username", "role", "status", "created_at", "last_sign_in_at")

key_app = typer.Typer(no_args_is_help=True, help="API keys of a tenant.")
user_app = typer.Typer(no_args_is_help=True, help="Users of a tenant, who sign in with a password.")

Guid = Annotated[str, typer.Argument(help="GUID, as `list` shows it.")]


@key_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    *,
    tenant: TenantName = "default",
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do; repeat for more.")] = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=36500, help="Its lifetime.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model that it may use; repeat for more.")] = None,
    images_per_minute: Annotated[int | None, typer.Option(min=1, help="A limit of its own.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key; it is shown only now. Without --scope it may read, make and manage images."""
    expires_at = None if expires_in_days is None else clock.now() + timedelta(days=expires_in_days)

    async def issue(services: "Services", grantor: "Grantor") -> IssuedApiKey:
        order = NewApiKey(
            name=name,
            scopes=frozenset(scope or DEFAULT_SCOPES),
            expires_at=expires_at,
            allowed_models=frozenset(model) if model else None,
            images_per_minute=images_per_minute,
        )
        return await services.api_keys.issue_key(order, grantor=grantor)

    _show_secret(_for_tenant(tenant, issue), as_json=as_json)


@key_app.command("list")
def list_keys(*, tenant: TenantName = "default", as_json: AsJson = False) -> None:
    """List a tenant's API keys, oldest first."""
    keys = _for_tenant(tenant, lambda services, owner: _every(services.api_keys.list_keys, owner))
    show(keys, KEY_COLUMNS, as_json=as_json)


@key_app.command("rotate")
def rotate_key(
    guid: Guid,
    *,
    tenant: TenantName = "default",
    grace_seconds: Annotated[int, typer.Option(help="How long the former secret goes on working.")] = GRACE_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Give an API key a new secret, which is shown only now."""

    async def rotate(services: "Services", grantor: "Grantor") -> IssuedApiKey:
        return await services.api_keys.rotate_key(guid.lower(), Rotation(grace_seconds=grace_seconds), grantor=grantor)

    _show_secret(_for_tenant(tenant, rotate), as_json=as_json)


@key_app.command("revoke")
def revoke_key(guid: Guid, *, tenant: TenantName = "default") -> None:
    """Make an API key, and every token that it got, worthless, at once and for good."""
    _for_tenant(tenant, lambda services, grantor: services.api_keys.revoke_key(guid.lower(), grantor=grantor))
    typer.echo("The key is revoked.")


@user_app.command("create")
def create_user(
    username: Annotated[str, typer.Argument(help="A name, or an e-mail address, that no other user has.")],
    *,
    tenant: TenantName = "default",
    role: Annotated[Role, typer.Option(help="What the user may do.")] = Role.MEMBER,
    as_json: AsJson = False,
) -> None:
    """Create a user; the password is asked for, or read from the first line of a pipe."""
    password = _read_password()

    async def create(services: "Services", grantor: "Grantor") -> Any:  # noqa: ANN401  (shown as any model is)
        return await services.users.create_user(
            NewUser(username=username, password=password, role=role), grantor=grantor
        )

    show([_for_tenant(tenant, create)], USER_COLUMNS, as_json=as_json, one=True)


@user_app.command("list")
def list_users(*, tenant: TenantName = "default", as_json: AsJson = False) -> None:
    """List a tenant's users, oldest first."""
    users = _for_tenant(tenant, lambda services, owner: _every(services.users.list_users, owner))
    show(users, USER_COLUMNS, as_json=as_json)


@user_app.command("update")
def update_user(
    guid: Guid,
    *,
    tenant: TenantName = "default",
    role: Annotated[Role | None, typer.Option(help="What the user may do.")] = None,
    status: Annotated[UserStatus | None, typer.Option(help="Whether the user may sign in.")] = None,
    password: Annotated[
        bool, typer.Option("--password", help="Ask for a new password, or read it from a pipe.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Change a user's role, status or password."""
    secret = _read_password() if password else None

    async def change(services: "Services", grantor: "Grantor") -> Any:  # noqa: ANN401  (shown as any model is)
        return await services.users.change_user(
            guid.lower(), UserChange(role=role, status=status, password=secret), grantor=grantor
        )

    show([_for_tenant(tenant, change)], USER_COLUMNS, as_json=as_json, one=True)


@user_app.command("delete")
def delete_user(guid: Guid, *, tenant: TenantName = "default") -> None:
    """Remove a user; what they made stays the tenant's."""
    _for_tenant(tenant, lambda services, grantor: services.users.delete_user(guid.lower(), grantor=grantor))
    typer.echo("The user is deleted.")


def _for_tenant(tenant: str, work: "Callable[[Services, Grantor], Coroutine[Any, Any, Result]]") -> Result:
    """The result of ``work`` as an operator at the command line on a tenant's keys or users."""
    from pixyproxy.service.private.identity.tenants import command_grantor  # noqa: PLC0415  (the database, likewise)

    async def run(services: "Services") -> Result:
        owner = await services.tenants.require_tenant(tenant)
        return await work(services, command_grantor(owner, operator()))

    return with_services(run)


async def _every(list_page: "Callable[..., Coroutine[Any, Any, Page[Result]]]", owner: "Grantor") -> list[Result]:
    """Return the items of all pages of a tenant's list."""
    page = await list_page(tenant_id=owner.tenant_id)
    items = page.items
    while page.next_cursor is not None:
        page = await list_page(tenant_id=owner.tenant_id, cursor=page.next_cursor)
        items += page.items
    return items


def _show_secret(issued: IssuedApiKey, *, as_json: bool) -> None:
    secret = issued.api_key.get_secret_value()
    if as_json:
        print_json(issued.detail.model_dump(mode="json") | {"api_key": secret})
    else:
        typer.echo(f"GUID:    {issued.detail.guid}\nAPI key: {secret}\nKeep the key now: it is not shown again.")


def _read_password() -> SecretStr:
    if sys.stdin.isatty():
        return SecretStr(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return SecretStr(sys.stdin.readline().rstrip("\r\n"))
