"""Who acts: scopes, the roles that bundle them, and the principal that a credential stands for."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NewType

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.tenant import TenantGuid, TenantId, Visibility

Subject = NewType("Subject", str)
"""A GUID: of a user, of an API key, or of a token that an operator issued. For foreign tokens ``issuer#sub``."""


class Scope(StrEnum):
    """What a credential may do."""

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
        """What a user of this role may do."""
        return ROLE_SCOPES[self]


_MEMBER_SCOPES = frozenset({Scope.IMAGE_READ, Scope.IMAGE_GENERATE, Scope.IMAGE_MANAGE})

ROLE_SCOPES: dict[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset({Scope.IMAGE_READ}),
    Role.MEMBER: _MEMBER_SCOPES,
    Role.TENANT_ADMIN: _MEMBER_SCOPES | {Scope.USAGE_READ, Scope.KEY_MANAGE, Scope.USER_MANAGE},
    Role.OPERATOR: frozenset(Scope),
}


def scope_text(scopes: Iterable[Scope]) -> str:
    """Scopes as one text, in order and separated by spaces (RFC 6749 §3.3)."""
    return " ".join(sorted(scopes))


class SubjectType(StrEnum):
    """What kind of actor a subject is."""

    USER = "user"
    KEY = "key"
    TOKEN = "token"  # noqa: S105  (a kind of subject, no secret)
    FOREIGN = "foreign"
    COMMAND = "command"
    ANONYMOUS = "anonymous"


class Actor(FrozenModel):
    """Who did something, as the audit log names them; ``tenant_guid`` is the actor's own tenant."""

    type: SubjectType
    subject: str
    tenant_guid: TenantGuid | None = None


class Principal(FrozenModel):
    """Who is asking, whatever the credential: a tenant, the subject within it, scopes and limits.

    ``allowed_models`` is None where any model may be asked for. The limits are per minute; None stands for the
    server's own. What begins with ``key_`` are an API key's own limits. ``expires_at`` is when the credential expires
    that the caller has, or got its token with: never (None) for a user, whose sign-in can be renewed. What the caller
    makes has its limits, and does not outlive it.
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
        """The principal as the audit log names it."""
        return Actor(type=self.subject_type, subject=self.subject, tenant_guid=self.tenant_guid)
