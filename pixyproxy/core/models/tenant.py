"""Tenants and the credentials that act for them."""

from datetime import datetime
from enum import StrEnum
from typing import NewType

from pydantic import SecretStr, field_serializer

from pixyproxy.core.models.base import FrozenModel

TenantId = NewType("TenantId", int)
TenantGuid = NewType("TenantGuid", str)
ApiKeyGuid = NewType("ApiKeyGuid", str)


class Visibility(StrEnum):
    """Who may see a picture: anyone with its GUID, or its tenant alone."""

    PUBLIC = "public"
    PRIVATE = "private"


class Scope(StrEnum):
    """What a credential may do."""

    IMAGE_READ = "image:read"
    IMAGE_GENERATE = "image:generate"
    IMAGE_MANAGE = "image:manage"
    USAGE_READ = "usage:read"
    KEY_MANAGE = "key:manage"
    USER_MANAGE = "user:manage"
    ADMIN = "admin"


class Tenant(FrozenModel):
    """A customer of this server; ``id`` never leaves it."""

    id: TenantId
    guid: TenantGuid
    name: str
    default_visibility: Visibility
    created_at: datetime


class Principal(FrozenModel):
    """Who is asking, whatever the credential: a tenant, the subject within it, and its scopes."""

    tenant_id: TenantId
    tenant_guid: TenantGuid
    default_visibility: Visibility
    subject: ApiKeyGuid
    scopes: frozenset[Scope]


class StoredApiKey(FrozenModel):
    """An API key as the database knows it: the SHA-256 of its secret (64 hex digits), never the secret."""

    guid: ApiKeyGuid
    tenant_id: TenantId
    key_id: str
    secret_sha256: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class ApiKeyDetail(FrozenModel):
    """An API key as it is listed; it identifies the key without helping to use it."""

    guid: ApiKeyGuid
    key_id: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @field_serializer("scopes")
    def _in_order(self, scopes: frozenset[Scope]) -> list[Scope]:
        return sorted(scopes)


class IssuedApiKey(FrozenModel):
    """A new API key; the only time that its secret is seen."""

    detail: ApiKeyDetail
    api_key: SecretStr
