"""The identity services over a real database, wired as in the server, and helpers for tests."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from passlib.context import CryptContext
from pydantic import SecretStr
from sqlalchemy import text

from pixyproxy.core.fair_slots import FairSlots
from pixyproxy.core.models.api_key import IssuedApiKey, NewApiKey
from pixyproxy.core.models.audit import AuditAction, AuditEntry, AuditFilter
from pixyproxy.core.models.principal import Actor, Principal, Role, Scope, SubjectType
from pixyproxy.core.models.tenant import Tenant, Visibility
from pixyproxy.core.models.token import IssuedTokens
from pixyproxy.core.models.user import NewUser, UserDetail
from pixyproxy.data.database import Database
from pixyproxy.data.files.retained_answers import RetainedAnswers
from pixyproxy.data.files.store.local import LocalStore
from pixyproxy.service.cursors import CursorCodec
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.identity.api_keys import ApiKeyService
from pixyproxy.service.private.identity.authentication import Authenticator
from pixyproxy.service.private.identity.credential_cache import CredentialCache
from pixyproxy.service.private.identity.grants import Grantor
from pixyproxy.service.private.identity.oauth.access_tokens import AccessTokens
from pixyproxy.service.private.identity.oauth.token_status import TokenStatusService
from pixyproxy.service.private.identity.oauth.tokens import TokenLifetimes, TokenService
from pixyproxy.service.private.identity.oauth.trusted_issuers import open_trusted_issuers
from pixyproxy.service.private.identity.passwords import PasswordHasher
from pixyproxy.service.private.identity.tenants import TenantService
from pixyproxy.service.private.identity.users import UserService
from pixyproxy.service.private.removal import TenantRemoval
from tests.support.builders import new_guid
from tests.support.keys import open_ring

ISSUER = "https://pictures.example.com"
OPERATOR = Actor(type=SubjectType.COMMAND, subject="operator")
PASSWORD = SecretStr("correct horse battery staple")
CHEAP = CryptContext(schemes=["argon2"], argon2__memory_cost=8, argon2__time_cost=1, argon2__parallelism=1)
"""Hashes in microseconds; tests of the cost use the default."""


@dataclass(frozen=True)
class Identity:
    """All identity services and their shared objects."""

    database: Database
    access_tokens: AccessTokens
    recognized: CredentialCache
    tasks: DetachedTasks
    removal: TenantRemoval
    passwords: PasswordHasher
    api_keys: ApiKeyService
    users: UserService
    tenants: TenantService
    authenticator: Authenticator
    tokens: TokenService
    token_status: TokenStatusService

    async def issue_key(self, tenant: Tenant, *scopes: Scope, **order: object) -> IssuedApiKey:
        """Issue a key of the tenant with these scopes, by default all."""
        new = NewApiKey.model_validate({"name": "a key", "scopes": scopes or frozenset(Scope)} | order)
        return await self.api_keys.issue_key(new, grantor=grantor_of(tenant))

    async def create_user(self, tenant: Tenant, role: Role = Role.MEMBER, username: str | None = None) -> UserDetail:
        """Create a user of the tenant with ``PASSWORD``."""
        order = NewUser(username=username or f"{new_guid()}@example.org", password=PASSWORD, role=role)
        return await self.users.create_user(order, grantor=grantor_of(tenant))

    async def sign_in(
        self, user: UserDetail, *, scope: str | None = None, client_id: str | None = None
    ) -> tuple[IssuedTokens, SecretStr]:
        """Sign in with ``PASSWORD`` and return the tokens and the refresh token."""
        issued = await self.tokens.sign_in(user.username, PASSWORD, scope=scope, client_id=client_id)
        assert issued.refresh_token is not None
        return issued, issued.refresh_token

    async def principal(self, credential: SecretStr) -> Principal:
        """Return the principal of a credential, according to the database."""
        return await self.authenticator.authenticate(credential)

    async def entries(self, *actions: AuditAction) -> list[AuditEntry]:
        """Return the audit entries of these actions, by default of all, newest first."""
        found = await self.database.read(
            lambda data: data.audit_log.list_entries(AuditFilter(), before=None, limit=1000)
        )
        return [entry for entry in found if not actions or entry.action in actions]

    async def run(self, statement: str, **parameters: object) -> None:
        """Run SQL that stands for the passing of time or for another process."""
        await self.database.write(lambda data: data.connection.execute(text(statement), parameters))

    async def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        statement = text(f"SELECT COUNT(*) FROM {table}")
        count: int = await self.database.read(lambda data: data.connection.execute(statement).scalar_one())
        return count

    async def break_audit_log(self) -> None:
        """Make every append to the audit log fail, by taking the next sequence number."""
        await self.run("""
            INSERT INTO audit_log (sequence, at, actor_type, actor, action, request_id, details, previous_sha256,
                                   entry_sha256)
            SELECT sequence + 1, '2026-01-01 00:00:00', 'command', 'meddler', 'key.issued', '-', '{}', entry_sha256,
                   entry_sha256
              FROM audit_head
        """)


async def compose(database: Database, store: LocalStore, folder: Path) -> Identity:
    """Return identity services with cheap password hashing."""
    access_tokens = AccessTokens(keys=await open_ring(database, folder), issuer=ISSUER)
    recognized, tasks = CredentialCache(), DetachedTasks()
    cursors = CursorCodec(SecretStr("a secret"))
    passwords = PasswordHasher(FairSlots(4, wait_seconds=10), context=CHEAP)
    removal = TenantRemoval(database=database, store=store, answers=RetainedAnswers(folder / "kept"))
    return Identity(
        database=database,
        access_tokens=access_tokens,
        recognized=recognized,
        tasks=tasks,
        removal=removal,
        passwords=passwords,
        api_keys=ApiKeyService(database=database, recognized=recognized, cursors=cursors),
        users=UserService(database=database, passwords=passwords, recognized=recognized, cursors=cursors),
        tenants=TenantService(
            database=database,
            default_visibility=Visibility.PRIVATE,
            removal=removal,
            tasks=tasks,
            recognized=recognized,
        ),
        authenticator=Authenticator(
            database=database,
            access_tokens=access_tokens,
            trusted_issuers=open_trusted_issuers(()),
            recognized=recognized,
            tasks=tasks,
        ),
        tokens=TokenService(
            database=database,
            access_tokens=access_tokens,
            passwords=passwords,
            lifetimes=TokenLifetimes(access=900, refresh=3600),
            password_sign_in=True,
            recognized=recognized,
        ),
        token_status=TokenStatusService(database=database, access_tokens=access_tokens, recognized=recognized),
    )


def grantor_of(tenant: Tenant, scopes: Iterable[Scope] = Scope, *, actor: Actor = OPERATOR) -> Grantor:
    """Return a grantor in the tenant who may grant these scopes."""
    return Grantor(actor=actor, tenant_id=tenant.id, tenant_guid=tenant.guid, scopes=frozenset(scopes))
