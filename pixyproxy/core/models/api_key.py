"""API keys: credentials for machines."""

from datetime import datetime
from typing import Annotated, NewType

from pydantic import ConfigDict, Field, SecretStr, field_serializer

from pixyproxy.core.models.base import REFUSE_COERCION, UNIQUE, FrozenModel, Moment
from pixyproxy.core.models.principal import Scope
from pixyproxy.core.models.tenant import AllowedModels, DisplayName, ImagesPerMinute, TenantId

ApiKeyGuid = NewType("ApiKeyGuid", str)

DEFAULT_SCOPES = frozenset({Scope.IMAGE_READ, Scope.IMAGE_GENERATE, Scope.IMAGE_MANAGE})
MOST_KEYS = 1000
"""The most keys of a tenant that are neither revoked nor expired."""
GRACE_SECONDS = 86_400
"""How long the former secret of a rotated key stays valid by default: a day."""


class NewApiKey(FrozenModel):
    """The request for a new API key."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "website", "scopes": ["image:read", "image:generate"]}]}
    )

    name: DisplayName = Field(description="The purpose of the key.")
    scopes: Annotated[frozenset[Scope], Field(min_length=1, fail_fast=True), UNIQUE] = Field(
        default=DEFAULT_SCOPES, description="What the key may do; at most what the creating credential may do."
    )
    expires_at: Moment | None = Field(default=None, description="None: the key does not expire.")
    allowed_models: AllowedModels | None = Field(default=None, description="None: all models of its tenant.")
    images_per_minute: ImagesPerMinute | None = Field(
        default=None, description="The key's own limit, in addition to its tenant's."
    )


class Rotation(FrozenModel):
    """The request to rotate an API key."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"grace_seconds": 3600}]})

    grace_seconds: Annotated[int, Field(ge=0, le=30 * 86_400), REFUSE_COERCION] = Field(
        default=GRACE_SECONDS, description="How long the former secret stays valid."
    )


class ApiKeyDetail(FrozenModel):
    """An API key in a list: identifies the key without its secret."""

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
    """An API key row, with SHA-256 digests (64 hex digits) of its secrets, never a secret.

    ``former_sha256`` is the digest of the secret before the last rotation, valid until ``former_secret_until``.
    """

    tenant_id: TenantId
    secret_sha256: str
    former_sha256: str | None


class IssuedApiKey(FrozenModel):
    """A new or rotated API key. Its secret is available only here."""

    detail: ApiKeyDetail
    api_key: SecretStr


class ApiKeyWithSecret(ApiKeyDetail):
    """The response that shows an API key's secret, once."""

    api_key: str
