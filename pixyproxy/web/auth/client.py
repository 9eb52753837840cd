"""OAuth clients: API keys, with the key id as client id and the key as client secret."""

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
"""The parameters of all three endpoints; each may occur once in a request (RFC 6749 §3.2)."""
CLIENT_ID = re.compile(r"[\x20-\x7e]{0,255}")
"""The characters of RFC 6749 appendix A.1, in the length that tokens and the database hold."""


@dataclass(frozen=True)
class Client:
    """A client's own claims; ``secret`` is None for a public client, which has only an id."""

    id: str
    secret: SecretStr | None


async def presented_client(request: Request) -> Client | None:
    """Return the client named by Basic credentials or the form (RFC 6749 §2.3.1), or None if neither names one.

    Basic credentials beside an API key belong to a reverse proxy and are ignored.

    Raise ``OAuthRequestException`` if both name a client or a parameter is repeated, and ``OAuthClientException`` if
    the header is malformed.
    """
    form = await request.form()
    if any(len(form.getlist(name)) > 1 for name in PARAMETERS):
        message = "A parameter occurs more than once. Send each parameter once."
        raise OAuthRequestException(message)
    named, secret = _text(form.get("client_id")), _text(form.get("client_secret"))
    header = request.headers.get("authorization", "")
    if not header.lower().startswith("basic ") or "x-api-key" in request.headers:
        return _client(named, secret)
    client = _read_basic(header)
    if client is not None and (secret or (named and named != client.id)):
        message = "Send the client id and secret either in the Authorization header or in the form, not in both."
        raise OAuthRequestException(message)
    return client or _client(named, secret)


def _read_basic(header: str) -> Client | None:
    """Return the client of a Basic header; None if it is empty, as Swagger UI sends it without a client."""
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
