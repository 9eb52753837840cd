"""Hooks for Schemathesis, with facts about PixyProxy that the OpenAPI document cannot express."""

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
    """Give every order its own Idempotency-Key, drop invented cursors, and make keys expire in the future.

    A key used for another order and an invented cursor are correctly rejected whatever their form.
    """
    for name, value in (case.headers or {}).items():
        if name.lower() == "idempotency-key" and IDEMPOTENCY_KEY.fullmatch(str(value)):
            case.headers[name] = str(uuid.uuid4())
    if case.path.startswith("/auth/") and isinstance(case.body, dict):
        # A client must identify itself in one place only, which the document cannot express. The header is the
        # fuzzer's.
        for name in ("client_id", "client_secret"):
            case.body.pop(name, None)
    if isinstance(case.body, dict) and DATE.match(str(case.body.get("expires_at"))):
        case.body["expires_at"] = "2099-01-01T00:00:00Z"
    if case.path == "/webhook" and isinstance(case.body, dict) and URI.fullmatch(str(case.body.get("url"))):
        # The document cannot express which hosts may be called. The test's server allows this one, where nothing
        # listens.
        case.body["url"] = "https://127.0.0.1:1/"
    if case.path == "/admin/tenant/{guid}" and isinstance(case.body, dict):
        # The tenant may be the fuzzer's own, whose budget would reject a model without a price.
        case.body.pop("monthly_budget_usd", None)
    cursor = (case.query or {}).get("cursor")
    if isinstance(cursor, str) and len(cursor) <= CURSOR_MAX_LENGTH:
        del case.query["cursor"]
