"""What every error under ``/v1`` must look like: OpenAI's envelope, as its SDKs read it."""

from typing import Any

import httpx2

MEMBERS = {"message", "type", "param", "code", "request_id"}


def assert_openai_error(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """What is in the envelope of an answer that is this very error."""
    assert response.status_code == status, response.text[:2000]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-should-retry"] in {"true", "false"}
    body = response.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == MEMBERS
    assert error["code"] == code, response.text[:2000]
    assert error["message"]
    assert error["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return error
