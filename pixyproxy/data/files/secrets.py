"""Secrets that a server makes for itself and keeps in its data folder, readable by its user alone."""

import contextlib
import os
import secrets
from pathlib import Path

from pydantic import SecretStr


def load_or_create_secret(folder: Path, name: str) -> SecretStr:
    """The secret in ``folder/name``: 256 random bits in URL-safe base64, made at the first call.

    Processes that start together agree on one: each writes its own file, and a hard link, which fails where
    the name exists, decides. Raises ``OSError`` where the folder cannot be used.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    if not path.exists():
        proposal = folder / f".{name}.{secrets.token_hex(8)}"
        with os.fdopen(os.open(proposal, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(proposal)
        proposal.unlink()
    return SecretStr(path.read_text(encoding="ascii").strip())
