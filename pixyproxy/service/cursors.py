"""Cursors: where a list goes on, in a form that tells and takes nothing.

Fernet (AES-CBC and HMAC-SHA256) makes a cursor opaque, so that the internal id in it never leaves the
server, and unforgeable. The filter's digest is in it: a cursor works only with the filter it came from.
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
"""On one page."""


@dataclass(frozen=True)
class Page(Generic[Item]):
    """One page of a list, and the cursor of the next one while there is more."""

    items: list[Item]
    next_cursor: str | None


class TenantList(FrozenModel):
    """A list without a filter; cursors of one do not fit another's."""

    name: Literal["keys", "users"]
    tenant_id: TenantId


@dataclass(frozen=True)
class CursorCodec:
    """Encodes and decodes cursors with one secret, which all processes of a server share."""

    secret: SecretStr

    def encode(self, last: int, wanted: FrozenModel) -> str:
        """The cursor behind what has this id in the list of this filter."""
        return self._fernet().encrypt(f"{last}:{_digest(wanted)}".encode()).decode()

    def decode(self, cursor: str, wanted: FrozenModel) -> int:
        """The id that a cursor stands for. Raises ``InvalidCursorException``."""
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
