"""Issuing tokens: the OAuth 2 grants (RFC 6749), and tokens issued by operators."""

import uuid
from dataclasses import dataclass
from datetime import timedelta

from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    DatabaseException,
    GrantException,
    OAuthClientException,
    OAuthGrantException,
    OAuthScopeException,
    OAuthUnauthorizedException,
    SignInUnrecordedException,
)
from pixyproxy.core.fair_slots import Requester
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import Actor, Principal, Role, Scope, Subject, SubjectType, scope_text
from pixyproxy.core.models.signing_key import SigningKey
from pixyproxy.core.models.tenant import Tenant
from pixyproxy.core.models.token import IssuedTokens, RefreshToken, SessionGuid, TokenOrder
from pixyproxy.core.models.user import StoredUser, UserStatus
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.private import audit
from pixyproxy.service.private.identity.credential_cache import CredentialCache
from pixyproxy.service.private.identity.grants import Grantor
from pixyproxy.service.private.identity.key_format import (
    PresentedKey,
    new_secret,
    read_refresh_token,
    refresh_token_text,
    sha256,
)
from pixyproxy.service.private.identity.oauth.access_tokens import AccessToken, AccessTokens, Holder
from pixyproxy.service.private.identity.oauth.clients import RefreshingClient, has_secret, may_refresh, require_client
from pixyproxy.service.private.identity.passwords import PasswordHasher
from pixyproxy.service.private.identity.tenants import require_active, require_known
from pixyproxy.service.revalidation import revalidate

FIRST_PARTY = "pixyproxy"
"""The ``client_id`` of a sign-in that names no client."""
NOBODY = Actor(type=SubjectType.ANONYMOUS, subject="anonymous")


@dataclass(frozen=True)
class TokenLifetimes:
    """Lifetimes in seconds."""

    access: int
    refresh: int


@dataclass(frozen=True)
class Session:
    """A sign-in: its user, client and granted scopes."""

    guid: SessionGuid
    user: StoredUser
    tenant: Tenant
    client_id: str | None
    granted: frozenset[Scope]


