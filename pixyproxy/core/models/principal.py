"""Scopes, the roles that combine them, and the principal that a credential represents."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NewType

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.tenant import TenantGuid, TenantId, Visibility

Subject = NewType("Subject", str)
"""The GUID of a user, an API key, or a token issued by an operator. For foreign tokens ``issuer#sub``."""


class Scope(StrEnum):
    """The permissions of a credential."""

    IMAGE_READ = "image:read"
    IMAGE_GENERATE = "image:generate"
    IMAGE_MANAGE = "image:manage"
    USAGE_READ = "usage:read"
    KEY_MANAGE = "key:manage"
    USER_MANAGE = "user:manage"
    ADMIN = "admin"


class Role(StrEnum):
    """A named set of scopes, for users."""

    VIEWER = "viewer"
    MEMBER = "member"
    TENANT_ADMIN = "tenant_admin"
    OPERATOR = "operator"

    @property
    def scopes(self) -> frozenset[Scope]:
        """The scopes of users with this role."""
        return ROLE_SCOPES[self]


_MEMBER_SCOPES = frozenset({Scope.IMAGE_READ, Scope.IMAGE_GENERATE, Scope.IMAGE_MANAGE})

ROLE_SCOPES: dict[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset({Scope.IMAGE_READ}),
    Role.MEMBER: _MEMBER_SCOPES,
    Role.TENANT_ADMIN: _MEMBER_SCOPES | {Scope.USAGE_READ, Scope.KEY_MANAGE, Scope.USER_MANAGE},
    Role.OPERATOR: frozenset(Scope),
}


def scope_text(scopes: Iterable[Scope]) -> str:
    """Join scopes into one text, sorted and separated by spaces (RFC 6749 §3.3)."""
    return " ".join(sorted(scopes))


class SubjectType(StrEnum):
    """The kind of a subject."""

    USER = "user"
    KEY = "key"
    TOKEN = "token"  # noqa: S105  (a kind of subject, not a secret)
    FOREIGN = "foreign"
    COMMAND = "command"
    ANONYMOUS = "anonymous"


class Actor(FrozenModel):
    """The actor of an audit entry; ``tenant_guid`` is the actor's own tenant."""

    type: SubjectType
    subject: str
    tenant_guid: TenantGuid | None = None


class Principal(FrozenModel):
    """The caller, for any kind of credential: a tenant, the subject within it, scopes and limits.

    ``allowed_models`` None: any model. Limits are per minute; None: the server's own. Fields with the prefix ``key_``
    are an API key's own limits. ``expires_at`` is the expiry of the credential, or of the one that its token was
    obtained with; None for a user, whose sign-in can be renewed. Whatever the caller creates has the same limits and
    does not outlive the credential.
    """

    tenant_id: TenantId
    tenant_guid: TenantGuid
    tenant_name: str
    default_visibility: Visibility
    subject_type: SubjectType
    subject: Subject
    scopes: frozenset[Scope]
    allowed_models: frozenset[str] | None = None
    tenant_images_per_minute: int | None = None
    key_images_per_minute: int | None = None
    key_allowed_models: frozenset[str] | None = None
    expires_at: datetime | None = None
    has_budget: bool = False

    @property
    def actor(self) -> Actor:
        """The principal as an actor of the audit log."""
        return Actor(type=self.subject_type, subject=self.subject, tenant_guid=self.tenant_guid)
