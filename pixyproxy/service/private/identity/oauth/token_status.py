"""Issued tokens: revocation (RFC 7009) and introspection (RFC 7662)."""

from dataclasses import dataclass

from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import CredentialInvalidException, PermissionException
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import Actor, Principal, Scope, scope_text
from pixyproxy.core.models.tenant import TenantStatus
from pixyproxy.core.models.token import Introspection, RefreshToken, RevokedToken
from pixyproxy.core.models.user import UserStatus
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.private import audit
from pixyproxy.service.private.identity.authentication import key_principal, token_principal
from pixyproxy.service.private.identity.credential_cache import CredentialCache
from pixyproxy.service.private.identity.key_format import PresentedKey, read_refresh_token
from pixyproxy.service.private.identity.oauth.access_tokens import AccessToken, AccessTokens
from pixyproxy.service.private.identity.oauth.clients import require_client
from pixyproxy.service.private.identity.oauth.tokens import NOBODY

INACTIVE = Introspection(active=False)
"""The response for a token that is invalid or that the caller may not inspect (RFC 7662 §2.2)."""


@dataclass(frozen=True)
class TokenStatusService:
    """Revokes and introspects access and refresh tokens."""

    database: Database
    access_tokens: AccessTokens
    recognized: CredentialCache

    async def recognize_client(self, presented: PresentedKey | None) -> Principal:
        """Return the principal of a client that presents its id and secret. Raises ``OAuthClientException``."""
        return await self.database.read(lambda data: key_principal(*require_client(data, presented)))

    async def revoke(self, presented: SecretStr, *, client: Principal | None) -> None:
        """Revoke a token. Any bearer may revoke it; an authenticated client, only tokens of its own tenant.

        Revoking a refresh token ends its whole sign-in. An invalid token is not an error.
        """
        digest = read_refresh_token(presented)
        if digest is not None:
            revoked = await self.database.write(lambda data: _revoke_session(data, digest, client))
        else:
            try:
                token = await self.access_tokens.read(presented)
            except CredentialInvalidException:
                return
            revoked = await self.database.write(lambda data: _revoke_access_token(data, token, client))
        if revoked:
            self.recognized.forget_all()

    async def introspect(self, presented: SecretStr, *, caller: Principal) -> Introspection:
        """Return the state of a token of the caller's tenant; operators may inspect tokens of any tenant."""
        digest = read_refresh_token(presented)
        if digest is not None:
            return await self.database.read(lambda data: self._describe_refresh_token(data, digest, caller))
        try:
            token = await self.access_tokens.read(presented)
        except CredentialInvalidException:
            return INACTIVE
        return await self.database.read(lambda data: self._describe_access_token(data, token, caller))

    def _describe_access_token(self, data: Repositories, token: AccessToken, caller: Principal) -> Introspection:
        try:
            principal = token_principal(data, token)
        except (CredentialInvalidException, PermissionException):
            return INACTIVE
        if principal.tenant_id != caller.tenant_id and Scope.ADMIN not in caller.scopes:
            return INACTIVE
        user = data.users.get_own(token.subject, tenant_id=principal.tenant_id)
        return Introspection(
            active=True,
            scope=scope_text(principal.scopes),
            client_id=token.client_id,
            username=None if user is None else user.username,
            token_type="Bearer",  # noqa: S106  (RFC 6749 §7.1's name of a kind)
            exp=int(token.expires_at.timestamp()),
            iat=int(token.issued_at.timestamp()),
            sub=token.subject,
            aud=token.issuer,
            iss=token.issuer,
            jti=token.token_id,
            tenant=token.tenant_guid,
        )

    def _describe_refresh_token(self, data: Repositories, digest: str, caller: Principal) -> Introspection:
        known = data.refresh_tokens.find(digest)
        if known is None or (known.tenant_id != caller.tenant_id and Scope.ADMIN not in caller.scopes):
            return INACTIVE
        user = data.users.get_own(known.user_guid, tenant_id=known.tenant_id)
        tenant = data.tenants.get_by_id(known.tenant_id)
        used_up = known.used_at is not None or known.revoked_at is not None or clock.now() >= known.expires_at
        if used_up or user is None or user.status is not UserStatus.ACTIVE:
            return INACTIVE
        if tenant is None or tenant.status is not TenantStatus.ACTIVE:
            return INACTIVE
        return Introspection(
            active=True,
            scope=scope_text(known.scopes & user.role.scopes),
            client_id=known.client_id,
            username=user.username,
            exp=int(known.expires_at.timestamp()),
            iat=int(known.created_at.timestamp()),
            sub=user.guid,
            iss=self.access_tokens.issuer,
            tenant=tenant.guid,
        )


def _revoke_session(data: Repositories, digest: str, client: Principal | None) -> bool:
    known = data.refresh_tokens.find(digest)
    if known is None or (client is not None and client.tenant_id != known.tenant_id):
        return False
    if not data.refresh_tokens.revoke_session(known.session_guid, tenant_id=known.tenant_id, at=clock.now()):
        return False
    _audit(data, known, client)
    return True


def _audit(data: Repositories, known: RefreshToken, client: Principal | None) -> None:
    tenant = data.tenants.get_by_id(known.tenant_id)
    data.audit_log.append(
        audit.entry(
            _actor(client),
            AuditAction.TOKEN_REVOKED,
            tenant_guid=None if tenant is None else tenant.guid,
            target=known.user_guid,
            details={"session": known.session_guid},
        )
    )


def _revoke_access_token(data: Repositories, token: AccessToken, client: Principal | None) -> bool:
    tenant = data.tenants.get_by_guid(token.tenant_guid)
    if tenant is None or (client is not None and client.tenant_id != tenant.id):
        return False
    revocation = RevokedToken(
        token_id=token.token_id, tenant_id=tenant.id, expires_at=token.expires_at, revoked_at=clock.now()
    )
    if not data.revoked_tokens.insert(revocation):
        return False
    details = {"token_id": token.token_id, "subject_type": token.subject_type.value}
    data.audit_log.append(
        audit.entry(
            _actor(client),
            AuditAction.TOKEN_REVOKED,
            tenant_guid=tenant.guid,
            target=token.subject,
            details=details,
        )
    )
    return True


def _actor(client: Principal | None) -> Actor:
    return NOBODY if client is None else client.actor
