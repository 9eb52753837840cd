"""API keys: their form, issuing, listing, revoking, and telling who presents one.

A key reads ``pxy_<key id>_<secret><checksum>``: 12, 43 and 6 characters of base 62. The secret is 256 random
bits, so that SHA-256 keeps it as safely as any slow hash would; the checksum (CRC-32) lets a scanner tell a
real key from a look-alike offline, as GitHub's tokens do.
"""

import hashlib
import hmac
import re
import secrets
import string
import uuid
import zlib
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.exceptions import ApiKeyNotFoundException, CredentialInvalidException
from pixyproxy.core.models.tenant import (
    ApiKeyDetail,
    ApiKeyGuid,
    IssuedApiKey,
    Principal,
    Scope,
    StoredApiKey,
    Tenant,
    TenantId,
)
from pixyproxy.data.database import Database, Repositories

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
API_KEY = re.compile(
    r"(?P<body>pxy_(?P<key_id>[0-9A-Za-z]{12})_(?P<secret>[0-9A-Za-z]{43}))(?P<checksum>[0-9A-Za-z]{6})"
)
ABSENT_SHA256 = "0" * 64
"""Compared with when a key id is unknown, so that the answer takes as long as for a wrong secret."""


@dataclass(frozen=True)
class ApiKeyService:
    """Issues API keys and recognizes them."""

    database: Database

    async def authenticate(self, presented: SecretStr) -> Principal:
        """The principal that a key stands for. Raises ``CredentialInvalidException`` for any that does not."""
        match = API_KEY.fullmatch(presented.get_secret_value())
        if match is None or match["checksum"] != _checksum(match["body"]):
            raise CredentialInvalidException
        found = await self.database.read(lambda data: data.api_keys.find_for_authentication(match["key_id"]))
        expected = ABSENT_SHA256 if found is None else found[0].secret_sha256
        authentic = hmac.compare_digest(_sha256(match["secret"]), expected)
        if found is None or not authentic or not _is_active(found[0], at=clock.now()):
            raise CredentialInvalidException
        return _principal(*found)

    async def issue_key(
        self, tenant: Tenant, *, name: str, scopes: frozenset[Scope], expires_at: datetime | None = None
    ) -> IssuedApiKey:
        """A new key of the tenant; its secret is in the answer and nowhere else."""
        return await self.database.write(
            lambda data: issue_key(data, tenant, name=name, scopes=scopes, expires_at=expires_at)
        )

    async def list_keys(self, *, tenant_id: TenantId) -> list[ApiKeyDetail]:
        """The tenant's keys, oldest first, revoked ones too."""
        keys = await self.database.read(lambda data: data.api_keys.list_of_tenant(tenant_id=tenant_id))
        return [_detail(key) for key in keys]

    async def revoke_key(self, guid: ApiKeyGuid, *, tenant_id: TenantId) -> None:
        """Make a key worthless from now on, in every process. Raises ``ApiKeyNotFoundException``."""

        def revoke(data: Repositories) -> None:
            if data.api_keys.get_own(guid, tenant_id=tenant_id) is None:
                raise ApiKeyNotFoundException
            data.api_keys.revoke(guid, tenant_id=tenant_id, at=clock.now())

        await self.database.write(revoke)


def issue_key(
    data: Repositories, tenant: Tenant, *, name: str, scopes: frozenset[Scope], expires_at: datetime | None = None
) -> IssuedApiKey:
    """Issue a key within a transaction that others have opened."""
    key_id, secret = _random_text(12), _encode(secrets.randbits(256), length=43)
    body = f"pxy_{key_id}_{secret}"
    stored = StoredApiKey(
        guid=ApiKeyGuid(str(uuid.uuid4())),
        tenant_id=tenant.id,
        key_id=key_id,
        secret_sha256=_sha256(secret),
        name=name,
        scopes=scopes,
        created_at=clock.now(),
        expires_at=expires_at,
        revoked_at=None,
    )
    data.api_keys.insert(stored)
    return IssuedApiKey(detail=_detail(stored), api_key=SecretStr(body + _checksum(body)))


def _is_active(key: StoredApiKey, *, at: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or at < key.expires_at)


def _principal(key: StoredApiKey, tenant: Tenant) -> Principal:
    return Principal(
        tenant_id=tenant.id,
        tenant_guid=tenant.guid,
        default_visibility=tenant.default_visibility,
        subject=key.guid,
        scopes=key.scopes,
    )


def _detail(key: StoredApiKey) -> ApiKeyDetail:
    return ApiKeyDetail(**key.model_dump(include=set(ApiKeyDetail.model_fields)))


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _encode(zlib.crc32(body.encode()), length=6)


def _random_text(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _encode(number: int, *, length: int) -> str:
    """A number in base 62, padded to ``length`` digits."""
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
