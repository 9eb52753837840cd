"""OAuth clients: an API key whose key id is the client's id and whose secret is the client's secret."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote_plus

from fastapi import Depends
from pydantic import SecretStr
from starlette.requests import Request

from pixyproxy.core.exceptions import OAuthClientException, OAuthRequestException

PARAMETERS = (
    "grant_type",
    "username",
    "password",
    "refresh_token",
    "scope",
    "token",
    "token_type_hint",
    "client_id",
    "client_secret",
)
"""Of all three endpoints; each may stand once in a request (RFC 6749 §3.2)."""
CLIENT_ID = re.compile(r"[\x20-\x7e]{0,255}")
"""RFC 6749 appendix A.1, and what tokens and the database hold of one."""


@dataclass(frozen=True)
class Client:
    """What a client says of itself; ``secret`` is None for a public one, which only has a name."""

    id: str
    secret: SecretStr | None


async def presented_client(request: Request) -> Client | None:
    """The client that Basic or the form names (RFC 6749 §2.3.1), or None where neither does.

    Basic beside an API key is the sign-in of a reverse proxy, and names no client of ours.

    Raises ``OAuthRequestException`` for both at once or a parameter that is repeated, and
    ``OAuthClientException`` for a header that cannot be read.
    """
    form = await request.form()
    if any(len(form.getlist(name)) > 1 for name in PARAMETERS):
        message = "A parameter is repeated."
        raise OAuthRequestException(message)
    named, secret = _text(form.get("client_id")), _text(form.get("client_secret"))
    header = request.headers.get("authorization", "")
    if not header.lower().startswith("basic ") or "x-api-key" in request.headers:
        return _client(named, secret)
    client = _read_basic(header)
    if client is not None and (secret or (named and named != client.id)):
        message = "Send the client's id and secret in one place: the Authorization header or the form."
        raise OAuthRequestException(message)
    return client or _client(named, secret)


def _read_basic(header: str) -> Client | None:
    """The client in a Basic header; None where it is empty, as Swagger UI sends it for no client."""
    try:
        decoded = base64.b64decode(header[6:].strip(), validate=True).decode()
        identity, secret = (unquote_plus(part) for part in decoded.split(":", 1))
    except (binascii.Error, ValueError) as error:
        raise OAuthClientException from error
    return _client(identity, secret)


def _client(identity: str, secret: str) -> Client | None:
    if not identity and not secret:
        return None
    if CLIENT_ID.fullmatch(identity) is None:
        raise OAuthClientException
    return Client(id=identity, secret=SecretStr(secret) if secret else None)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


PresentedClient = Annotated[Client | None, Depends(presented_client)]
