"""API keys: the credentials that machines carry."""

from datetime import datetime
from typing import Annotated, NewType

from pydantic import ConfigDict, Field, SecretStr, field_serializer

from pixyproxy.core.models.base import REFUSE_COERCION, UNIQUE, FrozenModel, Moment
from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.tenant import AllowedModels, DisplayName, ImagesPerMinute, TenantId

ApiKeyGuid = NewType("ApiKeyGuid", str)

DEFAULT_SCOPES = frozenset({Scope.IMAGE_READ, Scope.IMAGE_GENERATE, Scope.IMAGE_MANAGE})
MOST_KEYS = 1000
"""Of a tenant, that are neither revoked nor expired."""
GRACE_SECONDS = 86_400
"""How long a rotated key's former secret goes on working, unless the caller says otherwise: a day."""


class NewApiKey(FrozenModel):
    """What is asked for in a new key."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "website", "scopes": ["image:read", "image:generate"]}]}
    )

    name: DisplayName = Field(description="What the key is for.")
    scopes: Annotated[frozenset[Scope], Field(min_length=1, fail_fast=True), UNIQUE] = Field(
        default=DEFAULT_SCOPES, description="What it may do; no more than the credential that makes it."
    )
    expires_at: Moment | None = Field(default=None, description="None: it does not expire.")
    allowed_models: AllowedModels | None = Field(default=None, description="None: whatever its tenant may use.")
    images_per_minute: ImagesPerMinute | None = Field(
        default=None, description="A limit of its own, beside its tenant's."
    )


class Rotation(FrozenModel):
    """How a key is to be rotated."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"grace_seconds": 3600}]})

    grace_seconds: Annotated[int, Field(ge=0, le=30 * 86_400), REFUSE_COERCION] = Field(
        default=GRACE_SECONDS, description="How long the former secret goes on working."
    )


class ApiKeyDetail(FrozenModel):
    """An API key as it is listed; it identifies the key without helping to use it."""

    guid: ApiKeyGuid
    key_id: str
    name: str
    scopes: frozenset[Scope]
    allowed_models: frozenset[str] | None
    images_per_minute: int | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    former_secret_until: datetime | None
    revoked_at: datetime | None

    @field_serializer("scopes", "allowed_models")
    def _in_order(self, names: frozenset[str] | None) -> list[str] | None:
        return None if names is None else sorted(names)


class StoredApiKey(ApiKeyDetail):
    """An API key as the database knows it: SHA-256 digests (64 hex digits) of its secrets, never a secret.

    ``former_sha256`` is the secret before the last rotation; it counts until ``former_secret_until``.
    """

    tenant_id: TenantId
    secret_sha256: str
    former_sha256: str | None


class IssuedApiKey(FrozenModel):
    """A new API key, or a rotated one; the only time that its secret is seen."""

    detail: ApiKeyDetail
    api_key: SecretStr


class ApiKeyWithSecret(ApiKeyDetail):
    """The answer that shows a secret, once."""

    api_key: str