@dataclass(frozen=True)
class TokenService:
    """Issues tokens. The audit entry and the token's row are committed before the token is returned."""

    database: Database
    access_tokens: AccessTokens
    passwords: PasswordHasher
    lifetimes: TokenLifetimes
    password_sign_in: bool
    recognized: CredentialCache

    async def sign_in(  # noqa: PLR0913  (the parts of a sign-in)
        self,
        username: str,
        password: SecretStr,
        *,
        scope: str | None,
        client_id: str | None,
        client: Principal | None = None,
        address: str = "",
    ) -> IssuedTokens:
        """Return tokens for a user's password (RFC 6749 §4.3). ``client`` is the authenticated ``client_id``, or None.

        Sign-ins from one ``address`` wait for each other, not for those from other addresses.

        Raises ``OAuthUnauthorizedException`` if password sign-in is disabled, ``OAuthGrantException`` for a wrong name
        or password, which are not distinguished, ``OAuthScopeException``, and ``OAuthClientException`` for the id of
        a key that did not authenticate or belongs to another tenant.
        """
        if not self.password_sign_in:
            raise OAuthUnauthorizedException
        user = await self.database.read(lambda data: data.users.find_for_sign_in(username.lower()))
        if client is None and await self.database.read(lambda data: has_secret(data, client_id)):
            raise OAuthClientException
        is_right = await self.passwords.verify(
            password,
            None if user is None else user.password_hash,
            requester=Requester(None if user is None else user.tenant_id, address),
        )
        if user is None or not is_right or user.status is not UserStatus.ACTIVE:
            await self._note_failed_sign_in(user)
            raise OAuthGrantException
        if client is not None and client.tenant_id != user.tenant_id:
            raise OAuthClientException
        scopes = _narrow(scope, user.role.scopes)
        return await self.database.write(lambda data: self._begin_session(data, user, scopes, client_id))

    async def issue_to_client(self, presented: PresentedKey | None, *, scope: str | None) -> IssuedTokens:
        """Return an access token for an API key (RFC 6749 §4.4), without a refresh token: the key can request another.

        It expires no later than the presented secret.
        Raises ``OAuthClientException`` for an invalid key, and ``OAuthScopeException``.
        """

        def issue(data: Repositories) -> IssuedTokens:
            key, tenant = require_client(data, presented)
            holder = Holder(
                subject=Subject(key.guid),
                subject_type=SubjectType.KEY,
                tenant_guid=tenant.guid,
                client_id=key.key_id,
                credential_expires_at=key.expires_at,
            )
            scopes = _narrow(scope, key.scopes)
            token = self.access_tokens.new(holder, scopes=scopes, seconds=self.lifetimes.access)
            return self._issue(data, token, AuditAction.TOKEN_ISSUED, actor=holder.actor, grant="client_credentials")

        return await self.database.write(issue)

    async def refresh(self, presented: SecretStr, *, scope: str | None, client: RefreshingClient) -> IssuedTokens:
        """Return new tokens for a refresh token, which this uses up (RFC 6749 §6, RFC 9700 §4.14.2).

        Reuse of a refresh token indicates theft and ends the whole sign-in. Raises ``OAuthGrantException`` and
        ``OAuthScopeException``.
        """
        issued = await self.database.write(lambda data: self._rotate(data, presented, scope, client))
        if issued is None:
            self.recognized.forget_all()
            raise OAuthGrantException
        return issued

    async def issue_for_tenant(self, incoming: TokenOrder, *, grantor: Grantor) -> IssuedTokens:
        """Return an access token for a tenant, on behalf of an operator; it expires no later than their credential.

        Raises ``TenantNotFoundException``, ``TenantSuspendedException``, ``OAuthScopeException``, and
        ``GrantException`` for scopes that the operator lacks, for an operator with limits, which a token cannot carry,
        and for an operator who uses such a token.
        """
        order = revalidate(incoming)
        if grantor.actor.type is SubjectType.TOKEN:
            # Revoking the operator's token would leave the tokens that it issued valid.
            raise GrantException
        scopes = Role.MEMBER.scopes if order.scope is None else _narrow(order.scope, frozenset(Scope))
        grantor.require_scopes(scopes)
        grantor.require_limits(allowed_models=None, images_per_minute=None)

        def issue(data: Repositories) -> IssuedTokens:
            tenant = require_active(require_known(data.tenants.find(order.tenant)))
            holder = Holder(
                subject=Subject(str(uuid.uuid4())),
                subject_type=SubjectType.TOKEN,
                tenant_guid=tenant.guid,
                client_id=grantor.actor.subject,
                credential_expires_at=grantor.expires_at,
            )
            token = self.access_tokens.new(holder, scopes=scopes, seconds=order.expires_in)
            return self._issue(data, token, AuditAction.TOKEN_ISSUED, actor=grantor.actor, grant="operator")

        return await self.database.write(issue)

    async def rotate_signing_keys(self, *, actor: Actor, at_once: bool) -> SigningKey:
        """Create the next signing key; ``at_once`` replaces a leaked key."""
        details = {"at_once": str(at_once).lower()}
        entry = audit.entry(actor, AuditAction.SIGNING_KEYS_ROTATED, details=details)
        key = await self.access_tokens.keys.rotate(clock.now(), at_once=at_once, entry=entry)
        self.recognized.forget_all()
        return key

    def _begin_session(
        self, data: Repositories, user: StoredUser, scopes: frozenset[Scope], client_id: str | None
    ) -> IssuedTokens:
        # Hashing took time. The update waits for concurrent changes of the user, so the row read next is current.
        data.users.note_sign_in(user.guid, tenant_id=user.tenant_id, at=clock.now())
        current = data.users.get_own(user.guid, tenant_id=user.tenant_id)
        if current is None or (current.password_hash, current.status) != (user.password_hash, user.status):
            raise OAuthGrantException
        tenant = require_active(data.tenants.get_by_id(user.tenant_id))
        session = Session(SessionGuid(str(uuid.uuid4())), user, tenant, client_id, granted=scopes)
        return self._issue_to_user(data, session, AuditAction.SIGNED_IN, scopes=scopes)

    def _rotate(
        self, data: Repositories, presented: SecretStr, scope: str | None, client: RefreshingClient
    ) -> IssuedTokens | None:
        """Return the successors of a refresh token, or None; the transaction must be committed even then."""
        digest, moment = read_refresh_token(presented), clock.now()
        known = None if digest is None else data.refresh_tokens.lock(digest)
        if known is None or not may_refresh(data, known, client):
            return None
        if known.used_at is not None or known.revoked_at is not None:
            self._end_stolen_session(data, known)
            return None
        user = data.users.get_own(known.user_guid, tenant_id=known.tenant_id)
        if moment >= known.expires_at or user is None or user.status is not UserStatus.ACTIVE:
            return None
        tenant = require_active(data.tenants.get_by_id(known.tenant_id))
        granted = known.scopes & user.role.scopes
        scopes = _narrow(scope, granted)
        if not data.refresh_tokens.use(known.token_sha256, tenant_id=known.tenant_id, at=moment):
            self._end_stolen_session(data, known)
            return None
        session = Session(known.session_guid, user, tenant, known.client_id, granted=granted)
        return self._issue_to_user(data, session, AuditAction.TOKEN_REFRESHED, scopes=scopes)

    def _end_stolen_session(self, data: Repositories, known: RefreshToken) -> None:
        if data.refresh_tokens.revoke_session(known.session_guid, tenant_id=known.tenant_id, at=clock.now()):
            tenant = data.tenants.get_by_id(known.tenant_id)
            data.audit_log.append(
                audit.entry(
                    NOBODY,
                    AuditAction.TOKEN_REUSED,
                    tenant_guid=None if tenant is None else tenant.guid,
                    target=known.user_guid,
                    details={"session": known.session_guid},
                )
            )

    def _issue_to_user(
        self, data: Repositories, session: Session, action: AuditAction, *, scopes: frozenset[Scope]
    ) -> IssuedTokens:
        """Issue an access token and the next refresh token of a sign-in; ``scopes`` narrows only the access token."""
        secret, moment = new_secret(), clock.now()
        data.refresh_tokens.insert(
            RefreshToken(
                token_sha256=sha256(secret),
                session_guid=session.guid,
                tenant_id=session.tenant.id,
                user_guid=session.user.guid,
                client_id=session.client_id,
                scopes=session.granted,
                created_at=moment,
                expires_at=moment + timedelta(seconds=self.lifetimes.refresh),
                used_at=None,
                revoked_at=None,
            )
        )
        holder = Holder(
            subject=Subject(session.user.guid),
            subject_type=SubjectType.USER,
            tenant_guid=session.tenant.guid,
            client_id=session.client_id or FIRST_PARTY,
            session=session.guid,
        )
        token = self.access_tokens.new(holder, scopes=scopes, seconds=self.lifetimes.access)
        issued = self._issue(data, token, action, actor=holder.actor, grant="password")
        return issued.model_copy(update={"refresh_token": refresh_token_text(secret)})

    def _issue(
        self, data: Repositories, token: AccessToken, action: AuditAction, *, actor: Actor, grant: str
    ) -> IssuedTokens:
        details = {
            "grant": grant,
            "token_id": token.token_id,
            "scope": scope_text(token.scopes),
            "expires_at": token.expires_at.isoformat(),
        }
        data.audit_log.append(
            audit.entry(actor, action, tenant_guid=token.tenant_guid, target=token.subject, details=details)
        )
        seconds = int((token.expires_at - token.issued_at).total_seconds())
        return IssuedTokens(access_token=self.access_tokens.sign(token), expires_in=seconds, scopes=token.scopes)

    async def _note_failed_sign_in(self, user: StoredUser | None) -> None:
        """Append a failed sign-in to the audit log; an unknown user name is omitted, since it may be a password."""

        def note(data: Repositories) -> None:
            tenant = None if user is None else data.tenants.get_by_id(user.tenant_id)
            data.audit_log.append(
                audit.entry(
                    NOBODY,
                    AuditAction.SIGN_IN_FAILED,
                    tenant_guid=None if tenant is None else tenant.guid,
                    target=None if user is None else user.guid,
                )
            )

        try:
            await self.database.write(note)
        except DatabaseException as error:
            # A separate exception, which the guard against guessing counts like a wrong password.
            raise SignInUnrecordedException from error


def _narrow(scope: str | None, most: frozenset[Scope]) -> frozenset[Scope]:
    """Return the requested scopes, or all of ``most`` if none is requested. Raises ``OAuthScopeException``."""
    if scope is None or not scope.strip():
        return most
    names = set(scope.split())
    if not names <= set(most):
        raise OAuthScopeException
    return frozenset(Scope(name) for name in names)
