"""API keys: issuing, listing, rotating and revoking them, and telling which one is presented."""

import hmac
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    ApiKeyNotFoundException,
    ApiKeyRevokedException,
    GrantException,
    InvalidRequestException,
    PermissionException,
)
from pixyproxy.core.models.api_key import (
    ApiKeyDetail,
    ApiKeyGuid,
    IssuedApiKey,
    NewApiKey,
    Rotation,
    StoredApiKey,
)
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import Actor, Scope, scope_text
from pixyproxy.core.models.tenant import TenantGuid, TenantId
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.private import audit
from pixyproxy.service.private.key_format import PresentedKey, api_key_text, new_key_id, new_secret, sha256
from pixyproxy.service.private.recognized import RecognizedCredentials
from pixyproxy.service.revalidation import revalidate

ABSENT_SHA256 = "0" * 64
"""Compared with when a key id is unknown, so that the comparison is made in any case."""


@dataclass(frozen=True)
class Grantor:
    """Who acts on a tenant's keys or users, and the most that they may grant: None is no limit."""

    actor: Actor
    tenant_id: TenantId
    tenant_guid: TenantGuid
    scopes: frozenset[Scope]
    allowed_models: frozenset[str] | None = None
    images_per_minute: int | None = None
    expires_at: datetime | None = None

    def inherited(self, order: NewApiKey) -> NewApiKey:
        """The order with the grantor's own limits where it names none."""
        names = ("allowed_models", "images_per_minute", "expires_at")
        return order.model_copy(update={name: getattr(self, name) for name in names if getattr(order, name) is None})

    def covers(self, key: NewApiKey | StoredApiKey) -> bool:
        """Whether a key's limits are no wider than the grantor's own."""
        return (
            (self.allowed_models is None or (key.allowed_models or frozenset({""})) <= self.allowed_models)
            and (self.images_per_minute is None or 0 < (key.images_per_minute or 0) <= self.images_per_minute)
            and (self.expires_at is None or (key.expires_at is not None and key.expires_at <= self.expires_at))
        )


@dataclass(frozen=True)
class ApiKeyService:
    """Issues API keys and manages them. Nobody issues or touches a key that may do more than they may."""

    database: Database
    recognized: RecognizedCredentials

    async def issue_key(self, incoming: NewApiKey, *, grantor: Grantor) -> IssuedApiKey:
        """A new key of the tenant; its secret is in the answer and nowhere else.

        Where the grantor is a key with limits of its own, the new one has them as well, or narrower ones. Raises
        ``GrantException`` for scopes that the grantor lacks, and for wider limits.
        """
        order = grantor.inherited(revalidate(incoming))
        if order.expires_at is not None and order.expires_at <= clock.now():
            message = "expires_at: must be in the future"
            raise InvalidRequestException(message)
        if not order.scopes <= grantor.scopes:
            raise GrantException(context={"scope": scope_text(order.scopes - grantor.scopes)})
        if not grantor.covers(order):
            raise GrantException
        return await self.database.write(lambda data: issue_key(data, order, grantor=grantor))

    async def list_keys(self, *, tenant_id: TenantId) -> list[ApiKeyDetail]:
        """The tenant's keys, oldest first, revoked ones too."""
        keys = await self.database.read(lambda data: data.api_keys.list_of_tenant(tenant_id=tenant_id))
        return [_detail(key) for key in keys]

    async def rotate_key(self, guid: str, incoming: Rotation, *, grantor: Grantor) -> IssuedApiKey:
        """A new secret for a key that otherwise stays what it is; the former works for the grace period.

        A second rotation within that time ends it for the one before. Raises ``ApiKeyNotFoundException`` and
        ``ApiKeyRevokedException``.
        """
        rotation = revalidate(incoming)
        secret = new_secret()

        def rotate(data: Repositories) -> StoredApiKey:
            key = _require_governed(data, guid, grantor)
            if not is_active(key, at=clock.now()):
                raise ApiKeyRevokedException
            rotated = key.model_copy(
                update={
                    "secret_sha256": sha256(secret),
                    "former_sha256": key.secret_sha256,
                    "former_secret_until": clock.now() + timedelta(seconds=rotation.grace_seconds),
                }
            )
            data.api_keys.rotate(rotated, tenant_id=grantor.tenant_id)
            _audit(data, AuditAction.KEY_ROTATED, rotated, grantor)
            return rotated

        rotated = await self.database.write(rotate)
        self.recognized.forget_all()
        return IssuedApiKey(detail=_detail(rotated), api_key=api_key_text(rotated.key_id, secret))

    async def revoke_key(self, guid: str, *, grantor: Grantor) -> None:
        """Make a key, and every token that it got, worthless in every process. Raises ``ApiKeyNotFoundException``."""

        def revoke(data: Repositories) -> None:
            key = _require_governed(data, guid, grantor)
            data.api_keys.revoke(key.guid, tenant_id=grantor.tenant_id, at=clock.now())
            _audit(data, AuditAction.KEY_REVOKED, key, grantor)

        await self.database.write(revoke)
        self.recognized.forget_all()


