"""A cache of recently checked credentials, so that a burst of requests queries the database once."""

import hashlib
import time
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import SecretStr

from pixyproxy.core import clock
from pixyproxy.core.models.principal import Principal

FRESH_SECONDS = 0.25
"""How long other processes may accept a revoked credential; the documented limit is one second."""
MOST = 10_000


@dataclass(frozen=True)
class CachedPrincipal:
    """A principal, the expiry of its credential, and when its check started (monotonic seconds)."""

    principal: Principal
    expires_at: datetime | None
    checked_at: float


@dataclass(frozen=True)
class CredentialCache:
    """The cached principals by digest of the credential; only valid credentials are cached."""

    known: dict[bytes, CachedPrincipal] = field(default_factory=dict)

    def get(self, presented: SecretStr) -> Principal | None:
        """Return the principal of a credential checked within ``FRESH_SECONDS`` and not expired, or None."""
        found = self.known.get(_digest(presented))
        if found is None or time.monotonic() - found.checked_at > FRESH_SECONDS:
            return None
        if found.expires_at is not None and clock.now() >= found.expires_at:
            return None
        return found.principal

    def put(
        self, presented: SecretStr, principal: Principal, *, expires_at: datetime | None, checked_at: float
    ) -> None:
        """Store a principal; ``checked_at`` is the time before the database was queried."""
        if len(self.known) >= MOST:
            self.known.clear()
        self.known[_digest(presented)] = CachedPrincipal(principal, expires_at, checked_at)

    def forget_all(self) -> None:
        """Clear the cache after a revocation or change, which then takes effect in this process immediately."""
        self.known.clear()


def _digest(presented: SecretStr) -> bytes:
    return hashlib.sha256(presented.get_secret_value().encode("utf-8", "surrogatepass")).digest()
