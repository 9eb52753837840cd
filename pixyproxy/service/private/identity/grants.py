"""The grant rule: a key, user, webhook or token never has more rights than the credential that created it."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

from pixyproxy.core.exceptions import GrantException
from pixyproxy.core.models.principal import Actor, Principal, Scope, scope_text
from pixyproxy.core.models.tenant import TenantGuid, TenantId


@dataclass(frozen=True)
class Grantor:
    """The actor on a tenant's credentials and the maximum rights these may have; None means unlimited.

    ``expires_at`` is the expiry of the acting credential: credentials that it creates must not outlive it.
    """

    actor: Actor
    tenant_id: TenantId
    tenant_guid: TenantGuid
    scopes: frozenset[Scope]
    allowed_models: frozenset[str] | None = None
    images_per_minute: int | None = None
    expires_at: datetime | None = None

    def require_scopes(self, scopes: AbstractSet[Scope]) -> None:
        """Raise ``GrantException`` if the grantor lacks one of these scopes."""
        if not scopes <= self.scopes:
            raise GrantException(context={"scope": scope_text(scopes - self.scopes)})

    def require_limits(self, *, allowed_models: frozenset[str] | None, images_per_minute: int | None) -> None:
        """Raise ``GrantException`` if these limits are wider than the grantor's."""
        if self.allowed_models is not None and not (allowed_models and allowed_models <= self.allowed_models):
            raise GrantException
        if self.images_per_minute is not None and not 0 < (images_per_minute or 0) <= self.images_per_minute:
            raise GrantException

    def require_lifetime(self, expires_at: datetime | None) -> None:
        """Raise ``GrantException`` if a credential with this expiry (None: never) outlives the grantor's."""
        if self.expires_at is not None and (expires_at is None or expires_at > self.expires_at):
            raise GrantException


def grantor_of(principal: Principal) -> Grantor:
    """Return the principal as grantor in its own tenant."""
    return Grantor(
        actor=principal.actor,
        tenant_id=principal.tenant_id,
        tenant_guid=principal.tenant_guid,
        scopes=principal.scopes,
        allowed_models=principal.key_allowed_models,
        images_per_minute=principal.key_images_per_minute,
        expires_at=principal.expires_at,
    )
