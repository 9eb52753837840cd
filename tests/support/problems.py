"""Checks of the form of PixyProxy's problem JSON."""

from typing import Any

import httpx2

MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def assert_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Return the body of a response that is exactly this problem, with all members of RFC 9457 and PixyProxy."""
    assert (response.status_code, _code_of(response)) == (status, code), response.text[:2000]
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    problem: dict[str, Any] = response.json()
    assert problem.keys() >= MEMBERS
    assert problem["type"] == f"urn:pixyproxy:error:{code}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return problem


def without_request_id(response: httpx2.Response) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return status, body and headers of a problem without the parts that identify the request, for comparison."""
    body = {name: value for name, value in response.json().items() if name != "request_id"}
    headers = {
        name: value for name, value in response.headers.items() if name not in {"x-request-id", "date", "ratelimit"}
    }
    # The body's length varies with the request id, whose thread id may have one more digit.
    headers.pop("content-length")
    return response.status_code, body, headers


def _code_of(response: httpx2.Response) -> object:
    try:
        body = response.json()
    except ValueError:
        return None
    return body.get("code") if isinstance(body, dict) else None
