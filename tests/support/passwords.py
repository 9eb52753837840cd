"""A fake of passlib's context whose checks cost nothing, wait for a gate, and are recorded."""

import threading
from dataclasses import dataclass, field

from passlib.context import CryptContext


@dataclass
class FakeContext(CryptContext):
    """Checks a password once its gate is open. The stored hash is the password itself."""

    gate: threading.Event = field(default_factory=threading.Event)
    done: list[str] = field(default_factory=list)

    def hash(self, secret: str, **_: object) -> str:  # type: ignore[override]  # the library's takes what it ignores
        """Return the password unchanged."""
        assert self.gate.wait(20)
        self.done.append(f"hash {secret}")
        return secret

    def verify(self, secret: str, hash: str, **_: object) -> bool:  # type: ignore[override]  # noqa: A002  (as above)
        """Compare the password with the stored one."""
        assert self.gate.wait(20)
        self.done.append(f"verify {secret}")
        return secret == hash

    def dummy_verify(self, elapsed: int = 0) -> bool:  # noqa: ARG002  (the library's)
        """Take as long as a comparison."""
        assert self.gate.wait(20)
        self.done.append("dummy")
        return False
