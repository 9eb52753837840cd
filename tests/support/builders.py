"""Builders of rows and their pictures for tests, with defaults for every field."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from pixyproxy.core.models.api_key import ApiKeyGuid, StoredApiKey
from pixyproxy.core.models.generation import Generation, GenerationGuid, GenerationStatus, NewGeneration, Outcome
from pixyproxy.core.models.image import GenerationId, ImageGuid, MediaType, NewImage, StoredImage
from pixyproxy.core.models.order import PictureOrder
from pixyproxy.core.models.principal import Principal, Role, Scope, Subject, SubjectType
from pixyproxy.core.models.tenant import Tenant, TenantGuid, TenantId, TenantStatus, Visibility
from pixyproxy.core.models.token import RefreshToken, SessionGuid
from pixyproxy.core.models.user import StoredUser, UserGuid, UserStatus
from pixyproxy.data.database import Repositories
from pixyproxy.data.files.store.local import EXTENSIONS, LocalStore

MOMENT = datetime(2026, 11, 21, 9, 15, 2, tzinfo=UTC)
LATER = MOMENT + timedelta(hours=1)


def new_guid() -> str:
    return str(uuid.uuid4())


def add_tenant(data: Repositories, name: str | None = None) -> Tenant:
    return data.tenants.insert(new_tenant(name=name or f"tenant {new_guid()}"))


def new_tenant(**changes: object) -> Tenant:
    tenant = Tenant(
        id=TenantId(0),
        guid=TenantGuid(new_guid()),
        name="a tenant",
        status=TenantStatus.ACTIVE,
        default_visibility=Visibility.PUBLIC,
        created_at=MOMENT,
    )
    return Tenant.model_validate(tenant.model_dump() | changes)


def new_order(**changes: object) -> PictureOrder:
    return PictureOrder.model_validate({"prompt": "a red fox 🦊", "model": "gpt-image-2"} | changes)


def new_generation(
    tenant_id: TenantId,
    *,
    status: GenerationStatus = GenerationStatus.CALLING,
    created_at: datetime = MOMENT,
    **changes: object,
) -> NewGeneration:
    """Return a generation of ``order``, or of one that differs by ``prompt`` and ``model``, of a dead process."""
    named = {name: changes.pop(name) for name in ("prompt", "model") if name in changes}
    generation = NewGeneration(
        guid=GenerationGuid(new_guid()),
        tenant_id=tenant_id,
        idempotency_key=None,
        fingerprint="f" * 64,
        status=status,
        image_guids=(ImageGuid(new_guid()),),
        order=new_order(**named),
        filename="a-red-fox.png",
        visibility=Visibility.PUBLIC,
        created_at=created_at,
        updated_at=created_at,
    )
    return NewGeneration.model_validate(generation.model_dump() | changes)


def add_generation(data: Repositories, tenant_id: TenantId, **changes: Any) -> Generation:  # noqa: ANN401  (any field)
    generation = data.generations.claim(new_generation(tenant_id, **changes))
    assert generation is not None
    return generation


def stored_outcome(**changes: object) -> Outcome:
    """Return the outcome of a generation that stored its one picture."""
    outcome = Outcome(status=GenerationStatus.STORED, at=LATER, image_count=1)
    return Outcome.model_validate(outcome.model_dump() | changes)


async def keep_picture(
    store: LocalStore, guid: ImageGuid, media_type: MediaType = "image/png", content: bytes = b"picture"
) -> None:
    """Store a picture in the same way as a received one."""
    source = store.folder.parent / new_guid()
    source.write_bytes(content)
    store.adopt(source, guid, media_type)


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
        former_sha256=None,
        former_secret_until=None,
        name="a key",
        scopes=frozenset({Scope.IMAGE_READ}),
        allowed_models=None,
        images_per_minute=None,
        created_at=MOMENT,
        expires_at=None,
        last_used_at=None,
        revoked_at=None,
    )
    return StoredApiKey.model_validate(key.model_dump() | changes)


def principal_of(tenant: Tenant) -> Principal:
    return Principal(
        tenant_id=tenant.id,
        tenant_guid=tenant.guid,
        tenant_name=tenant.name,
        default_visibility=tenant.default_visibility,
        subject_type=SubjectType.KEY,
        subject=Subject(new_guid()),
        scopes=frozenset(Scope),
    )


def new_user(tenant_id: TenantId, **changes: object) -> StoredUser:
    guid = UserGuid(new_guid())
    user = StoredUser(
        guid=guid,
        tenant_id=tenant_id,
        username=f"{guid}@example.org",
        password_hash=SecretStr("$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA"),
        role=Role.MEMBER,
        status=UserStatus.ACTIVE,
        created_at=MOMENT,
        updated_at=MOMENT,
        last_sign_in_at=None,
    )
    return StoredUser.model_validate(user.model_dump() | changes)


def new_refresh_token(tenant_id: TenantId, **changes: object) -> RefreshToken:
    token = RefreshToken(
        token_sha256=uuid.uuid4().hex * 2,
        session_guid=SessionGuid(new_guid()),
        tenant_id=tenant_id,
        user_guid=UserGuid(new_guid()),
        client_id=None,
        scopes=frozenset({Scope.IMAGE_READ}),
        created_at=MOMENT,
        expires_at=LATER,
        used_at=None,
        revoked_at=None,
    )
    return RefreshToken.model_validate(token.model_dump() | changes)


def find_picture(store: LocalStore, guid: ImageGuid) -> MediaType | None:
    """Return the media type of the stored picture with this GUID, None if there is none."""
    return next((media_type for media_type in EXTENSIONS if store.path(guid, media_type).is_file()), None)
