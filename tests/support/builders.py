"""Rows for tests that are about rows; whatever a test does not care for is filled in."""

import uuid
from datetime import UTC, datetime, timedelta

from pixyproxy.core.models.generation import Generation, GenerationGuid, GenerationStatus, NewGeneration
from pixyproxy.core.models.image import GenerationId, ImageGuid, NewImage, StoredImage
from pixyproxy.core.models.tenant import (
    ApiKeyGuid,
    Principal,
    Scope,
    StoredApiKey,
    Tenant,
    TenantGuid,
    TenantId,
    Visibility,
)
from pixyproxy.data.database import Repositories

MOMENT = datetime(2026, 11, 21, 9, 15, 2, tzinfo=UTC)
LATER = MOMENT + timedelta(hours=1)


def new_guid() -> str:
    return str(uuid.uuid4())


def add_tenant(data: Repositories, name: str | None = None) -> Tenant:
    guid = TenantGuid(new_guid())
    return data.tenants.insert(
        guid=guid, name=name or f"tenant {guid}", default_visibility=Visibility.PUBLIC, created_at=MOMENT
    )


def new_generation(
    tenant_id: TenantId,
    *,
    idempotency_key: str | None = None,
    status: GenerationStatus = GenerationStatus.CALLING,
    created_at: datetime = MOMENT,
) -> NewGeneration:
    return NewGeneration(
        guid=GenerationGuid(new_guid()),
        tenant_id=tenant_id,
        idempotency_key=idempotency_key,
        fingerprint="f" * 64,
        status=status,
        image_guid=ImageGuid(new_guid()),
        prompt="a red fox 🦊",
        filename="a-red-fox.png",
        visibility=Visibility.PUBLIC,
        model="gpt-image-2",
        created_at=created_at,
        updated_at=created_at,
    )


def add_generation(data: Repositories, tenant_id: TenantId, *, idempotency_key: str | None = None) -> Generation:
    generation = data.generations.claim(new_generation(tenant_id, idempotency_key=idempotency_key))
    assert generation is not None
    return generation


def new_image(tenant_id: TenantId, generation_id: GenerationId, **changes: object) -> NewImage:
    image = NewImage(
        guid=ImageGuid(new_guid()),
        tenant_id=tenant_id,
        generation_id=generation_id,
        filename="a-red-fox.png",
        prompt="a red fox",
        visibility=Visibility.PUBLIC,
        media_type="image/png",
        byte_size=1234,
        sha256="a" * 64,
        width=1024,
        height=768,
        model="gpt-image-2",
        created_at=MOMENT,
        updated_at=MOMENT,
    )
    return NewImage.model_validate(image.model_dump() | changes)


def add_image(data: Repositories, tenant: Tenant, **changes: object) -> StoredImage:
    generation = add_generation(data, tenant.id)
    return data.images.record(new_image(tenant.id, generation.id, **changes))


def new_api_key(tenant_id: TenantId, **changes: object) -> StoredApiKey:
    key = StoredApiKey(
        guid=ApiKeyGuid(new_guid()),
        tenant_id=tenant_id,
        key_id=uuid.uuid4().hex[:12],
        secret_sha256="b" * 64,
        name="a key",
        scopes=frozenset({Scope.IMAGE_READ}),
        created_at=MOMENT,
        expires_at=None,
        revoked_at=None,
    )
    return StoredApiKey.model_validate(key.model_dump() | changes)


def principal_of(tenant: Tenant) -> Principal:
    return Principal(
        tenant_id=tenant.id,
        tenant_guid=tenant.guid,
        default_visibility=tenant.default_visibility,
        subject=ApiKeyGuid(new_guid()),
        scopes=frozenset(Scope),
    )
