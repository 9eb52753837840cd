"""Assertions and builders of the OAuth endpoint tests."""

import base64
import re
from urllib.parse import quote

import httpx2

from tests.support.identity import Json

DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")
"""The characters allowed in ``error_description`` (RFC 6749 §5.2)."""

CHALLENGES = {
    "invalid_client": 'Basic realm="pixyproxy", charset="UTF-8"',
    "credential_invalid": 'Bearer realm="pixyproxy", error="invalid_token"',
}
"""The ``WWW-Authenticate`` header of a code; other codes have none."""


def assert_oauth_error(answer: httpx2.Response, status: int, error: str) -> Json:
    """Assert that a response is exactly this RFC 6749 §5.2 error, and return its body."""
    assert (answer.status_code, answer.json().get("error")) == (status, error), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    body: Json = answer.json()
    assert body.keys() == {"error", "error_description", "code", "request_id"}
    assert DESCRIPTION.fullmatch(body["error_description"])
    assert body["request_id"] == answer.headers["x-request-id"]
    assert answer.headers.get("www-authenticate") == CHALLENGES.get(body["code"])
    return body


def basic(identity: str, secret: str, *, safe: str = "") -> dict[str, str]:
    """Return the header of a client that encodes its id and secret according to RFC 6749 §2.3.1."""
    return raw_basic(f"{quote(identity, safe=safe)}:{quote(secret, safe=safe)}")


def raw_basic(credentials: str | bytes) -> dict[str, str]:
    """Return a Basic header with exactly these characters."""
    content = credentials if isinstance(credentials, bytes) else credentials.encode()
    return {"Authorization": f"Basic {base64.b64encode(content).decode()}"}


def every_character_escaped(text: str) -> str:
    """Return the text with every character percent-encoded, which servers must accept."""
    return "".join(f"%{byte:02X}" for byte in text.encode())
