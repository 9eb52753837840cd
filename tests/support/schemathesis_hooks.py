"""Loaded by Schemathesis: what it cannot know of PixyProxy."""

import re
import uuid
from typing import Any

import schemathesis

CURSOR_MAX_LENGTH = 500
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:  # noqa: ANN401  (Schemathesis' own types)
    """Give every order a key of its own, and leave out cursors that nobody was given.

    A key that was used for another order, and a cursor made up, are rightly refused whatever their form.
    """
    for name, value in (case.headers or {}).items():
        if name.lower() == "idempotency-key" and IDEMPOTENCY_KEY.fullmatch(str(value)):
            case.headers[name] = str(uuid.uuid4())
    cursor = (case.query or {}).get("cursor")
    if isinstance(cursor, str) and len(cursor) <= CURSOR_MAX_LENGTH:
        del case.query["cursor"]
