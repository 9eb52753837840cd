"""Users: people who sign in with a password."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, NewType

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, StringConstraints

from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.principal import Role
from pixyproxy.core.models.tenant import TenantId

UserGuid = NewType("UserGuid", str)

Username = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$", to_lower=True)]
"""May be an e-mail address. Unique on the server, ignoring case, because people sign in without naming their tenant."""


MOST_USERS = 10_000
"""The most users of a tenant."""
PASSWORD_LENGTHS = range(12, 257)
"""In characters. Length is what matters (NIST SP 800-63B, 3.1.1.2); the maximum limits what is hashed."""


def _hashable(password: SecretStr) -> SecretStr:
    """Reject passwords that are too short or long, and lone surrogates, which JSON can hold but not be hashed."""
    if not PASSWORD_LENGTHS.start <= len(password) < PASSWORD_LENGTHS.stop:
        problem = f"must have {PASSWORD_LENGTHS.start} to {PASSWORD_LENGTHS.stop - 1} characters"
        raise ValueError(problem)
    try:
        password.get_secret_value().encode()
    except UnicodeEncodeError:
        problem = "must be valid text, without lone surrogates"
        # Without its cause, which contains the password.
        raise ValueError(problem) from None
    return password


Password = Annotated[
    SecretStr,
    AfterValidator(_hashable),
    Field(json_schema_extra={"minLength": PASSWORD_LENGTHS.start, "maxLength": PASSWORD_LENGTHS.stop - 1}),
]


class UserStatus(StrEnum):
    """Whether a user may sign in."""

    ACTIVE = "active"
    DISABLED = "disabled"


class NewUser(FrozenModel):
    """The request to create a user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"username": "ann@example.com", "password": "correct horse battery staple", "role": "member"}]
        }
    )

    username: Username
    password: Password
    role: Role = Role.MEMBER


class UserChange(FrozenModel):
    """A change to a user; omitted fields stay unchanged. A new password ends the existing sessions."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"role": "tenant_admin"}]})

    password: Password | None = None
    role: Role | None = None
    status: UserStatus | None = None


class UserDetail(FrozenModel):
    """A user in a list."""

    guid: UserGuid
    username: str
    role: Role
    status: UserStatus
    created_at: datetime
    updated_at: datetime
    last_sign_in_at: datetime | None


class StoredUser(UserDetail):
    """A user row; the hash is argon2id."""

    tenant_id: TenantId
    password_hash: SecretStr
