"""What a client would rather have: the ``Prefer`` header (RFC 7240)."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

PREFERENCE = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*"?([^";,]*)"?)?[^,]*')
LONGEST_WAIT_SECONDS = 3600


@dataclass(frozen=True)
class Preferences:
    """``respond_async``: an answer before the work is done will do. ``wait``: no longer than this, in seconds."""

    respond_async: bool = False
    wait: int | None = None

    @property
    def applied(self) -> str:
        """What an answer before the work is done says it did (RFC 7240 §3)."""
        return "respond-async" if self.respond_async else f"wait={self.wait}"

    @property
    def seconds(self) -> float | None:
        """How long to wait for the work to be done; None: as long as it takes."""
        return 0 if self.respond_async and self.wait is None else self.wait


def read_preferences(header: str) -> Preferences:
    """The preferences in a header; what is not known, or cannot be read, is ignored, as the standard says."""
    given = {match[1].lower(): (match[2] or "").strip() for match in map(PREFERENCE.match, header.split(",")) if match}
    wait = given.get("wait", "")
    return Preferences(
        respond_async="respond-async" in given,
        wait=min(int(wait), LONGEST_WAIT_SECONDS) if re.fullmatch(r"[0-9]{1,9}", wait) else None,
    )


async def _preferences(
    prefer: Annotated[
        str, Header(description="`respond-async`: an answer at once. `wait=SECONDS`: one after so long. (RFC 7240)")
    ] = "",
) -> Preferences:
    return read_preferences(prefer)


Prefer = Annotated[Preferences, Depends(_preferences)]