def issue_key(data: Repositories, order: NewApiKey, *, grantor: Grantor) -> IssuedApiKey:
    """Issue a key within a transaction that others have opened."""
    key_id, secret = new_key_id(), new_secret()
    stored = StoredApiKey(
        guid=ApiKeyGuid(str(uuid.uuid4())),
        tenant_id=grantor.tenant_id,
        key_id=key_id,
        secret_sha256=sha256(secret),
        former_sha256=None,
        former_secret_until=None,
        created_at=clock.now(),
        last_used_at=None,
        revoked_at=None,
        **order.model_dump(),
    )
    data.api_keys.insert(stored)
    _audit(data, AuditAction.KEY_ISSUED, stored, grantor)
    return IssuedApiKey(detail=_detail(stored), api_key=api_key_text(key_id, secret))


def find_key(data: Repositories, presented: PresentedKey | None) -> StoredApiKey | None:
    """The active key that is presented, or None; digests are compared in constant time."""
    if presented is None:
        return None
    key = data.api_keys.find_for_authentication(presented.key_id)
    current = ABSENT_SHA256 if key is None else key.secret_sha256
    former = ABSENT_SHA256 if key is None else key.former_sha256 or ABSENT_SHA256
    is_current = hmac.compare_digest(presented.secret_sha256, current)
    is_former = hmac.compare_digest(presented.secret_sha256, former)
    moment = clock.now()
    if key is None or not is_active(key, at=moment):
        return None
    in_grace = key.former_secret_until is not None and moment < key.former_secret_until
    return key if is_current or (is_former and in_grace) else None


def is_active(key: StoredApiKey, *, at: datetime) -> bool:
    """Whether a key is neither revoked nor expired."""
    return key.revoked_at is None and (key.expires_at is None or at < key.expires_at)


def _require_governed(data: Repositories, guid: str, grantor: Grantor) -> StoredApiKey:
    """The tenant's key, if the grantor may do all that it may: its secret would be theirs."""
    key = data.api_keys.lock_own(guid, tenant_id=grantor.tenant_id)
    if key is None:
        raise ApiKeyNotFoundException
    if not key.scopes <= grantor.scopes:
        raise PermissionException(context={"scope": scope_text(key.scopes - grantor.scopes)})
    if not grantor.covers(key):
        raise GrantException
    return key


def _audit(data: Repositories, action: AuditAction, key: StoredApiKey, grantor: Grantor) -> None:
    details = {"key_id": key.key_id, "scopes": scope_text(key.scopes)}
    data.audit_log.append(
        audit.entry(grantor.actor, action, tenant_guid=grantor.tenant_guid, target=key.guid, details=details)
    )


def _detail(key: StoredApiKey) -> ApiKeyDetail:
    return ApiKeyDetail(**key.model_dump(include=set(ApiKeyDetail.model_fields)))
