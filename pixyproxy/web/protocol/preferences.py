"""Client preferences: the ``Prefer`` header (RFC 7240)."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

PREFERENCE = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*"?([^";,]*)"?)?[^,]*')
LONGEST_WAIT_SECONDS = 3600


@dataclass(frozen=True)
class Preferences:
    """``respond_async``: respond before the work is done. ``wait``: respond after so many seconds at most."""

    respond_async: bool = False
    wait: int | None = None

    @property
    def applied(self) -> str:
        """The ``Preference-Applied`` value of a response before the work is done (RFC 7240 §3)."""
        return "respond-async" if self.respond_async else f"wait={self.wait}"

    @property
    def seconds(self) -> float | None:
        """How long to wait for the work; None: until it is done."""
        return 0 if self.respond_async and self.wait is None else self.wait


def read_preferences(header: str) -> Preferences:
    """Return the preferences in a header; unknown or malformed ones are ignored, as the standard requires."""
    given = {match[1].lower(): (match[2] or "").strip() for match in map(PREFERENCE.match, header.split(",")) if match}
    wait = given.get("wait", "")
    return Preferences(
        respond_async="respond-async" in given,
        wait=min(int(wait), LONGEST_WAIT_SECONDS) if re.fullmatch(r"[0-9]{1,9}", wait) else None,
    )


async def _preferences(
    prefer: Annotated[
        str, Header(description="`respond-async` responds at once, `wait=SECONDS` after this time (RFC 7240).")
    ] = "",
) -> Preferences:
    return read_preferences(prefer)


Prefer = Annotated[Preferences, Depends(_preferences)]
