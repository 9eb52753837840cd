"""Access tokens of this installation (RFC 9068): their claims, signing and reading."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr, ValidationError

from pixyproxy.core import clock
from pixyproxy.core.exceptions import CredentialInvalidException
from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.principal import Actor, Scope, Subject, SubjectType, scope_text
from pixyproxy.core.models.tenant import TenantGuid
from pixyproxy.core.models.token import SessionGuid, TokenId
from pixyproxy.service.private.identity.oauth.jwt import inspect_token, sign_token, verify_token
from pixyproxy.service.private.identity.oauth.signing_keys import KeyRing

TYPES = frozenset({"at+jwt"})
REQUIRED = frozenset({"iss", "aud", "sub", "client_id", "iat", "exp", "jti", "scope", "tenant", "sub_type"})
"""Claims required by RFC 9068 §2.2, and additional claims of our own tokens."""

LEEWAY_SECONDS = 30
"""How far the issuing machine's clock may be ahead of this one; the expiry is not extended."""


class Holder(FrozenModel):
    """The subject that a token stands for.

    ``session`` is the sign-in that the token came from, if any. ``credential_expires_at`` is the expiry of the
    credential that the token was issued for: neither the token nor credentials that it creates are valid longer.
    """

    subject: Subject
    subject_type: SubjectType
    tenant_guid: TenantGuid
    client_id: str
    session: SessionGuid | None = None
    credential_expires_at: datetime | None = None

    @property
    def actor(self) -> Actor:
        """The holder as actor in the audit log."""
        return Actor(type=self.subject_type, subject=self.subject, tenant_guid=self.tenant_guid)


class AccessToken(Holder):
    """The content of an access token."""

    issuer: str
    scopes: frozenset[Scope]
    token_id: TokenId
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class AccessTokens:
    """Creates and reads the access tokens of this installation; reading queries the database only for unknown ``kid``s.

    ``issuer`` becomes ``iss`` and ``aud``. If it is only the address of one process (``is_named`` is False), they are
    not compared and the signature alone identifies our tokens, since other processes have other addresses.
    """

    keys: KeyRing
    issuer: str
    is_named: bool = True

    def new(self, holder: Holder, *, scopes: frozenset[Scope], seconds: int) -> AccessToken:
        """Return an unsigned token valid for ``seconds``, or until its credential expires if that is sooner."""
        moment = clock.now()
        expires_at = moment + timedelta(seconds=seconds)
        if holder.credential_expires_at is not None:
            expires_at = min(expires_at, holder.credential_expires_at)
        return AccessToken(
            **holder.model_dump(),
            issuer=self.issuer,
            scopes=scopes,
            token_id=TokenId(str(uuid.uuid4())),
            issued_at=moment,
            expires_at=expires_at,
        )

    def sign(self, token: AccessToken) -> SecretStr:
        """Return the token as a signed JWT."""
        claims: dict[str, Any] = {
            "iss": token.issuer,
            "aud": token.issuer,
            "sub": token.subject,
            "client_id": token.client_id,
            "iat": int(token.issued_at.timestamp()),
            "exp": int(token.expires_at.timestamp()),
            "jti": token.token_id,
            "scope": scope_text(token.scopes),
            "tenant": token.tenant_guid,
            "sub_type": token.subject_type.value,
        }
        if token.session is not None:
            claims["sid"] = token.session
        if token.credential_expires_at is not None:
            claims["credential_exp"] = int(token.credential_expires_at.timestamp())
        return SecretStr(sign_token(claims, self.keys.signing_key(clock.now())))

    async def read(self, presented: SecretStr) -> AccessToken:
        """Return the content of one of our tokens. Raises ``CredentialInvalidException`` if invalid or expired."""
        text, moment = presented.get_secret_value(), clock.now()
        unverified = inspect_token(text)
        key = None if unverified.kid is None else await self.keys.find_verification_key(unverified.kid, moment)
        issuer = self.issuer if self.is_named else unverified.issuer
        if key is None or issuer is None:
            raise CredentialInvalidException
        claims = verify_token(
            text,
            key,
            issuer=issuer,
            audience=issuer,
            types=TYPES,
            required=REQUIRED,
            at=moment,
            leeway_seconds=LEEWAY_SECONDS,
        )
        try:
            return _token(claims)
        except (ValidationError, ValueError, TypeError, AttributeError) as error:
            raise CredentialInvalidException from error


def _token(claims: dict[str, Any]) -> AccessToken:
    credential_exp = claims.get("credential_exp")
    return AccessToken(
        subject=claims["sub"],
        subject_type=claims["sub_type"],
        tenant_guid=claims["tenant"],
        client_id=claims["client_id"],
        issuer=claims["iss"],
        scopes=claims["scope"].split(),
        session=claims.get("sid"),
        credential_expires_at=None if credential_exp is None else datetime.fromtimestamp(credential_exp, UTC),
        token_id=claims["jti"],
        issued_at=datetime.fromtimestamp(claims["iat"], UTC),
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
    )
