"""Authentication: resolve an API key or access token to its principal."""

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import CredentialInvalidException, DatabaseException
from pixyproxy.core.models.api_key import StoredApiKey
from pixyproxy.core.models.principal import Principal, Scope, Subject, SubjectType
from pixyproxy.core.models.tenant import Tenant, TenantStatus
from pixyproxy.core.models.trusted_issuer import TrustedIssuer
from pixyproxy.core.models.user import UserStatus
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.identity.api_keys import find_key, is_active
from pixyproxy.service.private.identity.credential_cache import CredentialCache
from pixyproxy.service.private.identity.key_format import PresentedKey, read_api_key, sha256
from pixyproxy.service.private.identity.oauth.access_tokens import AccessToken, AccessTokens
from pixyproxy.service.private.identity.oauth.jwt import inspect_token
from pixyproxy.service.private.identity.oauth.trusted_issuers import ForeignClaims, TrustedIssuers
from pixyproxy.service.private.identity.tenants import require_active

logger = logging.getLogger(__name__)

NOTED_EVERY = timedelta(minutes=1)
"""Minimum interval between updates of a key's last use."""
SUBJECT_LENGTH = 255
TENANT_MISSING = "a trusted issuer named an unknown tenant"


@dataclass(frozen=True)
class Authenticator:
    """Authenticates callers. Every rejected credential raises the same ``CredentialInvalidException``."""

    database: Database
    access_tokens: AccessTokens
    trusted_issuers: TrustedIssuers
    recognized: CredentialCache
    tasks: DetachedTasks

    async def authenticate(self, presented: SecretStr) -> Principal:
        """Return the principal of an API key or access token, according to the database.

        Raises ``CredentialInvalidException``, ``TenantSuspendedException`` and ``IssuerUnavailableException``.
        """
        checked_at = time.monotonic()
        if presented.get_secret_value().startswith("pxy_"):
            key, tenant = await self._by_key(read_api_key(presented))
            principal, expires_at = key_principal(key, tenant), key.expires_at
        elif (trusted := self._trusted_issuer(presented)) is not None:
            claims = await self.trusted_issuers.verify(presented.get_secret_value(), trusted, at=clock.now())
            principal = await self.database.read(lambda data: _foreign_principal(data, claims))
            expires_at = claims.expires_at
        else:
            token = await self.access_tokens.read(presented)
            principal = await self.database.read(lambda data: token_principal(data, token))
            expires_at = token.expires_at
        self.recognized.put(presented, principal, expires_at=expires_at, checked_at=checked_at)
        return principal

    async def _by_key(self, presented: PresentedKey | None) -> tuple[StoredApiKey, Tenant]:
        def find(data: Repositories) -> tuple[StoredApiKey, Tenant]:
            key = find_key(data, presented)
            if key is None:
                raise CredentialInvalidException
            return key, require_active(data.tenants.get_by_id(key.tenant_id))

        key, tenant = await self.database.read(find)
        moment = clock.now()
        if key.last_used_at is None or moment - key.last_used_at >= NOTED_EVERY:
            self.tasks.start(self._note_use(key))
        return key, tenant

    async def _note_use(self, key: StoredApiKey) -> None:
        moment = clock.now()
        try:
            await self.database.write(
                lambda data: data.api_keys.note_use(
                    key.guid, tenant_id=key.tenant_id, at=moment, unless_since=moment - NOTED_EVERY
                )
            )
        except DatabaseException:
            logger.warning("last use of key %s not recorded", key.key_id)

    def _trusted_issuer(self, presented: SecretStr) -> TrustedIssuer | None:
        """Return the trusted issuer that a token names; None means that one of our own keys must have signed it."""
        return self.trusted_issuers.find(inspect_token(presented.get_secret_value()).issuer or "")


def key_principal(key: StoredApiKey, tenant: Tenant) -> Principal:
    """Return the principal of an API key."""
    models = [names for names in (key.allowed_models, tenant.allowed_models) if names is not None]
    return _principal(tenant, SubjectType.KEY, key.guid, key.scopes).model_copy(
        update={
            "allowed_models": frozenset.intersection(*models) if models else None,
            "key_allowed_models": key.allowed_models,
            "key_images_per_minute": key.images_per_minute,
            "expires_at": key.expires_at,
        }
    )


def token_principal(data: Repositories, token: AccessToken) -> Principal:
    """Return the principal of one of our own access tokens, limited to its subject's current rights.

    Raises ``CredentialInvalidException`` if the token, its sign-in or its subject is no longer valid, and
    ``TenantSuspendedException``.
    """
    tenant = data.tenants.get_by_guid(token.tenant_guid)
    if tenant is None or tenant.status is TenantStatus.DELETING:
        raise CredentialInvalidException
    if data.revoked_tokens.find(token.token_id, tenant_id=tenant.id) is not None:
        raise CredentialInvalidException
    if token.session is not None and data.refresh_tokens.is_session_revoked(token.session, tenant_id=tenant.id):
        raise CredentialInvalidException
    principal = _subject_principal(data, token, tenant)
    require_active(tenant)
    return principal


def _subject_principal(data: Repositories, token: AccessToken, tenant: Tenant) -> Principal:
    if token.subject_type is SubjectType.TOKEN:
        return _principal(tenant, SubjectType.TOKEN, token.subject, token.scopes, expires_at=token.expires_at)
    if token.subject_type is SubjectType.KEY:
        key = data.api_keys.get_own(token.subject, tenant_id=tenant.id)
        if key is None or not is_active(key, at=clock.now()):
            raise CredentialInvalidException
        expires_at = clock.earliest(key.expires_at, token.credential_expires_at)
        return key_principal(key, tenant).model_copy(
            update={"scopes": token.scopes & key.scopes, "expires_at": expires_at}
        )
    user = data.users.get_own(token.subject, tenant_id=tenant.id)
    if user is None or user.status is not UserStatus.ACTIVE:
        raise CredentialInvalidException
    return _principal(tenant, SubjectType.USER, token.subject, token.scopes & user.role.scopes)


def _foreign_principal(data: Repositories, claims: ForeignClaims) -> Principal:
    tenant = data.tenants.find(claims.tenant)
    if tenant is None:
        logger.warning("%s: %s of %s", TENANT_MISSING, claims.tenant, claims.issuer)
    return _principal(
        require_active(tenant),
        SubjectType.FOREIGN,
        _foreign_subject(claims),
        claims.scopes,
        expires_at=claims.expires_at,
    )


def _foreign_subject(claims: ForeignClaims) -> str:
    """Return issuer and subject; if too long for the column, truncated and with a digest of the whole."""
    subject = f"{claims.issuer}#{claims.subject}"
    return subject if len(subject) <= SUBJECT_LENGTH else f"{subject[:180]}…{sha256(subject)}"


def _principal(
    tenant: Tenant,
    subject_type: SubjectType,
    subject: str,
    scopes: frozenset[Scope],
    *,
    expires_at: datetime | None = None,
) -> Principal:
    return Principal(
        tenant_id=tenant.id,
        tenant_guid=tenant.guid,
        tenant_name=tenant.name,
        default_visibility=tenant.default_visibility,
        subject_type=subject_type,
        subject=Subject(subject),
        scopes=scopes,
        allowed_models=tenant.allowed_models,
        tenant_images_per_minute=tenant.images_per_minute,
        expires_at=expires_at,
        has_budget=tenant.monthly_budget_usd is not None,
    )
