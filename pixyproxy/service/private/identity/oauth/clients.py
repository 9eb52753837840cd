"""OAuth 2 clients: API keys that request tokens, and the authentication that each must present."""

from dataclasses import dataclass

from pixyproxy.core.exceptions import OAuthClientException
from pixyproxy.core.models.api_key import StoredApiKey
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.core.models.token import RefreshToken
from pixyproxy.data.database import Repositories
from pixyproxy.service.private.identity.api_keys import find_key
from pixyproxy.service.private.identity.key_format import PresentedKey
from pixyproxy.service.private.identity.tenants import require_active


@dataclass(frozen=True)
class RefreshingClient:
    """The client that presents a refresh token; its id is optional."""

    id: str | None = None
    is_authenticated: bool = False


def require_client(data: Repositories, presented: PresentedKey | None) -> tuple[StoredApiKey, Tenant]:
    """Return the key that a client authenticates with, and its tenant. Raises ``OAuthClientException``."""
    key = find_key(data, presented)
    if key is None:
        raise OAuthClientException
    return key, require_active(data.tenants.get_by_id(key.tenant_id))


def has_secret(data: Repositories, client_id: str | None) -> bool:
    """Return whether the id is that of an API key, which must authenticate with its secret (RFC 6749 §3.2.1)."""
    return client_id is not None and data.api_keys.find_for_authentication(client_id) is not None


def may_refresh(data: Repositories, known: RefreshToken, client: RefreshingClient) -> bool:
    """Return whether a client may use a refresh token: a client with a secret must be authenticated (RFC 6749 §6)."""
    if client.id is not None and client.id != known.client_id:
        return False
    return client.is_authenticated or not has_secret(data, known.client_id)
