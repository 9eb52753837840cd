"""The OAuth 2 endpoints: tokens (RFC 6749), their revocation (RFC 7009) and introspection (RFC 7662)."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.requests import Request

from pixyproxy.core.exceptions import (
    OAuthClientException,
    OAuthGrantTypeException,
    OAuthRequestException,
)
from pixyproxy.core.models.principal import Principal
from pixyproxy.core.models.token import Introspection, IssuedTokens, TokenResponse
from pixyproxy.service.private.identity.key_format import PresentedKey, read_client
from pixyproxy.service.private.identity.oauth.clients import RefreshingClient
from pixyproxy.web.auth.client import Client, PresentedClient
from pixyproxy.web.auth.guard import client_name, guarded, guarded_password
from pixyproxy.web.auth.policies import credential_in, recognize
from pixyproxy.web.dependencies import AllServices, Limits
from pixyproxy.web.openapi import SECURITY, Tag, oauth_errors
from pixyproxy.web.rate_limits.addresses import client_address
from pixyproxy.web.rate_limits.guarded_route import GuardedRoute
from pixyproxy.web.rate_limits.limits import SIGN_IN, RateLimits

NOT_KEPT = {"Pragma": "no-cache"}
"""Required by RFC 6749 §5.1, beside the ``Cache-Control: no-store`` of every response."""


class TokenForm(BaseModel):
    """The parameters of a token request; unknown parameters are ignored (RFC 6749 §3.2)."""

    model_config = ConfigDict(hide_input_in_errors=True)

    grant_type: str = Field(
        max_length=100, json_schema_extra={"enum": ["password", "client_credentials", "refresh_token"]}
    )
    username: str | None = Field(default=None, max_length=128, examples=["ann@example.com"])
    password: Annotated[SecretStr, Field(max_length=256)] | None = Field(
        default=None, examples=["correct horse battery staple"]
    )
    refresh_token: Annotated[SecretStr, Field(max_length=100)] | None = None
    scope: str | None = Field(
        default=None, max_length=500, description="Separated by spaces; restricts the scopes granted."
    )
    client_id: str | None = Field(default=None, max_length=255)
    client_secret: Annotated[SecretStr, Field(max_length=255)] | None = None


class TokenStatusForm(BaseModel):
    """A token to revoke or introspect."""

    model_config = ConfigDict(hide_input_in_errors=True)

    token: Annotated[SecretStr, Field(min_length=1, max_length=10_000, examples=["eyJhbGciOiJFUzI1NiJ9.e30.c2ln"])]
    token_type_hint: str | None = Field(default=None, max_length=100)
    client_id: str | None = Field(default=None, max_length=255)
    client_secret: Annotated[SecretStr, Field(max_length=255)] | None = None


async def issue_token(
    request: Request,
    response: Response,
    form: Annotated[TokenForm, Form()],
    client: PresentedClient,
    services: AllServices,
    limits: Limits,
) -> TokenResponse:
    """Issue an access token for a password, an API key or a refresh token.

    For `client_credentials` the client is an API key: its key id is the `client_id`, the key the `client_secret`.
    Both may also be sent as Basic credentials in `Authorization`.
    """
    if form.grant_type == "client_credentials":
        issued = await _issue_to_client(request, form, client, services, limits)
    elif form.grant_type == "password":
        issued = await _sign_in(request, form, client, services, limits)
    elif form.grant_type == "refresh_token":
        issued = await _refresh(request, form, client, services, limits)
    else:
        raise OAuthGrantTypeException
    response.headers.update(NOT_KEPT)
    return issued.as_response()


async def _issue_to_client(
    request: Request, form: TokenForm, client: Client | None, services: AllServices, limits: RateLimits
) -> IssuedTokens:
    if client is None:
        raise OAuthClientException
    async with guarded(request, limits, client_name(client.id)):
        return await services.tokens.issue_to_client(_key_of(client), scope=form.scope)


async def _sign_in(
    request: Request, form: TokenForm, client: Client | None, services: AllServices, limits: RateLimits
) -> IssuedTokens:
    if not form.username or form.password is None:
        message = "username and password are required."
        raise OAuthRequestException(message)
    principal = await _authenticated_client(request, client, services, limits)
    async with guarded_password(request, limits, form.username):
        return await services.tokens.sign_in(
            form.username,
            form.password,
            scope=form.scope,
            client_id=None if client is None else client.id,
            client=principal,
            address=client_address(request),
        )


async def _refresh(
    request: Request, form: TokenForm, client: Client | None, services: AllServices, limits: RateLimits
) -> IssuedTokens:
    if form.refresh_token is None:
        message = "refresh_token is required."
        raise OAuthRequestException(message)
    principal = await _authenticated_client(request, client, services, limits)
    refreshing = RefreshingClient(None if client is None else client.id, is_authenticated=principal is not None)
    async with guarded(request, limits, None):
        return await services.tokens.refresh(form.refresh_token, scope=form.scope, client=refreshing)


async def revoke_token(
    request: Request,
    form: Annotated[TokenStatusForm, Form()],
    client: PresentedClient,
    services: AllServices,
    limits: Limits,
) -> Response:
    """Revoke an access or refresh token; revoking a refresh token ends its whole sign-in."""
    principal = await _authenticated_client(request, client, services, limits)
    await services.token_status.revoke(form.token, client=principal)
    return Response(status_code=200, headers=NOT_KEPT)


async def introspecting_caller(
    request: Request, client: PresentedClient, services: AllServices, limits: Limits
) -> Principal:
    """Return the principal that introspects: a client with its secret, or the owner of any other credential."""
    principal = await _authenticated_client(request, client, services, limits)
    if principal is None:
        principal = request.state.principal = await recognize(request, credential_in(request.headers))
    if principal is None:
        raise OAuthClientException
    return principal


async def introspect_token(
    response: Response,
    form: Annotated[TokenStatusForm, Form()],
    caller: Annotated[Principal, Depends(introspecting_caller)],
    services: AllServices,
) -> Introspection:
    """Return the state of a token of the caller's tenant; any other token is reported as not active.

    The caller may also be an OAuth client, with `client_id` and `client_secret` in the form or as Basic credentials.
    """
    response.headers.update(NOT_KEPT)
    return await services.token_status.introspect(form.token, caller=caller)


async def _authenticated_client(
    request: Request, client: Client | None, services: AllServices, limits: RateLimits
) -> Principal | None:
    """Return the principal of a client with a secret, which must be valid; None for a public client."""
    if client is None or client.secret is None:
        return None
    async with guarded(request, limits, client_name(client.id)):
        return await services.token_status.recognize_client(_key_of(client))


def _key_of(client: Client) -> PresentedKey | None:
    return None if client.secret is None else read_client(client.id, client.secret)


def token_router() -> APIRouter:
    """Return the router of the OAuth 2 endpoints."""
    router = APIRouter(prefix="/auth", tags=[Tag.IDENTITY], route_class=GuardedRoute, dependencies=[SIGN_IN])
    router.post(
        "/token",
        responses=oauth_errors(400, 401, 403, 413, 429, 503),
        response_model_exclude_none=True,
    )(issue_token)
    router.post(
        "/revoke",
        response_class=Response,
        responses=oauth_errors(400, 401, 403, 413, 429, 503),
    )(revoke_token)
    router.post(
        "/introspect",
        responses=oauth_errors(400, 401, 403, 413, 429, 503),
        response_model_exclude_none=True,
        openapi_extra={"security": SECURITY},
    )(introspect_token)
    return router
