"""Loaded by Schemathesis: what it cannot know of PixyProxy."""

import re
import uuid
from typing import Any

import schemathesis

CURSOR_MAX_LENGTH = 500
DATE = re.compile(r"\d{4}-\d\d-\d\dT")
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:  # noqa: ANN401  (Schemathesis' own types)
    """Give every order a key of its own, leave out cursors that nobody was given, and let keys expire in the future.

    A key that was used for another order, and a cursor made up, are rightly refused whatever their form.
    """
    for name, value in (case.headers or {}).items():
        if name.lower() == "idempotency-key" and IDEMPOTENCY_KEY.fullmatch(str(value)):
            case.headers[name] = str(uuid.uuid4())
    if case.path.startswith("/auth/") and isinstance(case.body, dict):
        # A client names itself in one place, which a document cannot say; the header is the fuzzer's.
        for name in ("client_id", "client_secret"):
            case.body.pop(name, None)
    if isinstance(case.body, dict) and DATE.match(str(case.body.get("expires_at"))):
        case.body["expires_at"] = "2099-01-01T00:00:00Z"
    if case.path == "/webhook" and isinstance(case.body, dict) and URI.fullmatch(str(case.body.get("url"))):
        # Which hosts may be called, no document can say; the server of the test allows this one, where nobody is.
        case.body["url"] = "https://127.0.0.1:1/"
    if case.path == "/admin/tenant/{guid}" and isinstance(case.body, dict):
        # The tenant may be the fuzzer's own, whose budget would refuse a model without a price.
        case.body.pop("monthly_budget_usd", None)
    cursor = (case.query or {}).get("cursor")
    if isinstance(cursor, str) and len(cursor) <= CURSOR_MAX_LENGTH:
        del case.query["cursor"]
