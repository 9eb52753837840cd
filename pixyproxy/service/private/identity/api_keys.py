"""API keys: issue, list, rotate, revoke and recognize them."""

import hmac
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    ApiKeyLimitException,
    ApiKeyNotFoundException,
    ApiKeyRevokedException,
    InvalidRequestException,
    PermissionException,
)
from pixyproxy.core.models.api_key import (
    MOST_KEYS,
    ApiKeyDetail,
    ApiKeyGuid,
    IssuedApiKey,
    NewApiKey,
    Rotation,
    StoredApiKey,
)
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import scope_text
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.cursors import MOST_LISTED, CursorCodec, Page, TenantList
from pixyproxy.service.private import audit
from pixyproxy.service.private.identity.credential_cache import CredentialCache
from pixyproxy.service.private.identity.grants import Grantor
from pixyproxy.service.private.identity.key_format import PresentedKey, api_key_text, new_key_id, new_secret, sha256
from pixyproxy.service.revalidation import revalidate

ABSENT_SHA256 = "0" * 64
"""Compared with for an unknown key id, so that the comparison always takes place."""


@dataclass(frozen=True)
class ApiKeyService:
    """Issues and manages API keys. A caller may not issue or change a key with more rights than their own."""

    database: Database
    recognized: CredentialCache
    cursors: CursorCodec

    async def issue_key(self, incoming: NewApiKey, *, grantor: Grantor) -> IssuedApiKey:
        """Return a new key of the tenant; its secret is returned only here.

        The grantor's limits and expiry apply if the order sets none. Raises ``GrantException`` for scopes that the
        grantor lacks, wider limits or a later expiry, and ``ApiKeyLimitException``.
        """
        order = _with_limits_of(grantor, revalidate(incoming))
        if order.expires_at is not None and order.expires_at <= clock.now():
            message = "expires_at: must be in the future"
            raise InvalidRequestException(message)
        grantor.require_scopes(order.scopes)
        grantor.require_limits(allowed_models=order.allowed_models, images_per_minute=order.images_per_minute)
        grantor.require_lifetime(order.expires_at)
        return await self.database.write(lambda data: issue_key(data, order, grantor=grantor))

    async def list_keys(
        self, *, tenant_id: TenantId, limit: int = MOST_LISTED, cursor: str | None = None
    ) -> Page[ApiKeyDetail]:
        """Return a page of the tenant's keys, oldest first, revoked ones too. Raises ``InvalidCursorException``."""
        wanted = TenantList(name="keys", tenant_id=tenant_id)
        after = 0 if cursor is None else self.cursors.decode(cursor, wanted)
        found = await self.database.read(
            lambda data: data.api_keys.list_of_tenant(tenant_id=tenant_id, after=after, limit=limit + 1)
        )
        following = self.cursors.encode(found[limit - 1][0], wanted) if len(found) > limit else None
        return Page([_detail(key) for _, key in found[:limit]], following)

    async def rotate_key(self, guid: str, incoming: Rotation, *, grantor: Grantor) -> IssuedApiKey:
        """Return the key with a new secret; the former secret stays valid for the grace period.

        A second rotation within that time invalidates the oldest secret. Raises ``ApiKeyNotFoundException``,
        ``ApiKeyRevokedException``, and ``GrantException`` if the key outlives the grantor.
        """
        rotation = revalidate(incoming)
        secret = new_secret()

        def rotate(data: Repositories) -> StoredApiKey:
            key = _require_governed(data, guid, grantor)
            grantor.require_lifetime(key.expires_at)
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
        """Revoke a key and every token issued to it, in every process. Raises ``ApiKeyNotFoundException``."""

        def revoke(data: Repositories) -> None:
            key = _require_governed(data, guid, grantor)
            data.api_keys.revoke(key.guid, tenant_id=grantor.tenant_id, at=clock.now())
            _audit(data, AuditAction.KEY_REVOKED, key, grantor)

        await self.database.write(revoke)
        self.recognized.forget_all()


def issue_key(data: Repositories, order: NewApiKey, *, grantor: Grantor) -> IssuedApiKey:
    """Issue a key within the caller's transaction. Raises ``ApiKeyLimitException``."""
    # Lock the tenant, so that concurrent calls count this key.
    data.tenants.lock(grantor.tenant_guid)
    if data.api_keys.count_active(tenant_id=grantor.tenant_id, at=clock.now()) >= MOST_KEYS:
        raise ApiKeyLimitException(context={"limit": str(MOST_KEYS)})
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
    """Return the active key that matches, or None; digests are compared in constant time.

    A key presented by its former secret expires at the end of the grace period.
    """
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
    if is_current:
        return key
    if not is_former or key.former_secret_until is None or moment >= key.former_secret_until:
        return None
    return key.model_copy(update={"expires_at": clock.earliest(key.expires_at, key.former_secret_until)})


def is_active(key: StoredApiKey, *, at: datetime) -> bool:
    """Return whether a key is neither revoked nor expired."""
    return key.revoked_at is None and (key.expires_at is None or at < key.expires_at)


def _require_governed(data: Repositories, guid: str, grantor: Grantor) -> StoredApiKey:
    """Return the tenant's key, locked, if the grantor has all of its rights."""
    key = data.api_keys.lock_own(guid, tenant_id=grantor.tenant_id)
    if key is None:
        raise ApiKeyNotFoundException
    if not key.scopes <= grantor.scopes:
        raise PermissionException(context={"scope": scope_text(key.scopes - grantor.scopes)})
    grantor.require_limits(allowed_models=key.allowed_models, images_per_minute=key.images_per_minute)
    return key


def _with_limits_of(grantor: Grantor, order: NewApiKey) -> NewApiKey:
    """Return the order with the grantor's limits and expiry where it sets none."""
    names = ("allowed_models", "images_per_minute", "expires_at")
    return order.model_copy(update={name: getattr(grantor, name) for name in names if getattr(order, name) is None})


def _audit(data: Repositories, action: AuditAction, key: StoredApiKey, grantor: Grantor) -> None:
    details = {"key_id": key.key_id, "scopes": scope_text(key.scopes)}
    data.audit_log.append(
        audit.entry(grantor.actor, action, tenant_guid=grantor.tenant_guid, target=key.guid, details=details)
    )


def _detail(key: StoredApiKey) -> ApiKeyDetail:
    return ApiKeyDetail(**key.model_dump(include=set(ApiKeyDetail.model_fields)))
