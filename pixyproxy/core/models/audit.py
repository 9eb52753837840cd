"""The audit log: actor, action, target and origin."""

from datetime import datetime
from enum import StrEnum

from pixyproxy.core.models.base import FrozenModel, Moment
from pixyproxy.core.models.principal import SubjectType
from pixyproxy.core.models.tenant import TenantGuid


class AuditAction(StrEnum):
    """The recorded actions."""

    TENANT_CREATED = "tenant.created"
    TENANT_CHANGED = "tenant.changed"
    TENANT_DELETED = "tenant.deleted"
    KEY_ISSUED = "key.issued"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    USER_CREATED = "user.created"
    USER_CHANGED = "user.changed"
    USER_DELETED = "user.deleted"
    SIGNED_IN = "sign_in.succeeded"
    SIGN_IN_FAILED = "sign_in.failed"
    TOKEN_ISSUED = "token.issued"  # noqa: S105  (an action, not a secret)
    TOKEN_REFRESHED = "token.refreshed"  # noqa: S105  (an action, not a secret)
    TOKEN_REUSED = "token.reused"  # noqa: S105  (an action, not a secret)
    TOKEN_REVOKED = "token.revoked"  # noqa: S105  (an action, not a secret)
    SIGNING_KEYS_ROTATED = "signing_keys.rotated"
    SIGNING_KEYS_RESEALED = "signing_keys.resealed"
    SCOPE_REFUSED = "scope.refused"
    GENERATION_RESOLVED = "generation.resolved"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_DELETED = "webhook.deleted"
    WEBHOOK_ROTATED = "webhook.rotated"


class NewAuditEntry(FrozenModel):
    """An administrator action that is about to be recorded.

    ``tenant_guid`` is the tenant concerned (None: the server), ``target`` the GUID of the object, ``address`` the
    client's, ``details`` further facts without secrets. Both GUIDs stay valid after the objects are deleted.
    """

    at: datetime
    actor_type: SubjectType
    actor: str
    actor_tenant_guid: TenantGuid | None
    action: AuditAction
    tenant_guid: TenantGuid | None
    target: str | None
    address: str | None
    request_id: str
    details: dict[str, str]


class AuditEntry(NewAuditEntry):
    """A row of the audit log. ``sequence`` counts from 1 without gaps.

    ``entry_sha256`` (64 hex digits) is the digest of the rest of the row, including ``previous_sha256``, the digest of
    the row before.
    """

    sequence: int
    previous_sha256: str
    entry_sha256: str


class AuditFilter(FrozenModel):
    """The filter of a list of audit entries."""

    action: AuditAction | None = None
    actor: str | None = None
    tenant: TenantGuid | None = None
    target: str | None = None
    since: Moment | None = None
    until: Moment | None = None
