"""The file in the data folder that holds the keys which sign access tokens."""

import contextlib
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.signing_key import SigningKey
from pixyproxy.data.files import sync_folder

NAME = "signing_keys.json"
LOCK_NAME = ".signing_keys.lock"
OTHERS = stat.S_IRWXG | stat.S_IRWXO

SigningKeys = tuple[SigningKey, ...]
"""At least one, in the order in which they sign."""


class FileVersion(NamedTuple):
    """What changes when the file does: every write makes a new file, and a chmod sets the time of change."""

    inode: int
    size: int
    changed_ns: int


class _Content(FrozenModel):
    keys: SigningKeys = Field(min_length=1)


@dataclass(frozen=True)
class SigningKeyFile:
    """Signing keys on disk, for their user alone. Readers see a whole file; writers wait for each other."""

    folder: Path

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / NAME

    def version(self) -> FileVersion | None:
        """What the file is at this moment, without reading it; None where it is absent or out of reach."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return FileVersion(status.st_ino, status.st_size, status.st_ctime_ns)

    def load(self) -> SigningKeys | None:
        """The keys; None where there is no file yet. Raises ``ConfigurationException``."""
        try:
            with self.path.open(encoding="utf-8") as file:
                others_may = os.fstat(file.fileno()).st_mode & OTHERS
                text = file.read()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable() from error
        if others_may:
            problem = f"Others than its owner may read {self.path}. Run `chmod 600 {self.path}`, then rotate the keys."
            raise ConfigurationException(problem)
        try:
            return _Content.model_validate_json(text).keys
        except ValidationError:
            # The cause would quote what it cannot read, which may be a key.
            raise self._unreadable() from None

    def create_first(self, key: SigningKey) -> SigningKeys:
        """The keys in the file, made with this key where there is none: processes that start together agree.

        Raises ``ConfigurationException``.
        """
        present = self.load()
        if present is not None:
            return present
        with self._locked():
            present = self.load()
            return self._write((key,)) if present is None else present

    def replace(self, change: Callable[[SigningKeys], SigningKeys]) -> SigningKeys:
        """The keys that ``change`` makes of those in the file, written durably; nobody writes in between.

        Raises ``ConfigurationException``.
        """
        with self._locked():
            return self._write(change(self.load() or ()))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable() from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            # Closing releases the lock. The file stays: another process may wait for it.
            os.close(descriptor)

    def _write(self, keys: SigningKeys) -> SigningKeys:
        temporary = self.folder / f".{NAME}.{secrets.token_hex(8)}"
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(_to_json(keys))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
            sync_folder(self.folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise self._unwritable() from error
        return keys

    def _unreadable(self) -> ConfigurationException:
        problem = (
            f"{self.path} cannot be read as a file of signing keys. Restore it from a backup, or remove it: "
            "new keys are made then, and tokens issued so far end."
        )
        return ConfigurationException(problem)

    def _unwritable(self) -> ConfigurationException:
        problem = (
            f"{self.path} cannot be written. Make the folder writable for the user who runs PixyProxy, or set "
            "PIXYPROXY_SIGNING_KEYS."
        )
        return ConfigurationException(problem)


def _to_json(keys: SigningKeys) -> str:
    rows = [
        {
            "kid": key.kid,
            "private_pem": key.private_pem.get_secret_value(),
            "signs_from": key.signs_from.isoformat(),
        }
        for key in keys
    ]
    return json.dumps({"keys": rows}, indent=2) + "\n"
