"""Credentials that were checked a moment ago, so that a burst of requests asks the database once."""

import hashlib
import time
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.models.principal import Principal

FRESH_SECONDS = 0.25
"""How long another process may go on accepting what was revoked; the promise is one second."""
MOST = 10_000


@dataclass(frozen=True)
class Recognized:
    """A principal, until when its credential lives, and when the check of it began (monotonic seconds)."""

    principal: Principal
    expires_at: datetime | None
    checked_at: float


@dataclass(frozen=True)
class RecognizedCredentials:
    """What this process knows, by the digest of a credential; only valid ones are remembered."""

    known: dict[bytes, Recognized] = field(default_factory=dict)

    def recall(self, presented: SecretStr) -> Principal | None:
        """The principal of a credential that was checked within ``FRESH_SECONDS`` and has not expired since."""
        found = self.known.get(_digest(presented))
        if found is None or time.monotonic() - found.checked_at > FRESH_SECONDS:
            return None
        if found.expires_at is not None and clock.now() >= found.expires_at:
            return None
        return found.principal

    def remember(
        self, presented: SecretStr, principal: Principal, *, expires_at: datetime | None, checked_at: float
    ) -> None:
        """Keep a principal; ``checked_at`` is from before the database was asked."""
        if len(self.known) >= MOST:
            self.known.clear()
        self.known[_digest(presented)] = Recognized(principal, expires_at, checked_at)

    def forget_all(self) -> None:
        """What was revoked or changed in this process counts here at once."""
        self.known.clear()


def _digest(presented: SecretStr) -> bytes:
    return hashlib.sha256(presented.get_secret_value().encode("utf-8", "surrogatepass")).digest()
