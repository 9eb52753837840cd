"""``signing_keys.json`` in the data folder, where earlier releases stored the signing keys."""

import os
import stat
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import Field, ValidationError

from pixyproxy.core.exceptions import ConfigurationException
from pixyproxy.core.models.base import FrozenModel
from pixyproxy.core.models.signing_key import SigningKey
from pixyproxy.core.models.token import LONGEST_TOKEN_SECONDS
from pixyproxy.data.files.durable import sync_folder

NAME = "signing_keys.json"
LOCK_NAME = ".signing_keys.lock"
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class _Content(FrozenModel):
    keys: tuple[SigningKey, ...] = Field(min_length=1)


@dataclass(frozen=True)
class FormerSigningKeys:
    """The file in a data folder; it is never written."""

    folder: Path

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.folder / NAME

    def load(self) -> tuple[SigningKey, ...]:
        """Return the keys, each retired by its successor in the file; none if there is no file.

        Raise ``ConfigurationException`` if other users may read the file, or if it is damaged.
        """
        try:
            with self.path.open(encoding="utf-8") as file:
                open_to_others = os.fstat(file.fileno()).st_mode & OTHERS
                text = file.read()
        except FileNotFoundError:
            return ()
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged() from error
        if open_to_others:
            problem = f"Other users may read {self.path}. Run `chmod 600 {self.path}`, then rotate the keys."
            raise ConfigurationException(problem)
        try:
            keys = _Content.model_validate_json(text).keys
        except ValidationError:
            # The cause would quote the invalid content, which may be a key.
            raise self._damaged() from None
        longest = timedelta(seconds=LONGEST_TOKEN_SECONDS)
        retirements = [successor.signs_from + longest for successor in keys[1:]]
        return tuple(
            key.model_copy(update={"retires_at": at}) for key, at in zip(keys, [*retirements, None], strict=True)
        )

    def remove(self) -> None:
        """Remove the file and its lock. Raise ``ConfigurationException`` if that fails."""
        try:
            for name in (NAME, LOCK_NAME):
                (self.folder / name).unlink(missing_ok=True)
            sync_folder(self.folder)
        except OSError as error:
            problem = f"The keys in {self.path} are now in the database, but the file cannot be removed. Remove it."
            raise ConfigurationException(problem) from error

    def _damaged(self) -> ConfigurationException:
        problem = (
            f"{self.path} is not a valid file of signing keys. Restore it from a backup, or remove it, "
            "which invalidates the tokens signed with its keys."
        )
        return ConfigurationException(problem)
