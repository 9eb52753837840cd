"""Assertions on errors under ``/v1``: OpenAI's envelope, as its SDKs read it."""

from typing import Any

import httpx2

from tests.support.problems import assert_problem

MEMBERS = {"message", "type", "param", "code", "request_id"}
BOOLEANS = {"true", "false"}
"""The values of ``x-should-retry`` that OpenAI's SDKs understand."""


def assert_openai_error(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Assert that a response is this error, and return the envelope's content."""
    assert response.status_code == status, response.text[:2000]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-should-retry"] in BOOLEANS
    body = response.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == MEMBERS
    assert error["code"] == code, response.text[:2000]
    assert error["message"]
    assert error["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return error


def assert_error(response: httpx2.Response, status: int, code: str, *, path: str) -> dict[str, Any]:
    """Assert that a response is this error in the format of its path, and return its content."""
    assert_form = assert_openai_error if path.startswith("/v1/") else assert_problem
    return assert_form(response, status, code)
