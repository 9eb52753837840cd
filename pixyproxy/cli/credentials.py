"""``pixyproxy key`` and ``pixyproxy user``: the credentials of a tenant."""

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
    name: Annotated[str, typer.Argument(help="A name that describes the use of the key.")],
    *,
    tenant: TenantName = "default",
    scope: Annotated[list[Scope] | None, typer.Option(help="A scope of the key; repeat for more.")] = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=36500, help="Lifetime in days.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="An allowed model; repeat for more.")] = None,
    images_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of pictures in a minute.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key; it is shown only once. Without --scope, it may read, generate and manage images."""
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
    grace_seconds: Annotated[int, typer.Option(help="How long the former secret stays valid.")] = GRACE_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Give an API key a new secret, which is shown only once."""

    async def rotate(services: "Services", grantor: "Grantor") -> IssuedApiKey:
        return await services.api_keys.rotate_key(guid.lower(), Rotation(grace_seconds=grace_seconds), grantor=grantor)

    _show_secret(_for_tenant(tenant, rotate), as_json=as_json)


@key_app.command("revoke")
def revoke_key(guid: Guid, *, tenant: TenantName = "default") -> None:
    """Revoke an API key and every token issued to it, immediately and permanently."""
    _for_tenant(tenant, lambda services, grantor: services.api_keys.revoke_key(guid.lower(), grantor=grantor))
    typer.echo("Key revoked.")


@user_app.command("create")
def create_user(
    username: Annotated[str, typer.Argument(help="A unique name or e-mail address.")],
    *,
    tenant: TenantName = "default",
    role: Annotated[Role, typer.Option(help="The user's role.")] = Role.MEMBER,
    as_json: AsJson = False,
) -> None:
    """Create a user; the password is prompted for, or read from the first line of standard input."""
    password = _read_password()

    async def create(services: "Services", grantor: "Grantor") -> Any:  # noqa: ANN401  (shown like any model)
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
    role: Annotated[Role | None, typer.Option(help="The user's role.")] = None,
    status: Annotated[UserStatus | None, typer.Option(help="A disabled user cannot sign in.")] = None,
    password: Annotated[
        bool, typer.Option("--password", help="Prompt for a new password, or read it from standard input.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Change a user's role, status or password."""
    secret = _read_password() if password else None

    async def change(services: "Services", grantor: "Grantor") -> Any:  # noqa: ANN401  (shown like any model)
        return await services.users.change_user(
            guid.lower(), UserChange(role=role, status=status, password=secret), grantor=grantor
        )

    show([_for_tenant(tenant, change)], USER_COLUMNS, as_json=as_json, one=True)


@user_app.command("delete")
def delete_user(guid: Guid, *, tenant: TenantName = "default") -> None:
    """Delete a user; their pictures stay with the tenant."""
    _for_tenant(tenant, lambda services, grantor: services.users.delete_user(guid.lower(), grantor=grantor))
    typer.echo("User deleted.")


def _for_tenant(tenant: str, work: "Callable[[Services, Grantor], Coroutine[Any, Any, Result]]") -> Result:
    """Return the result of ``work``, done as an operator on a tenant's keys or users."""
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
        typer.echo(f"GUID:    {issued.detail.guid}\nAPI key: {secret}\nStore the key now: it is not shown again.")


def _read_password() -> SecretStr:
    if sys.stdin.isatty():
        return SecretStr(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return SecretStr(sys.stdin.readline().rstrip("\r\n"))
