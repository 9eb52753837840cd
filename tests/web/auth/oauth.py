"""What tests of the OAuth endpoints ask for again and again."""

import base64
import re
from urllib.parse import quote

import httpx2

from tests.support.identity import Json

DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749 §5.2: the characters that ``error_description`` may have."""

CHALLENGES = {
    "invalid_client": 'Basic realm="pixyproxy", charset="UTF-8"',
    "credential_invalid": 'Bearer realm="pixyproxy", error="invalid_token"',
}
"""The header ``WWW-Authenticate`` of a code; all other codes come without one."""


def assert_oauth_error(answer: httpx2.Response, status: int, error: str) -> Json:
    """The body of an answer that is this error, in the form of RFC 6749 §5.2 and no other."""
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
    """The header of a client that encodes its id and secret as RFC 6749 §2.3.1 asks."""
    return raw_basic(f"{quote(identity, safe=safe)}:{quote(secret, safe=safe)}")


def raw_basic(credentials: str | bytes) -> dict[str, str]:
    """A Basic header of these very characters."""
    content = credentials if isinstance(credentials, bytes) else credentials.encode()
    return {"Authorization": f"Basic {base64.b64encode(content).decode()}"}


def every_character_escaped(text: str) -> str:
    """The text with nothing but percent escapes, which a server has to take too."""
    return "".join(f"%{byte:02X}" for byte in text.encode())
