"""A fake of passlib's context whose checks cost nothing, wait for a gate, and are written down."""

import threading
from dataclasses import dataclass, field

from passlib.context import CryptContext


@dataclass
class FakeContext(CryptContext):
    """Checks once its gate is open; the right password is the one that is kept, as it is."""

    gate: threading.Event = field(default_factory=threading.Event)
    done: list[str] = field(default_factory=list)

    def hash(self, secret: str, **_: object) -> str:  # type: ignore[override]  # the library's takes what it ignores
        """Keep the password as it is."""
        assert self.gate.wait(20)
        self.done.append(f"hash {secret}")
        return secret

    def verify(self, secret: str, hash: str, **_: object) -> bool:  # type: ignore[override]  # noqa: A002  (as above)
        """Compare."""
        assert self.gate.wait(20)
        self.done.append(f"verify {secret}")
        return secret == hash

    def dummy_verify(self, elapsed: int = 0) -> bool:  # noqa: ARG002  (the library's)
        """Compare with nothing."""
        assert self.gate.wait(20)
        self.done.append("dummy")
        return False
