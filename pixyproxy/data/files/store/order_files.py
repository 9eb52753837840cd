"""Files that an order needs until it is finished, for any executing process: input pictures and previews."""

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from pixyproxy.core.models.generation import GenerationGuid
from pixyproxy.data.files.durable import STAGED_AGE_SECONDS, as_storage_exception, make_folder, sync_folder


@dataclass(frozen=True)
class OrderFiles:
    """A folder per order in the picture store. All methods block and raise ``ImageStorageException``."""

    folder: Path

    def input(self, guid: GenerationGuid, index: int) -> Path:
        """Return the path of an input picture."""
        return self.folder / guid / f"{index}.input"

    def preview(self, guid: GenerationGuid, index: int) -> Path:
        """Return the path of a preview, which exists once it is complete."""
        return self.folder / guid / f"{index}.preview"

    def prepare(self, guid: GenerationGuid) -> None:
        """Create the folder of an order."""
        try:
            make_folder(self.folder / guid)
        except OSError as error:
            raise as_storage_exception(error) from error

    def sync(self, guid: GenerationGuid) -> None:
        """Make the names of its files durable."""
        try:
            sync_folder(self.folder / guid)
        except OSError as error:
            raise as_storage_exception(error) from error

    def remove(self, guid: GenerationGuid) -> None:
        """Remove all files of an order. Those that cannot be removed remain for the next sweep."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder / guid)

    def list_guids(self) -> dict[GenerationGuid, bool]:
        """Return the orders that have files, and whether these are old enough to be orphans if there is no row."""
        try:
            names = os.listdir(self.folder)  # noqa: PTH208  (creating thousands of paths takes ten times as long)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise as_storage_exception(error) from error
        oldest = time.time() - STAGED_AGE_SECONDS
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[GenerationGuid(name)] = (self.folder / name).stat().st_mtime < oldest
        return found
