"""Users: people of a tenant who sign in with a password."""

import uuid
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import GrantException, PermissionException, UserLimitException, UserNotFoundException
from pixyproxy.core.fair_slots import Requester
from pixyproxy.core.models.audit import AuditAction
from pixyproxy.core.models.principal import Role, scope_text
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.user import MOST_USERS, NewUser, StoredUser, UserChange, UserDetail, UserGuid, UserStatus
from pixyproxy.data.database import Database, Repositories
from pixyproxy.service.cursors import MOST_LISTED, CursorCodec, Page, TenantList
from pixyproxy.service.private import audit
from pixyproxy.service.private.identity.credential_cache import CredentialCache
from pixyproxy.service.private.identity.grants import Grantor
from pixyproxy.service.private.identity.passwords import PasswordHasher
from pixyproxy.service.revalidation import revalidate


@dataclass(frozen=True)
class UserService:
    """Manages users. A caller may not create or change a user with more rights than their own."""

    database: Database
    passwords: PasswordHasher
    recognized: CredentialCache
    cursors: CursorCodec

    async def create_user(self, incoming: NewUser, *, grantor: Grantor) -> UserDetail:
        """Create a user of the tenant and return it.

        Raises ``UserExistsException``, ``UserLimitException`` and ``GrantException``.
        """
        order = revalidate(incoming)
        _require_grantable(order.role, grantor)
        _require_unlimited(grantor)
        moment = clock.now()
        user = StoredUser(
            guid=UserGuid(str(uuid.uuid4())),
            tenant_id=grantor.tenant_id,
            username=order.username,
            password_hash=await self._hash(order.password, grantor),
            role=order.role,
            status=UserStatus.ACTIVE,
            created_at=moment,
            updated_at=moment,
            last_sign_in_at=None,
        )

        def create(data: Repositories) -> None:
            # Lock the tenant, so that concurrent calls count this user.
            data.tenants.lock(grantor.tenant_guid)
            if data.users.count(tenant_id=grantor.tenant_id) >= MOST_USERS:
                raise UserLimitException(context={"limit": str(MOST_USERS)})
            data.users.insert(user)
            _audit(data, AuditAction.USER_CREATED, user, grantor, {"role": user.role})

        await self.database.write(create)
        return _detail(user)

    async def list_users(
        self, *, tenant_id: TenantId, limit: int = MOST_LISTED, cursor: str | None = None
    ) -> Page[UserDetail]:
        """Return a page of the tenant's users, oldest first. Raises ``InvalidCursorException``."""
        wanted = TenantList(name="users", tenant_id=tenant_id)
        after = 0 if cursor is None else self.cursors.decode(cursor, wanted)
        found = await self.database.read(
            lambda data: data.users.list_of_tenant(tenant_id=tenant_id, after=after, limit=limit + 1)
        )
        following = self.cursors.encode(found[limit - 1][0], wanted) if len(found) > limit else None
        return Page([_detail(user) for _, user in found[:limit]], following)

    async def change_user(self, guid: str, incoming: UserChange, *, grantor: Grantor) -> UserDetail:
        """Change password, role or status; a new password or disabling the user ends all of their sign-ins.

        Raises ``UserNotFoundException``, ``PermissionException`` for a user with more rights than the grantor, and
        ``GrantException`` for a role with more rights. A grantor with limits or an expiry may only disable users,
        since users have neither; other changes raise ``GrantException``.
        """
        change = revalidate(incoming)
        if change.role is not None:
            _require_grantable(change.role, grantor)
        if change != UserChange(status=UserStatus.DISABLED):
            _require_unlimited(grantor)
        password_hash = None if change.password is None else await self._hash(change.password, grantor)

        def apply(data: Repositories) -> StoredUser:
            user = _require_governed(data, guid, grantor)
            changed = user.model_copy(update=_update(change, password_hash))
            data.users.update(changed, tenant_id=grantor.tenant_id)
            if password_hash is not None or changed.status is UserStatus.DISABLED:
                data.refresh_tokens.revoke_sessions_of_user(user.guid, tenant_id=grantor.tenant_id, at=clock.now())
            details = change.model_dump(mode="json", exclude_none=True, exclude={"password"})
            if password_hash is not None:
                details |= {"password": "changed"}
            _audit(data, AuditAction.USER_CHANGED, user, grantor, details)
            return changed

        changed = await self.database.write(apply)
        self.recognized.forget_all()
        return _detail(changed)

    async def delete_user(self, guid: str, *, grantor: Grantor) -> None:
        """Delete a user, whose tokens become invalid. Raises as ``change_user`` does."""

        def remove(data: Repositories) -> None:
            user = _require_governed(data, guid, grantor)
            data.refresh_tokens.revoke_sessions_of_user(user.guid, tenant_id=grantor.tenant_id, at=clock.now())
            data.users.delete(user.guid, tenant_id=grantor.tenant_id)
            _audit(data, AuditAction.USER_DELETED, user, grantor, {})

        await self.database.write(remove)
        self.recognized.forget_all()

    async def _hash(self, password: SecretStr, grantor: Grantor) -> SecretStr:
        return await self.passwords.hash(password, requester=Requester(grantor.tenant_id, grantor.actor.subject))


def _update(change: UserChange, password_hash: SecretStr | None) -> dict[str, Any]:
    wanted = {"role": change.role, "status": change.status, "password_hash": password_hash}
    return {name: value for name, value in wanted.items() if value is not None} | {"updated_at": clock.now()}


def _require_grantable(role: Role, grantor: Grantor) -> None:
    if not role.scopes <= grantor.scopes:
        raise GrantException(context={"role": role})


def _require_unlimited(grantor: Grantor) -> None:
    """Raise ``GrantException`` if the grantor's credential has limits or an expiry, since a user has neither."""
    grantor.require_limits(allowed_models=None, images_per_minute=None)
    grantor.require_lifetime(None)


def _require_governed(data: Repositories, guid: str, grantor: Grantor) -> StoredUser:
    """Return the user, locked, if the grantor has all of their rights: a new password lets them act as the user."""
    user = data.users.lock_own(guid, tenant_id=grantor.tenant_id)
    if user is None:
        raise UserNotFoundException
    if not user.role.scopes <= grantor.scopes:
        raise PermissionException(context={"scope": scope_text(user.role.scopes - grantor.scopes)})
    return user


def _audit(
    data: Repositories, action: AuditAction, user: StoredUser, grantor: Grantor, details: dict[str, str]
) -> None:
    data.audit_log.append(
        audit.entry(
            grantor.actor,
            action,
            tenant_guid=grantor.tenant_guid,
            target=user.guid,
            details={"username": user.username} | details,
        )
    )


def _detail(user: StoredUser) -> UserDetail:
    return UserDetail(**user.model_dump(include=set(UserDetail.model_fields)))
