"""Cursors: opaque, unforgeable positions in a list.

Fernet (AES-CBC and HMAC-SHA256) encrypts and signs a cursor, so that the internal id in it stays secret.
A cursor contains a digest of its filter and is valid only with that filter.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

from pixyproxy.core.exceptions import InvalidCursorException
from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.tenant import TenantId

Item = TypeVar("Item")
MOST_LISTED = 100
"""Maximum number of items on one page."""


@dataclass(frozen=True)
class Page(Generic[Item]):
    """One page of a list; ``next_cursor`` is None on the last page."""

    items: list[Item]
    next_cursor: str | None


class TenantList(FrozenModel):
    """The filter of a tenant's list; each list has its own cursors."""

    name: Literal["keys", "users"]
    tenant_id: TenantId


@dataclass(frozen=True)
class CursorCodec:
    """Encodes and decodes cursors with the secret of the installation."""

    secret: SecretStr

    def encode(self, last: int, wanted: FrozenModel) -> str:
        """Return the cursor that continues after the item with this id."""
        return self._fernet().encrypt(f"{last}:{_digest(wanted)}".encode()).decode()

    def decode(self, cursor: str, wanted: FrozenModel) -> int:
        """Return the id in a cursor. Raises ``InvalidCursorException``."""
        try:
            last, digest = self._fernet().decrypt(cursor).decode().split(":")
        except (InvalidToken, ValueError) as error:
            raise InvalidCursorException from error
        if digest != _digest(wanted):
            raise InvalidCursorException
        return int(last)

    def _fernet(self) -> Fernet:
        key = hashlib.sha256(b"pixyproxy cursor:" + self.secret.get_secret_value().encode()).digest()
        return Fernet(base64.urlsafe_b64encode(key))


def _digest(wanted: FrozenModel) -> str:
    return hashlib.sha256(wanted.model_dump_json().encode()).hexdigest()
